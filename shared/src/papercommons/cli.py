"""One manner for every command: a typed function becomes a program. Needs no torch to start.

`run_command` reads the function's signature and Google docstring, parses the arguments, calls it
and prints what it returns. Standard output holds only the result table, or one JSON object with
``--json``; progress and log lines go to standard error. Exit codes: 0 ok, 2 bad arguments or bad
data, 1 anything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import re
import sys
import time
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from papercommons.arguments import build_parser, call, parse_arguments
from papercommons.checks import check_at_least, check_seed
from papercommons.errors import DataError, one_line, reason
from papercommons.files import is_first_process
from papercommons.places import release

__all__ = [
    "SECONDS_BETWEEN_LINES",
    "ComputeOptions",
    "DeviceOptions",
    "FloatRunOptions",
    "RunOptions",
    "build_parser",
    "leave_process_group",
    "program",
    "run_command",
    "show_progress",
    "track",
    "user_message",
]

log = logging.getLogger("papercommons")
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10  # of progress, where no bar shows it
_NOT_THE_USERS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclasses.dataclass(frozen=True)
class _EveryRun:
    """What all commands that compute have.

    Attributes:
        seed: seed of everything random, >= 0.
        accelerator: auto, cpu, gpu or another name Lightning knows.
        overwrite: empty --out first if it holds an earlier run.
    """

    seed: int = 0
    accelerator: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def settings(self) -> dict[str, Any]:
        """Return the options that belong to a run (not how this call was made), as plain types."""
        about_call = {"resume", "overwrite", "dry_run"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in about_call}


@dataclasses.dataclass(frozen=True)
class ComputeOptions(_EveryRun):
    """Where and how to compute.

    For commands that go through their input one by one on one device.

    Attributes:
        precision: number format: 32-true, bf16-mixed, 16-mixed.
    """

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


@dataclasses.dataclass(frozen=True)
class DeviceOptions(_EveryRun):
    """Where and how to compute.

    For commands that give batches to Lightning, on one device or several.

    Attributes:
        precision: number format: 32-true, bf16-mixed, 16-mixed, 64-true.
        devices: how many devices, or auto.
        strategy: how several devices work together: auto, ddp, fsdp, ...
        num_workers: processes that read data beside the main one; results do not depend on it.
        deterministic: refuse algorithms whose result varies from run to run.
        trainer: anything else for Lightning's Trainer, as --trainer.KEY VALUE.
    """

    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    devices: str = "auto"
    strategy: str = "auto"
    num_workers: int = 0
    deterministic: bool = False
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, num_workers=self.num_workers)


@dataclasses.dataclass(frozen=True)
class RunOptions(DeviceOptions):
    """How to run.

    For commands that train: `DeviceOptions`, and what only training has.

    Attributes:
        compile: compile the networks with torch.compile (worth it for long runs).
        resume: go on with the run in --out: last, or a checkpoint file.
        dry_run: one batch of everything, write nothing.
    """

    compile: bool = False
    resume: str | None = None
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class FloatRunOptions(RunOptions):
    """How to run.

    `RunOptions` without double precision, for networks that have no use for it.

    Attributes:
        precision: number format: 32-true, bf16-mixed, 16-mixed.
    """

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


def show_progress() -> bool:
    """Return whether bars are wanted: standard error is a terminal and --quiet was not given."""
    return sys.stderr.isatty() and log.isEnabledFor(logging.INFO) and is_first_process()


def track(items: Sequence[T], label: str) -> Iterable[T]:
    """Give the items, with a progress bar on standard error, or off a terminal a line now and then.

    Args:
        items: what is gone through.
        label: in words, before the bar.
    """
    if not show_progress():
        return _logged(items, label)
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, label, console=Console(stderr=True), transient=True)


def _logged(items: Sequence[T], label: str) -> Iterator[T]:
    said = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info("%s: %d of %d", label, done, len(items))
        yield item


def run_command(
    function: Callable[..., Any], *, prog: str, argv: Sequence[str] | None = None
) -> int:
    """Parse arguments for `function`, call it, print its `Result`, and return the exit code.

    A parameter becomes ``--its-name``; ``*names`` become positional arguments; a parameter whose
    type is a dataclass (such as `RunOptions`) becomes one option per field, under the first line of
    the dataclass's docstring. Help comes from the docstrings' Args and Attributes.

    Args:
        function: typed, with a Google docstring; returns a `papercommons.report.Result` or None.
        prog: the program's name.
        argv: arguments; those of this process if None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with _reader_may_leave():
            options = parse_arguments(function, prog, words)
        debug = options.debug
        _start_log(quiet=options.quiet)
        _check_alone(function, prog)
        with contextlib.redirect_stdout(sys.stderr):
            result = call(function, options)
        if result is not None and is_first_process():
            with _reader_may_leave():
                result.print(as_json=options.json)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted{_how_to_go_on(function)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = user_message(error, function.__module__)
        if message is not None:
            print(f"{prog}: error: {message}", file=sys.stderr)
            return 2
        hint = "" if debug else " (--debug shows where)"
        print(f"{prog}: failed: {_failure(error)}{hint}", file=sys.stderr)
        return 1
    finally:
        release()
    return 0


def _check_alone(function: Callable[..., Any], prog: str) -> None:
    """Refuse to be one of several processes where the command works in one."""
    if ComputeOptions in typing.get_type_hints(function).values() and not is_first_process():
        raise ValueError(
            f"{prog} works in one process, and this is not the first of several; start it alone. "
            "To share out its inputs, give parts of them to jobs of their own, each with its --out"
        )


def _how_to_go_on(function: Callable[..., Any]) -> str:
    hints = typing.get_type_hints(function)
    if {RunOptions, FloatRunOptions} & set(hints.values()):
        return "; a run that has finished an epoch goes on with --resume last"
    return "; --resume goes on with what is missing" if "resume" in hints else ""


def program(function: Callable[..., Any], prog: str) -> Callable[[], NoReturn]:
    """Return what a console script calls: `run_command` on this process's arguments, then exit.

    Args:
        function: see `run_command`.
        prog: the program's name.
    """

    def main() -> NoReturn:
        code = run_command(function, prog=prog)
        if code == 0:  # after an error the other processes may never come to the barrier
            leave_process_group()
        sys.exit(code)

    return main


def leave_process_group() -> None:
    """End torch's process group, if there is one: else gloo's threads may abort the exit.

    Every process of the group has to call it. The barrier makes the group's last work one without
    tensors: in torch 2.6 gloo deadlocks if its thread drops a tensor while the group goes.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def user_message(error: BaseException, module: str) -> str | None:
    """Return the one line to show if `error` is about what the user gave, else None.

    That is a `DataError` from anywhere (also out of a data-loader worker, where only its text
    survives), an error of the system that names a file and is no full or failing disk, or a
    ValueError that papercommons or the command's own package raised. One raised inside a library is
    a fault to look into, not the user's.

    Args:
        error: what was raised.
        module: name of the module that holds the command.
    """
    if isinstance(error, DataError):
        return one_line(_text_in_worker(error) or str(error))
    if isinstance(error, OSError):
        if error.filename is None or error.errno in _NOT_THE_USERS:
            return None
        return one_line(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}")
    if not isinstance(error, ValueError):
        return None
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_in = "" if place is None else str(place.tb_frame.f_globals.get("__name__", ""))
    ours = {module.partition(".")[0], "papercommons"}
    return one_line(str(error)) if raised_in.partition(".")[0] in ours else None


def _text_in_worker(error: BaseException) -> str | None:
    """Return the message of an error that a data-loader worker sent as the text of a traceback."""
    text = str(error)
    if not text.startswith(f"Caught {type(error).__name__} in "):
        return None
    *_, last = re.split(rf"^[\w.]*{type(error).__name__}: ?", text, flags=re.MULTILINE)
    return last


def _failure(error: BaseException) -> str:
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if named or "can't allocate memory" in str(error):  # torch's for the CPU has no type of its own
        return "out of memory; take a smaller --batch-size or a smaller input"
    inner = _text_in_worker(error)
    said = reason(error) if inner is None else one_line(inner)
    return said if said == type(error).__name__ else f"{type(error).__name__}: {said}"


def _start_log(*, quiet: bool) -> None:
    """Send what packages log to standard error, once, whatever standard error is by now."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    wanted = logging.WARNING if quiet else logging.INFO
    log.setLevel(wanted if is_first_process() else logging.ERROR)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End the program quietly where the reader of standard output has gone, as head does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        raise SystemExit(0) from None
