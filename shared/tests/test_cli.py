from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from papercommons.cli import (
    ComputeOptions,
    DeviceOptions,
    FloatRunOptions,
    RunOptions,
    leave_process_group,
    program,
    run_command,
    track,
    user_message,
)
from papercommons.errors import DataError, nearest, one_line, reason
from papercommons.report import Result
from torch.utils.data import DataLoader


def train(*, data: str, run: RunOptions = RunOptions()) -> Result:  # noqa: B008
    """Train a toy.

    Args:
        data: a folder.
        run: how to run.
    """
    print("a library that prints")
    logging.getLogger("papercommons").info("a log line")
    return Result("papercommons", "toy", "A toy", rows=[{"auc": 0.5}], settings=asdict(run))


def call(function, *words):
    return run_command(function, prog="toy", argv=list(map(str, words)))


def raising(error):
    def function(*, data: str = "") -> None:
        """Fail.

        Args:
            data: unused.
        """
        raise error

    return function


def test_help_needs_no_heavy_library():
    code = (
        "import sys, papercommons.cli as cli\n"
        "def f(*, data: str, run: cli.RunOptions = cli.RunOptions()) -> None:\n"
        "    'Do.\\n\\n    Args:\\n        data: d.\\n        run: r.\\n    '\n"
        "assert cli.run_command(f, prog='f', argv=['--help']) == 0\n"
        "assert cli.run_command(f, prog='f', argv=['--data', 'x']) == 0\n"
        "heavy = {'torch', 'lightning', 'numpy', 'PIL', 'matplotlib', 'torchvision', 'rich'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: f --data DATA [options]" in done.stdout


def test_stdout_holds_one_json_object(capsys):
    assert call(train, "--data", "x", "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.out.count("\n") == 1
    assert result["rows"] == [{"auc": 0.5}]
    assert result["seed"] == 0
    assert printed.err == "a library that prints\na log line\n"


def test_stdout_holds_the_table(capsys):
    assert call(train, "--data", "x", "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("A toy\n")
    assert "0.5000" in printed.out
    assert "prints" not in printed.out
    assert printed.err == "a library that prints\n"


def test_only_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert call(train, "--data", "x") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a log line" not in printed.err


def test_log_handlers_do_not_pile_up(capsys):
    for _ in range(2):
        assert call(train, "--data", "x") == 0
    assert capsys.readouterr().err.count("a log line") == 2


def fails_in_library(*, data: str = "{") -> None:
    """Fail.

    Args:
        data: no JSON.
    """
    json.loads(data)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("photos/x.jpg: broken"), 2, "error: photos/x.jpg: broken"),
        (DataError("C:\\new\\x.jpg: bad"), 2, "error: C:\\new\\x.jpg: bad"),
        (DataError("a\nb.jpg: bad\x1b[2J"), 2, "error: a b.jpg: bad\\x1b[2J"),
        (DataError("x: no DataError: y"), 2, "error: x: no DataError: y"),
        (ValueError("tau must be\n> 0"), 2, "error: tau must be > 0"),
        (FileNotFoundError(2, "No such file", "a/b"), 2, "error: a/b: no such file"),
        (PermissionError(13, "Permission denied", "a"), 2, "error: a: permission denied"),
        (NotADirectoryError(20, "Not a directory", "a/b"), 2, "error: a/b: not a directory"),
        (
            OSError(36, "File name too long", "a" * 300),
            2,
            f"error: {'a' * 300}: file name too long",
        ),
        (OSError(40, "Too many levels of symbolic links", "a"), 2, "error: a: too many levels"),
        (PermissionError("no name"), 1, "failed: PermissionError: no name"),
        (OSError(28, "No space left on device", "x"), 1, "failed: OSError: [Errno 28] No space"),
        (RuntimeError("two\nlines"), 1, "failed: RuntimeError: two (--debug shows where)"),
        (RuntimeError(), 1, "failed: RuntimeError (--debug shows where)"),
        (KeyError("x"), 1, "failed: KeyError: 'x'"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (BrokenPipeError(), 1, "failed: BrokenPipeError"),
    ],
)
def test_exit_codes_and_one_line(error, code, line, capsys):
    assert call(raising(error)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"toy: {line}"), printed.err
    assert printed.err.count("\n") == 1


def test_value_error_of_a_library_is_no_user_error(capsys):
    assert call(fails_in_library) == 1
    assert "toy: failed: JSONDecodeError: Expecting" in capsys.readouterr().err


@pytest.mark.parametrize("function", [raising(DataError("bad file")), fails_in_library])
def test_debug_shows_where(function, capsys):
    assert call(function, "--debug") in (1, 2)
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "test_cli.py" in printed
    assert "--debug shows where" not in printed
    call(function)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "code", "printed"), [(None, 0, ""), (3, 3, ""), ("stop", 1, "stop\n")]
)
def test_system_exit_keeps_its_code(given, code, printed, capsys):
    assert call(raising(SystemExit(given))) == code
    assert capsys.readouterr().err == printed


class Broken(torch.utils.data.Dataset):
    """A dataset whose items are bad.

    Args:
        error: what reading one gives.
    """

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_data_error_out_of_a_loader_worker(capsys, monkeypatch):
    # torch waits as long as this for a worker that failed
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)

    def read(*, data: str = "") -> None:
        """Read.

        Args:
            data: unused.
        """
        list(DataLoader(Broken(DataError("a\n b.jpg: bad")), num_workers=1))

    assert call(read) == 2
    assert capsys.readouterr().err == "toy: error: a b.jpg: bad\n"
    gc.collect()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a: DataError: bad"), 2, "error: a: DataError: bad"),
        (DataError(""), 2, "error: "),
        (RuntimeError("out of luck"), 1, "failed: RuntimeError: out of luck (--debug shows"),
    ],
)
def test_errors_out_of_other_processes(error, code, line, capsys):
    try:
        raise error
    except type(error):
        sent = torch._utils.ExceptionWrapper(where="in DataLoader worker process 0")

    def receive(*, data: str = "") -> None:
        """Receive.

        Args:
            data: unused.
        """
        sent.reraise()

    assert call(receive) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"toy: {line}")
    assert printed.count("\n") == 1


def test_system_errors_without_a_file_are_no_user_errors():
    assert user_message(PermissionError("x"), "toy.cli") is None
    assert user_message(OSError(28, "full", "x"), "toy.cli") is None


def test_a_reader_that_leaves_is_no_error():
    code = (
        "import sys\nfrom papercommons.cli import run_command\n"
        "from papercommons.report import Result\n"
        "def f() -> Result:\n    'Do.'\n"
        "    return Result('papercommons', 'f', 'x', notes=['y' * 100] * 2000)\n"
        "sys.exit(run_command(f, prog='f', argv=['--json']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_program_exits_with_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["toy", "--nonsense"])
    with pytest.raises(SystemExit, match="2"):
        program(train, "toy")()


def test_settings_hold_what_belongs_to_a_run():
    settings = RunOptions(resume="last", overwrite=True, dry_run=True, seed=5).settings()
    assert settings["seed"] == 5
    assert not {"resume", "overwrite", "dry_run"} & settings.keys()
    json.dumps(settings)


def test_words_for_messages():
    assert nearest("RESNET", ["resnet8", "vgg"]) == "; did you mean resnet8?"
    assert nearest("zzz", ["resnet8"]) == ""
    assert nearest("zzz", []) == ""
    assert nearest("vgg", ["vgg8", "vgg9", "resnet8"]) == "; did you mean vgg8 or vgg9?"
    assert one_line(" a\r\n\n b\u2028c ") == "a b c"
    assert one_line("C:\\n\u202e\udcff é") == "C:\\n\\u202e\\udcff é"
    assert reason(EOFError()) == "EOFError"
    assert reason(RuntimeError("x" * 300 + "\ny")) == "x" * 200


@pytest.mark.parametrize("wanted", [True, False])
def test_track_gives_every_item_with_and_without_a_bar(wanted, monkeypatch, capsys):
    monkeypatch.setattr("papercommons.cli.show_progress", lambda: wanted)
    assert list(track([1, 2, 3], "items")) == [1, 2, 3]
    assert capsys.readouterr().out == ""


def test_off_a_terminal_a_line_tells_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr("papercommons.cli.SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level("INFO", "papercommons"):
        assert list(track("ab", "Looking")) == ["a", "b"]
    assert caplog.messages == ["Looking: 0 of 2", "Looking: 1 of 2"]


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--no-such-option"], 2)])
def test_a_program_that_succeeds_leaves_its_process_group(words, code, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", *words])
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(SystemExit) as stop:
            program(lambda: None, "x")()
        assert stop.value.code == code
        assert torch.distributed.is_initialized() == (code != 0)
    finally:
        leave_process_group()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("options", "code"), [(ComputeOptions, 2), (DeviceOptions, 0)])
def test_commands_of_one_process_refuse_to_be_one_of_several(options, code, monkeypatch, capsys):
    def function(*, run=None) -> None:
        """Do.

        Args:
            run: how.
        """

    function.__annotations__["run"] = options
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert call(function) == code
    said = capsys.readouterr().err
    assert ("toy works in one process, and this is not the first of several" in said) == bool(code)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert call(function) == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [(ComputeOptions, 2), (FloatRunOptions, 2), (DeviceOptions, 0), (RunOptions, 0)],
)
def test_double_precision_is_offered_where_a_command_has_use_for_it(options, code, capsys):
    def function(*, run=options()) -> None:  # noqa: B008
        """Do.

        Args:
            run: how.
        """
        chosen.append(run.precision)

    chosen = []
    function.__annotations__["run"] = options
    assert call(function, "--precision", "64-true") == code
    assert chosen == ["64-true"] * (code == 0)
    assert call(function, "--precision", "bf16-mixed") == 0
