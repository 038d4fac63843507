"""Check one installed package: it stands alone, is light to import, and its commands answer.

`nox -s isolation` runs this in an environment that holds the package's wheel and nothing else:
`python check_isolation.py rld-distill papercommons rld-distill nlran ...`, first the package, then
all packages of the repository.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

SHARED = "papercommons"
HEAVY = ("torch", "torchvision", "lightning", "timm", "matplotlib", "scipy", "sklearn")


def strangers(package: str, ours: Iterable[str]) -> Iterator[str]:
    """Yield a fault for each package of `ours` that is here though `package` may not need it."""
    installed = {found.name for found in distributions()}
    for name in sorted(installed & set(ours) - {package, SHARED}):
        yield f"{name} is installed beside {package}: packages depend on {SHARED} only"


def import_faults(module: str) -> Iterator[str]:
    """Yield a fault if `module` is not the wheel's, or brings in something heavy."""
    code = f"import sys, {module} as m; print(m.__file__, m.__version__, *sys.modules, sep='\\n')"
    done = run([sys.executable, "-P", "-c", code])
    if done.returncode != 0:
        yield f"import {module} fails: {last_line(done.stderr)}"
        return
    where, version, *modules = done.stdout.splitlines()
    if not Path(where).is_relative_to(sysconfig.get_paths()["purelib"]):
        yield f"{module} comes from {where}, not from the wheel"
    if version != distribution(module.replace("_", "-")).version:
        yield f"{module}.__version__ is {version}, the wheel says otherwise"
    if heavy := sorted(set(HEAVY) & set(modules)):
        yield f"import {module} imports {', '.join(heavy)}; import it late"


def content_faults(package: Distribution) -> Iterator[str]:
    """Yield a fault for each file that a wheel of ours must carry and this one does not."""
    files = {Path(str(file)).name for file in package.files or []}
    for name in ("LICENSE", "py.typed"):
        if name not in files:
            yield f"the wheel of {package.name} has no {name}"


def command_faults(package: Distribution) -> Iterator[str]:
    """Yield a fault for each console script whose --help fails or imports something heavy."""
    scripts = Path(sysconfig.get_paths()["scripts"])
    for entry in package.entry_points.select(group="console_scripts"):
        done = run([sys.executable, "-X", "importtime", str(scripts / entry.name), "--help"])
        modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        if done.returncode != 0 or "usage: " not in done.stdout:
            yield f"{entry.name} --help fails: {last_line(done.stderr or done.stdout)}"
        elif heavy := sorted(set(HEAVY) & modules):
            yield f"{entry.name} --help imports {', '.join(heavy)}; import it late"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `command` and return its output as text."""
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def last_line(text: str) -> str:
    """Return the last line of `text` that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def main(package: str, *ours: str) -> int:
    """Print the faults of `package` and return their number."""
    found = distribution(package)
    faults = [
        *strangers(package, ours),
        *import_faults(package.replace("-", "_")),
        *content_faults(found),
        *command_faults(found),
    ]
    for fault in faults:
        print(f"fault: {fault}")
    commands = [entry.name for entry in found.entry_points.select(group="console_scripts")]
    print(f"{package} {found.version}: {len(commands)} commands, {len(faults)} faults")
    return min(len(faults), 1)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
