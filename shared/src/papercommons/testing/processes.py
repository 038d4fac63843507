"""Commands in two processes on the CPU, as users start them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

SCRIPT = "from {module} import {name}\n\nif __name__ == '__main__':\n    {name}()\n"


def run_in_two(
    command: str,
    *arguments: object,
    folder: Path,
    launcher: Literal["lightning", "torchrun", "slurm"],
) -> str:
    """Run a command in two processes and return the standard output of both.

    lightning: one process that starts the other. torchrun: two of one machine. slurm: what srun
    starts on two machines with a task each; only its environment is there, not SLURM itself.

    Args:
        command: the function of its console script, as ``package.cli:main_train``.
        *arguments: of the command, those about devices left out.
        folder: gets the script.
        launcher: what starts the processes.
    """
    module, name = command.split(":")
    script = folder / f"{name}.py"
    script.write_text(SCRIPT.format(module=module, name=name))
    words = [str(script), *map(str, arguments), "--accelerator", "cpu", "--strategy", "ddp"]
    words += ["--devices", "1", "--trainer.num_nodes", "2"] if launcher == "slurm" else []
    words += ["--devices", "2"] if launcher != "slurm" else []
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start = [sys.executable, *(torchrun if launcher == "torchrun" else []), *words]
    more = _slurm_tasks() if launcher == "slurm" else [{}]
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    begun = [_begin(start, folder, os.environ | quiet | variables) for variables in more]
    try:
        said = [process.communicate(timeout=1200) for process in begun]
    finally:
        for process in begun:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with those that it started
                process.communicate()
    for process, (_, err) in zip(begun, said, strict=True):
        assert process.returncode == 0, err[-3000:]
    return "".join(out for out, _ in said)


def _begin(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _slurm_tasks() -> list[dict[str, str]]:
    """Return what srun says to each of two tasks on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2"}
    job |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [job | {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task)} for task in (0, 1)]
