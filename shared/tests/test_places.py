"""Tests of where output may go: odd places are refused in a line, and so is a second process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from papercommons.cli import run_command
from papercommons.errors import DataError
from papercommons.files import check_file_out, check_out, prepare_out, write_text

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and locks are of POSIX")
HOLDING = """
import os, sys
from papercommons.files import prepare_out
prepare_out(sys.argv[1], {})
if not os.fork():  # a child, as workers are: it outlives a killed process
    print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run's folder, and the process that writes there."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield str(tmp_path / "run"), process
        process.stdin.close()


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("", "--out is empty; give a path"),
        ("file/x/y", r"\(file: not a directory\)"),
        ("dangling", r"\(dangling: leads nowhere\)"),
        ("dangling/x", r"\(dangling: leads nowhere\)"),
        ("ä" * 200, r"\(\.: file name too long\)"),
        (f"new/{'a' * 300}/x", r"\(\.: file name too long\)"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, out, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    for check in (check_out, check_file_out):
        if (out, check) != ("dangling", check_file_out):  # a file takes the place of the link
            with pytest.raises(DataError, match=why):
                check(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_drive_that_is_only_read_is_named(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system", f"{dir}/tmp")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for check in (check_out, check_file_out):
        with pytest.raises(DataError, match=f"new/run: cannot be written .{tmp_path}: read-only"):
            check(str(tmp_path / "new" / "run"))


def test_what_can_be_written_is_not_made_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("new", "a/b/c", "a\nb", "ä" * 127):
        check_out(out)
        check_file_out(out)
    assert not list(tmp_path.iterdir())
    write_text(f"{'ä' * 124}.txt", "a name of the greatest length")
    with pytest.raises(DataError, match="--out must be a file, this is a folder"):
        check_file_out(".")


def test_a_second_process_is_refused_until_the_first_is_gone(held):
    out, process = held
    for how in ({}, {"resume": "last"}, {"overwrite": True}):
        with pytest.raises(DataError, match=f"{out}: another process is writing there; wait"):
            prepare_out(out, {}, **how)
    process.kill()
    process.wait()
    prepare_out(out, {})
    prepare_out(out, {})  # once more in the same process


def test_a_finished_command_gives_its_folder_back(tmp_path):
    def make(*, out: str) -> None:
        """Make a run.

        Args:
            out: folder.
        """
        prepare_out(out, {})

    assert run_command(make, prog="make", argv=["--out", str(tmp_path / "run")]) == 0
    code = "import sys; from papercommons.files import prepare_out; prepare_out(sys.argv[1], {})"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)
