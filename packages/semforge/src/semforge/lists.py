"""Lists of pictures and videos of faces with their labels (specification section 4).

Either text, one entry per line, ``path label`` or ``path split label``, with ``#`` before comments;
or CSV with a header and the columns path, label, and if wanted split, video, method and identity
(several joined by ``+``). A path is an image, a video or a folder of a video's frames, below
the list's folder or the root that is given. A label has one character per node of the graph: 0, 1,
or 2 for unknown; a single 0 or 1 speaks of the root alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from papercommons.errors import DataError, one_line, reason

from semforge.entries import FAKE, REAL, Entry, FaceList, as_list
from semforge.graph import LabelGraph
from semforge.inference import UNKNOWN, agreeing

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}
MAX_LIST = 1 << 30  # bytes
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp")
)
_COLUMNS = ("path", "label")


def read_list(path: str | Path, graph: LabelGraph, root: str | Path | None = None) -> FaceList:
    """Return the entries of a list file.

    Args:
        path: text or .csv, see the module, at most 1 GiB.
        graph: of the labels.
        root: folder where paths begin instead of the list's own.

    Raises:
        DataError: missing, empty, too large or unreadable; a line that is not as described, a
            label that the graph forbids, a file that does not exist, or one with two labels.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --root must be where the list's paths begin")
    read_label, inside = LabelReader(graph), folder.resolve()
    entries: list[Entry] = []
    for where, row in _rows(path):
        try:
            label = read_label(row["label"])
        except ValueError as error:
            raise DataError(f"{where}: {one_line(row['path'])}: {error}") from None
        file, split = _file(where, row, folder, inside), _split(where, row)
        moving = file.suffix.lower() in VIDEO_SUFFIXES or file.is_dir()
        entries.append(
            Entry(
                file,
                label,
                row["path"],
                row.get("video") or (row["path"] if moving else ""),
                row.get("method") or (FAKE if label[0] else REAL),
                split,
                tuple(filter(None, (row.get("identity") or "").split("+"))),
                where,
            )
        )
    return as_list(entries, source=str(path))


def illegal_rows(path: str | Path, graph: LabelGraph) -> list[tuple[str, str]]:
    """Return the entries of a list whose labels do not fit a graph: where, and what is wrong.

    Args:
        path: see `read_list`; the files it names need not exist.
        graph: of the labels.

    Raises:
        DataError: the list is missing or unreadable, or a line is not as described.
    """
    faults: list[tuple[str, str]] = []
    read_label = LabelReader(graph)
    for where, row in _rows(Path(path)):
        try:
            read_label(row["label"])
        except ValueError as error:
            faults.append((where, f"{one_line(row['path'])}: {error}"))
    return faults


def parse_label(text: str, graph: LabelGraph) -> np.ndarray:
    """Return the label written in a list.

    Args:
        text: one of 0, 1, 2 per node in the order of the graph; or a single 0 or 1 for the root,
            with all that follows from it (``0``: nothing is altered).
        graph: of the label.

    Returns:
        int8, shape (n,).

    Raises:
        ValueError: another length, another character, or no legal state agrees.
    """
    nodes = graph.nodes
    if odd := sorted(set(text) - set("012")):
        raise ValueError(f"label {text[:40]!r} holds {odd[0]!r}; expected 0, 1 and 2 = unknown")
    if len(text) == 1 and text != "2" and len(nodes) > 1:
        return known_label(graph, {nodes[0]: int(text)})
    if len(text) != len(nodes):
        hint = " (a spreadsheet may have dropped leading zeros)" if len(text) < len(nodes) else ""
        raise ValueError(
            f"label {text[:40]!r} has {len(text)} characters{hint}; {graph.name} has {len(nodes)} "
            f"nodes: {', '.join(nodes)}"
        )
    label = np.array(list(map(int, text)), np.int8)
    if not graph.is_legal(torch.from_numpy(label)[None])[0]:
        on = [node for node, value in zip(nodes, label, strict=True) if value == 1]
        raise ValueError(
            f"label {text!r} ({', '.join(on) or 'nothing'} altered) agrees with no legal state of "
            f"{graph.name}"
        )
    return label


class LabelReader:
    """`parse_label` for long lists, where few labels come again and again.

    Args:
        graph: of the labels.
    """

    def __init__(self, graph: LabelGraph) -> None:
        self.graph = graph
        self._read: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        """Return the label, see `parse_label`."""
        if text not in self._read:
            self._read[text] = tuple(parse_label(text, self.graph).tolist())
        return self._read[text]


def known_label(graph: LabelGraph, known: Mapping[str, int]) -> np.ndarray:
    """Return a label of what is known by name; the root of a real face settles all nodes.

    Args:
        graph: of the label.
        known: node -> 0 or 1; nodes that the graph does not have are passed over.

    Returns:
        int8, shape (n,); 2 where nothing is known.

    Raises:
        ValueError: no legal state agrees.
    """
    label = torch.tensor([[known.get(node, UNKNOWN) for node in graph.nodes]])
    rows = graph.states[agreeing(label, graph.states)[0]]
    if not len(rows):
        raise ValueError(f"{graph.name} forbids {dict(known)}")
    if label[0, 0] == 0:
        settled = (rows == rows[0]).all(0)
        label[0, settled] = rows[0, settled].long()
    return label[0].numpy().astype(np.int8)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the place and the named words of each entry."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a list with lines `path label`")
    if path.stat().st_size > MAX_LIST:
        raise DataError(f"{path}: larger than 1 GiB; split it")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; expected lines `path label`") from None
    rows = _csv_rows(path, lines) if path.suffix.lower() == ".csv" else _text_rows(path, lines)
    found = False
    for where, row in rows:
        found = True
        if not row["path"]:
            raise DataError(f"{where}: names no path")
        yield where, row
    if not found:
        raise DataError(f"{path}: no entries; expected lines `path label`")


def _text_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(words) < 2:
            raise DataError(f"{where}: expected `path label`, got {one_line(line)[:80]!r}")
        rest, label = line.strip().rsplit(None, 1)
        split = rest.rsplit(None, 1)[-1].lower() if len(words) > 2 else ""
        if split in SPLITS:  # else the path has blanks in it
            rest = rest.rsplit(None, 1)[0]
        yield where, {"path": rest, "label": label, "split": split if split in SPLITS else ""}


def _csv_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise DataError(
                f"{path}: no column {' and '.join(missing)}; the first line must name path, label "
                "and if wanted split, video, method, identity"
            )
        for row in reader:
            words = {str(name): (value or "") for name, value in row.items() if name}
            yield f"{path}, line {reader.line_num}", {k: str(v).strip() for k, v in words.items()}
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({reason(error)})") from None


def _split(where: str, row: Mapping[str, str]) -> str:
    word = (row.get("split") or "").lower()
    if word and word not in SPLITS:
        raise DataError(f"{where}: split must be train, val or test, is {one_line(word)!r}")
    return SPLITS.get(word, "")


def _file(where: str, row: Mapping[str, str], folder: Path, inside: Path) -> Path:
    name = row["path"]
    file = folder / name
    if "\0" in name or not file.resolve().is_relative_to(inside):
        raise DataError(
            f"{where}: {one_line(name)} leads out of {folder}; give the folder that holds all "
            "files with --root"
        )
    if not file.exists():
        raise DataError(f"{where}: no such file: {one_line(str(file))}; see --root")
    return file
