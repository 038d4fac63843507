"""Peak memory of a command in a process of its own, for the files under ``bench/``."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

# Between the two processes, because a process starts with the peak of the one that began it.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak_resident(command: str, *arguments: object) -> float:
    """Run a console script to its end and return its peak resident set in MiB.

    Of a command that starts processes, the largest peak of one of them. For reading, never for
    assertions: Python and its libraries alone take some 100 MiB.

    Args:
        command: name of a console script of this environment, or a path.
        *arguments: of the command.

    Raises:
        RuntimeError: the command failed; the message ends with what it said.
    """
    script = Path(sysconfig.get_path("scripts")) / command
    words = [sys.executable, "-c", LAUNCHER, str(script), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with code {done.returncode}: {done.stderr[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, and KiB on Linux
    return int(done.stdout) * unit / 2**20
