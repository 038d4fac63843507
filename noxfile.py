"""Every task of this repository. A newcomer needs two: `nox -s demo` and `nox -s tests`.

After `--` stands what to take and how: names of packages (all if none is named), --all-pythons
(else the running Python), and then options of the tool that runs, as in
`nox -s tests -- packages/rld-distill --all-pythons -k loss -x`.
A GPU half is skipped with its reason where CUDA is absent; with REQUIRE_GPU=1 it fails instead.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nox

STARTED = time.monotonic()
ROOT = Path(__file__).parent.resolve()
ALL_PYTHONS = ["3.11", "3.12", "3.13"]
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PINNED = ["-c", str(ROOT / "constraints.txt")]
DEMO = (
    "rld-distill-compare --data digits --size 16 --preset demo "
    "--methods ce,kd,dkd,rld --seeds 0,1,2 --out runs/demo --overwrite"
).split()
# Commands answer --help without these, so the docs, which show that, are built without them.
HEAVY = ("torch", "lightning", "matplotlib")

FOLDERS = {"papercommons": ROOT / "shared"} | {
    path.parent.name: path.parent for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]


def split_arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the packages that `words` name (all if none is named), and the other words."""
    names = {name: name for name in FOLDERS}
    names |= {at.relative_to(ROOT).as_posix(): name for name, at in FOLDERS.items()}
    packages = [names[word.rstrip("/")] for word in words if word.rstrip("/") in names]
    others = [word for word in words if word.rstrip("/") not in names]
    if lost := [word for word in others if re.fullmatch("packages/[^/]*/?", word)]:
        raise SystemExit(f"noxfile: there is no {lost[0]}; packages: {', '.join(FOLDERS)}")
    return packages or list(FOLDERS), others


# Pruned while sessions are made: one that is left out costs no environment and no line of output.
AFTER_DASHES = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
PACKAGES, ARGUMENTS = split_arguments(AFTER_DASHES)
PYTHONS = [THIS_PYTHON]
if "--all-pythons" in ARGUMENTS:
    ARGUMENTS.remove("--all-pythons")
    PYTHONS = ALL_PYTHONS


def each_package(having: str, *tags: str) -> list[Any]:
    """Return one nox parameter per package that has the file or folder `having`."""
    chosen = [package for package in PACKAGES if (FOLDERS[package] / having).exists()]
    return [nox.param(package, id=package, tags=tags) for package in chosen]


@cache
def project(package: str) -> dict[str, Any]:
    """Return the [project] table of a package."""
    text = (FOLDERS[package] / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


WHEELS: dict[str, Path] = {}


def wheel(session: nox.Session, package: str) -> Path:
    """Return the wheel of `package`, built once per nox run."""
    if package not in WHEELS:
        folder = ROOT / "build" / "wheels"
        build = "uv build --quiet --wheel --no-sources --build-constraints constraints.txt -o"
        session.run(*build.split(), str(folder), str(FOLDERS[package]), external=True)
        name = f"{package.replace('-', '_')}-{project(package)['version']}-py3-none-any.whl"
        WHEELS[package] = folder / name
    return WHEELS[package]


def install(session: nox.Session, packages: dict[str, str], *others: str) -> None:
    """Install the wheels of papercommons and of `packages` (name -> extras), as constrained.

    A wheel is named by its path, so that nothing of the same version, in a cache or on the
    registry, takes its place; --reinstall-package says the same to an environment used again.
    """
    wanted = {"papercommons": ""} | packages
    wheels = [
        f"{name}{extras} @ {wheel(session, name).as_uri()}" for name, extras in wanted.items()
    ]
    session.install(*PINNED, *[f"--reinstall-package={name}" for name in wanted], *wheels, *others)


def all_extras() -> dict[str, str]:
    """Return every package with all its extras but that of its benchmarks, for `install`."""
    extras = {p: {*project(p).get("optional-dependencies", [])} - {"bench"} for p in FOLDERS}
    return {p: f"[{','.join(sorted(names))}]" for p, names in extras.items()}


def pytest(
    session: nox.Session,
    *arguments: str,
    python: str = "python",
    env: Mapping[str, str] | None = None,
    success_codes: Iterable[int] = (0,),
) -> None:
    """Run pytest away from the sources, so that only what is installed can be imported."""
    session.chdir(session.create_tmp())
    unset = dict.fromkeys(("PYTHONPATH", "PAPERCOMMONS_FROM_SOURCE"))
    where = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command = [python, "-m", "pytest", *where, *arguments]
    session.run(*command, env={**unset, **(env or {})}, success_codes=success_codes, external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """START HERE: distil a small network on real scans, in 2 minutes, and write a report."""
    install(session, {"rld-distill": ""})
    ready = time.monotonic()
    # One thread: networks this small gain nothing from more, and lose much on a busy machine.
    session.run(*DEMO, *ARGUMENTS, env={"OMP_NUM_THREADS": "1"})
    session.log(f"set-up took {ready - STARTED:.0f} s, mostly the download of torch, once")
    session.log(f"the run took {time.monotonic() - ready:.0f} s")
    session.log(f"now open {ROOT / 'runs' / 'demo' / 'report.html'}")


CUDA: dict[str, bool] = {}


def need_cuda(session: nox.Session, python: str) -> None:
    """Go on only if torch in the environment of `python` finds CUDA; asked once per Python."""
    version = str(session.python)
    if version not in CUDA:
        ask = "import torch; print(torch.cuda.is_available())"
        answer = session.run(python, "-c", ask, silent=True, log=False, external=True)
        CUDA[version] = str(answer).strip().endswith("True")
    if not CUDA[version]:
        stop = session.error if os.environ.get("REQUIRE_GPU") == "1" else session.skip
        stop("no CUDA device: torch.cuda.is_available() is False")


@nox.session(python=PYTHONS)
@nox.parametrize(
    "package, accelerator",
    [nox.param(p, a, id=f"{p}, {a}", tags=[p, a]) for p in PACKAGES for a in ("cpu", "gpu")],
)
def tests(session: nox.Session, package: str, accelerator: str) -> None:
    """Test each package from its built wheel, alone in its environment, on the CPU or a GPU."""
    gpu = accelerator == "gpu"
    own = Path(session.bin)
    # The GPU half works in the environment of the CPU half, if that has been made already.
    of_cpu = own.parent.with_name(own.parent.name.removesuffix("gpu") + "cpu") / own.name
    lent = gpu and of_cpu.exists()
    python = str((of_cpu if lent else own) / "python")
    if lent:
        need_cuda(session, python)
    install(session, {package: "[test]"}, "--group", "test", f"--python={python}")
    folder = str(FOLDERS[package] / "tests")
    if gpu:
        need_cuda(session, python)
        pytest(session, folder, "--device=cuda", *ARGUMENTS, python=python, success_codes=[0, 5])
    else:
        # Tensors are small here: one thread in each of several processes is twice as fast.
        spread = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
        env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        pytest(session, folder, "--device=cpu", *spread, *ARGUMENTS, python=python, env=env)


@nox.session
@nox.parametrize("package", each_package("pyproject.toml", "build"))
def isolation(session: nox.Session, package: str) -> None:
    """Install one wheel alone: its commands answer, and no other package of ours is needed."""
    install(session, {package: ""})
    check = ROOT / ".github" / "scripts" / "check_isolation.py"
    session.chdir(session.create_tmp())
    session.run("python", "-P", str(check), package, *FOLDERS, env={"PYTHONPATH": None})


@nox.session(python=ALL_PYTHONS[0])
@nox.parametrize("package", each_package("tests", "slow"))
def minimum(session: nox.Session, package: str) -> None:
    """Test each package with the oldest Python and libraries that its pyproject.toml allows."""
    wheels = [wheel(session, name) for name in dict.fromkeys(["papercommons", package])]
    found = session.create_tmp() + "/oldest.txt"
    choose = "uv pip compile --quiet --upgrade --no-sources --extra test".split()
    choose += ["--resolution", "lowest-direct"]
    ours = ["--find-links", str(wheels[0].parent), "--no-emit-package", "papercommons"]
    source = str(FOLDERS[package] / "pyproject.toml")
    session.run(*choose, *ours, "--python", ALL_PYTHONS[0], "-o", found, source, silent=True)
    session.install("-r", found)
    session.install("--no-deps", "--reinstall", *map(str, wheels))
    # Old libraries warn of deprecations that newer ones have dealt with.
    calm = ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"]
    one_thread = {"OMP_NUM_THREADS": "1"}
    pytest(session, str(FOLDERS[package] / "tests"), *calm, *ARGUMENTS, env=one_thread)


@nox.session(tags=["build"])
def wheels(session: nox.Session) -> None:
    """Build wheel and sdist of every package into dist/ and check them."""
    session.install(*PINNED, "--group", "build")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    build = "uv build --all-packages --no-sources --build-constraints constraints.txt -o dist"
    session.run(*build.split(), external=True)
    made = sorted([*ROOT.glob("dist/*.whl"), *ROOT.glob("dist/*.tar.gz")])
    session.run("twine", "check", "--strict", *map(str, made))


@cache
def local_index() -> str:
    """Return the address of a package index (PEP 503) of what `nox -s wheels` left in dist/."""
    index = ROOT / "build" / "index"
    shutil.rmtree(index, ignore_errors=True)
    for name in FOLDERS:
        files = sorted(ROOT.glob(f"dist/{name.replace('-', '_')}-*"))
        if len(files) != 2:
            raise SystemExit(f"noxfile: dist/ has {len(files)} files of {name}; nox -s wheels")
        (index / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, index / name)
        links = "\n".join(f'<a href="{file.name}">{file.name}</a><br>' for file in files)
        (index / name / "index.html").write_text(links, encoding="utf-8")
    return index.as_uri()


@nox.session(python=PYTHONS)
@nox.parametrize("kind", ["wheel", "sdist"], ids=["wheel", "sdist"])
@nox.parametrize("package", each_package("pyproject.toml"))
def rehearse(session: nox.Session, package: str, kind: str) -> None:
    """Rehearse a release: install what `nox -s wheels` built by its name, from a local index."""
    names = dict.fromkeys(["papercommons", package])
    anew = [f"--reinstall-package={name}" for name in names]
    from_source = [f"--no-binary={name}" for name in names] if kind == "sdist" else []
    session.install(*PINNED, "--index", local_index(), *anew, *from_source, package)
    check = ROOT / ".github" / "scripts" / "check_isolation.py"
    session.chdir(session.create_tmp())
    session.run("python", "-P", str(check), package, *FOLDERS, env={"PYTHONPATH": None})


@nox.session
def examples(session: nox.Session) -> None:
    """Run docs/examples in one environment that holds all packages, and a user's project."""
    users = str(ROOT / "docs" / "examples" / "downstream_project")
    install(session, dict.fromkeys(FOLDERS, "") | {"papercommons": "[test]"}, "-e", users)
    pytest(session, str(ROOT / "docs" / "examples"), *ARGUMENTS)


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the start page into docs/assets, of all packages or of those named."""
    install(session, dict.fromkeys(FOLDERS, "") | {"defi-net": "[synth]"})
    for package in PACKAGES:
        script = ROOT / "docs" / "pictures" / f"draw_{package.replace('-', '_')}.py"
        if script.exists():
            # One thread: networks this small gain nothing from more.
            session.run("python", str(script), env={"OMP_NUM_THREADS": "1"})


@nox.session(tags=["fast"])
def lint(session: nox.Session) -> None:
    """Check style and the rules of the repository; `-- --fix` repairs what it can."""
    session.install(*PINNED, "--group", "lint", "--group", "test")
    fix = "--fix" in ARGUMENTS
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))
    session.run("pytest", "-q", ".github/scripts")


@nox.session(tags=["fast"])
def types(session: nox.Session) -> None:
    """Check types with mypy, against the installed libraries."""
    install(session, all_extras(), "--group", "types")
    sources = [folder / "src" for folder in FOLDERS.values()]
    env = {"MYPYPATH": os.pathsep.join(map(str, sources))}
    for package in PACKAGES:
        session.run("mypy", *ARGUMENTS, str(FOLDERS[package] / "src"), env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, strictly; `-- serve` shows it while you write."""
    light = [need for need in project("papercommons")["dependencies"] if not need.startswith(HEAVY)]
    groups = ["--group", "docs", "--group", "lint", "--group", "test"]
    session.install(*PINNED, *groups, *light)
    ours = [str(wheel(session, package)) for package in FOLDERS]
    session.install("--no-deps", "--reinstall", *ours)
    session.run("pytest", "-q", "docs/hooks")
    calm = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", *(ARGUMENTS or ["build", "--strict"]), env=calm)


@nox.session
@nox.parametrize("package", each_package("bench", "slow"))
def bench(session: nox.Session, package: str) -> None:
    """Measure against the plain formula in the same process; prints ratios, asserts none."""
    extras = [e for e in ("test", "bench") if e in project(package)["optional-dependencies"]]
    install(session, {package: f"[{','.join(extras)}]"})
    out = str(ROOT / "docs" / "results" / f"{package}-bench.json")
    files = map(str, sorted((FOLDERS[package] / "bench").glob("bench_*.py")))
    pytest(session, *files, "-s", "--results", out, *ARGUMENTS)


@nox.session
@nox.parametrize("package", each_package("reproduce/run.py"))
def reproduce(session: nox.Session, package: str) -> None:
    """Run the experiments of docs/results.md again (name a package: it takes long)."""
    install(session, {package: "[test]"})
    script = FOLDERS[package] / "reproduce" / "run.py"
    out = ROOT / "docs" / "results" / f"{package}.json"
    session.run("python", str(script), "--out", str(out), *ARGUMENTS)


@nox.session
def audit(session: nox.Session) -> None:
    """Look the pinned libraries up among known vulnerabilities; needs the internet."""
    session.install("pip-audit")
    pinned = ["--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    session.run("pip-audit", "--strict", *pinned, *ARGUMENTS)


@nox.session
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew: the newest versions that go together, for CI to install."""
    choose = "uv pip compile --quiet --universal --upgrade --all-extras --group dev".split()
    plain = "--no-header --no-annotate --no-emit-index-url --no-emit-find-links".split()
    ours = [f"--no-emit-package={name}" for name in FOLDERS]
    sources = [str(folder / "pyproject.toml") for folder in FOLDERS.values()]
    out = ["--python-version", ALL_PYTHONS[0], "-o", "constraints.txt"]
    session.run(*choose, *plain, *ours, *out, *sources, silent=True, external=True)
    head = "# Written by `nox -s constraints`: what CI installs, for all platforms and Pythons.\n"
    path = ROOT / "constraints.txt"
    path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8")
