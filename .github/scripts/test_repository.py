"""The rules of the repository that a machine can check: who imports whom, and what is committed.

packages/*  ->  papercommons  ->  a few libraries; never package -> package, never back.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
FOLDERS = [ROOT / "shared", *PACKAGES]

# Distribution names that differ from the name one imports.
DISTRIBUTION = {
    "PIL": "pillow",
    "cycler": "matplotlib",  # comes with it
    "docstring_parser": "jsonargparse",  # comes with its [signatures]
    "open_clip": "open-clip-torch",
    "skimage": "scikit-image",
    "umap": "umap-learn",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Taken where it is installed; its own requirements are too old to stand in an extra.
UNDECLARED = {"facenet_pytorch"}
# All that papercommons may need, in its core and in its extras; another library needs a decision.
SHARED_MAY_NEED = {
    *("torch", "torchvision", "torchmetrics", "lightning", "numpy", "pillow", "matplotlib"),
    *("jsonargparse", "pyyaml", "rich", "safetensors", "huggingface-hub"),
    *("av", "scikit-image", "pyarrow", "onnx", "onnxruntime", "onnxscript"),
    *("pytest", "hypothesis", "scikit-learn", "scipy"),  # the tests alone need these
}
# Where papercommons may import these; and what it imports late, so that its parts stay light.
ONLY_IN = {
    "lightning": (
        *("training.py", "optimization.py", "testing/"),
        *("data/scene_data.py", "text_to_image/"),
    ),
    "matplotlib": ("report.py",),
}
LATE = {"matplotlib", "av", "skimage"}


@dataclass(frozen=True)
class Import:
    """One imported top-level module: who imports it, and whether only when a function runs."""

    module: str
    file: Path
    line: int
    late: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports(folder: Path) -> Iterator[Import]:
    """Yield the absolute imports of the Python files below `folder`."""
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        yield from walk(ast.parse(text, filename=str(file)), file, late=False)


def walk(node: ast.AST, file: Path, *, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(a.name.partition(".")[0], file, node.lineno, late) for a in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield Import(str(node.module).partition(".")[0], file, node.lineno, late)
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in ast.iter_child_nodes(node):
        yield from walk(child, file, late=late or function or for_types)


def module_of(folder: Path) -> str:
    return "papercommons" if folder.name == "shared" else folder.name.replace("-", "_")


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(folder: Path) -> set[str]:
    """Return the names of the distributions that a package asks for, extras included."""
    table = project(folder)
    lists = [table["dependencies"], *table.get("optional-dependencies", {}).values()]
    wanted = [text for texts in lists for text in texts]
    return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in wanted}


def committed() -> list[Path]:
    """Return the files that are in git or would be added to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in sorted(set(done.stdout.split("\0"))) if (ROOT / name).is_file()]


every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@every_folder
def test_no_package_imports_another(folder):
    others = {module_of(other) for other in PACKAGES} - {module_of(folder)}
    assert [str(found) for found in imports(folder) if found.module in others] == []


@every_folder
def test_what_is_imported_is_declared(folder):
    known = set(sys.stdlib_module_names) | {module_of(folder)} | UNDECLARED
    wanted = declared(folder)
    undeclared = [
        str(found)
        for found in imports(folder / "src")
        if found.module not in known
        and DISTRIBUTION.get(found.module, found.module.replace("_", "-").lower()) not in wanted
    ]
    assert undeclared == []


def test_the_shared_package_needs_little():
    assert declared(ROOT / "shared") - {"papercommons"} <= SHARED_MAY_NEED


def test_the_shared_package_imports_what_is_heavy_in_its_place():
    source = ROOT / "shared" / "src" / "papercommons"
    found = list(imports(source))
    elsewhere = [
        str(one)
        for one in found
        for places in [ONLY_IN.get(one.module, ("",))]
        if not one.file.relative_to(source).as_posix().startswith(places)
    ]
    assert elsewhere == []
    assert [str(one) for one in found if one.module in LATE and not one.late] == []


@every_folder
def test_a_package_is_complete_by_itself(folder):
    table = project(folder)
    assert table["name"] == ("papercommons" if folder.name == "shared" else folder.name)
    wanted = ["README.md", "CHANGELOG.md", "LICENSE", "tests", f"src/{module_of(folder)}/py.typed"]
    assert [name for name in wanted if not (folder / name).exists()] == []
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert f"## [{table['version']}]" in (folder / "CHANGELOG.md").read_text(encoding="utf-8")


@every_folder
def test_source_files_are_short_enough_to_read(folder):
    lengths = {
        file: len(file.read_text(encoding="utf-8").splitlines())
        for file in folder.glob("src/**/*.py")
    }
    assert {str(file.relative_to(ROOT)): n for file, n in lengths.items() if n > 400} == {}


@every_folder
def test_the_api_page_names_every_module_once(folder):
    """In a line of its own, or in the text, as those are that the commands alone use."""
    page = (ROOT / "docs" / "api" / f"{project(folder)['name']}.md").read_text(encoding="utf-8")
    found = re.findall(rf"^::: (\S+)$|`({module_of(folder)}\.[\w.]+)`", page, re.MULTILINE)
    named = [line or word for line, word in found]
    places = [place.relative_to(folder / "src") for place in (folder / "src").rglob("[!_]*")]
    modules = {".".join(place.with_suffix("").parts) for place in places if place.suffix == ".py"}
    packages = {".".join(place.parts) for place in places if not place.suffix}
    assert sorted(named) == sorted(set(named))
    assert modules - set(named) == set()
    assert set(named) - modules - packages == set()


def test_no_file_is_above_one_mebibyte():
    assert [str(path) for path in committed() if path.stat().st_size > 1 << 20] == []


# Written apart, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.~-])/(work|root|home|Users|tmp/\w)" + "/",
    "an address of a package registry": "|".join(
        (r"pypi\.org" + "/simple", r"files\.python" + "hosted", r"download\.py" + "torch")
    ),
    "a choice of a package index": "-index" + "-url [^-]|UV_TORCH" + "_BACKEND",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_text_holds(what):
    wrong = []
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = re.search(FORBIDDEN[what], text)
        wrong += [f"{path.relative_to(ROOT)}: {found[0]}"] if found else []
    assert wrong == []


def test_constraints_are_plain_pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.!+]+( ; .+)?", line)] == []
