"""Files of a command: atomic writing, output folders, content hashes. Needs no torch."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from papercommons.errors import DataError
from papercommons.places import check_place, hold


def is_first_process() -> bool:
    """Return whether this process writes, under torchrun, SLURM or Lightning's launcher."""
    for name in ("RANK", "SLURM_PROCID"):  # of all processes on all machines
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the place of `path` only if the block succeeds.

    Args:
        path: the file to write; its folder is made.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all; line ends stay as they are.

    Bytes of a file's name that are no UTF-8 become escapes, in JSON the right ones.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` to `path`, whole or not at all; the keys of all rows are the columns.

    Args:
        path: the file.
        rows: one mapping per line; a missing value is left empty.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` as strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


_RUN_MARK = "# Settings of a run, written by papercommons; --config reads them.\n"
_INPUTS_MARK = "# Read: "
_NAME_BYTES = 120  # of an output's name: file systems have 255, and endings are added


def prepare_out(
    out: str,
    settings: dict[str, Any],
    *,
    resume: str | bool | None = None,
    overwrite: bool = False,
    may_change: Iterable[str] = (),
    inputs: Iterable[str] = (),
) -> Path:
    """Make the output folder of a run, note its settings in config.yaml, and return the folder.

    A run is never written over unasked, and never resumed with other settings than it began with.
    What is in the sub-folder ``cache`` can be made again and is kept.
    The folder is kept for this process, see `papercommons.places.hold`.
    In any but the first of several processes nothing is done.

    Args:
        out: the folder.
        settings: resolved options of the command, plain types; None is the same as absent.
        resume: true, or a checkpoint, if the run in `out` is to go on.
        overwrite: empty the folder first.
        may_change: settings that may differ between a run and its resumption.
        inputs: settings that are no options, such as hashes of what is read; they stand in a
            comment of config.yaml, so that ``--config`` takes the file.

    Raises:
        DataError: the folder is not empty and neither `resume` nor `overwrite` is given, it holds
            something else than a run, there is nothing to resume, settings differ, or another
            process writes there.
    """
    folder = Path(out)
    if not is_first_process():
        return folder
    check_out(out, resume=resume, overwrite=overwrite)
    given = {name: value for name, value in settings.items() if value is not None}
    read = {name: given.pop(name) for name in inputs if name in given}
    note = f"{_INPUTS_MARK}{json.dumps(read)}\n" if read else ""
    text = _RUN_MARK + note + yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder)
    check_out(out, resume=resume, overwrite=overwrite)  # another process may have been quicker
    if resume not in (None, False):
        _check_resumed(folder / "config.yaml", _parse_run(text), set(may_change))
    else:
        _empty(folder)
    write_text(folder / "config.yaml", text)
    return folder


def check_out(
    out: str,
    *,
    resume: str | bool | None = None,
    overwrite: bool = False,
    go_on: str | None = None,
    keep: Iterable[str | Path | None] = (),
) -> None:
    """Check that a run may write into `out`, before anything slow begins.

    Args:
        out: the folder.
        resume: true, or a checkpoint, if the run in `out` is to go on.
        overwrite: the folder may be emptied.
        go_on: the option that goes on with a run, where the command has one.
        keep: what the command reads: emptying `out` must not take a file or folder of that name.

    Raises:
        DataError: nothing can be written there, `keep` would be lost, or see `prepare_out`.
    """
    folder = Path(out)
    if not is_first_process():
        return
    check_place(out, folder)
    lost, kept = folder.resolve(), folder.resolve() / "cache"
    for needed in _existing(keep) if overwrite else ():
        place = needed.resolve()
        if place.is_relative_to(lost) and not place.is_relative_to(kept):
            raise DataError(
                f"{out}: --overwrite would delete {needed}, which this command needs; choose "
                "another --out"
            )
    if resume not in (None, False):
        if overwrite:
            raise DataError("--resume and --overwrite exclude each other; give one")
        if not _is_run(folder):
            raise DataError(f"{out}: nothing to resume: no run began there; leave out --resume")
    elif folder.exists() and not _never_began(folder):
        if not _is_run(folder):
            raise DataError(
                f"{out}: folder is not empty and holds no run (a config.yaml of ours), so it is "
                "not overwritten; choose another --out"
            )
        if not overwrite:
            ways = [*([go_on] if go_on else []), "--overwrite", "or another --out"]
            raise DataError(f"{out}: folder is not empty; pass {', '.join(ways)}")


def check_file_out(
    out: str, *, overwrite: bool = False, keep: Iterable[str | Path | None] = ()
) -> None:
    """Check that a command may write the file `out`, before anything slow begins.

    Args:
        out: the file.
        overwrite: it may be replaced.
        keep: what the command reads: `out` must not replace such a file, or one in such a folder.

    Raises:
        DataError: nothing can be written there, `out` is there and `overwrite` is not given, or
            `keep` would be lost.
    """
    check_place(out, Path(out).parent)
    if Path(out).is_dir():
        raise DataError(f"{out}: --out must be a file, this is a folder; choose another")
    if not Path(out).exists():
        return
    if not overwrite:
        raise DataError(f"{out}: the file exists; pass --overwrite, or another --out")
    for needed in _existing(keep):
        if Path(out).resolve().is_relative_to(needed.resolve()):
            raise DataError(
                f"{out}: --overwrite would replace what this command reads ({needed}); choose "
                "another --out"
            )


def _existing(paths: Iterable[str | Path | None]) -> Iterator[Path]:
    return (Path(path) for path in paths if path and Path(path).exists())


def _never_began(folder: Path) -> bool:
    """Return whether the folder holds at most a run's settings and the cache it read with."""
    there = {path.name for path in folder.iterdir()} - {"cache"}
    return not there or (there == {"config.yaml"} and _is_run(folder))


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "config.yaml").read_bytes().startswith(_RUN_MARK.encode())
    except OSError:
        return False


def _empty(folder: Path) -> None:
    """Empty a run's folder but for its cache; config.yaml goes last: half emptied it is a run."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "config.yaml"):
        if path.name == "cache":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _parse_run(text: str) -> dict[str, Any]:
    """Return the settings that config.yaml holds, and the inputs of its comment."""
    notes = [line for line in text.splitlines()[:2] if line.startswith(_INPUTS_MARK)]
    inputs = json.loads(notes[0].removeprefix(_INPUTS_MARK)) if notes else {}
    return {**yaml.safe_load(text), **inputs}


def _check_resumed(begun: Path, settings: dict[str, Any], may_change: set[str]) -> None:
    try:
        before = _parse_run(begun.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError):
        raise DataError(
            f"{begun}: not readable, so the run cannot be resumed; pass --overwrite"
        ) from None
    for name in dict.fromkeys([*settings, *before]):
        if name not in may_change and before.get(name) != settings.get(name):
            raise DataError(
                f"{begun.parent}: cannot resume: {name} was {before.get(name)!r} and is now "
                f"{settings.get(name)!r}; give the same value (--config {begun} gives all) or "
                "another --out"
            )


def find_saved(path: str | Path) -> Path:
    """Return the folder with config.json meant by `path`: itself, or its ``export`` sub-folder.

    Args:
        path: folder of a saved network, or of the run that made it.

    Raises:
        DataError: there is none.
    """
    for folder in (Path(path), Path(path) / "export"):
        if (folder / "config.json").is_file():
            return folder
    raise DataError(
        f"{path}: no saved network (config.json, model.safetensors); give the --out folder of a "
        "training run, or its export folder"
    )


def hash_files(paths: Iterable[str | Path]) -> str:
    """Return a short hash of names, sizes and contents of files, in the order given.

    Of a file above 1 MiB the first and last 512 KiB count, so that large sets stay quick.

    Args:
        paths: files that exist.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        size = path.stat().st_size
        digest.update(os.fsencode(path.name) + f":{size};".encode())
        with path.open("rb") as file:
            if size <= 1 << 20:
                digest.update(file.read())
            else:
                digest.update(file.read(1 << 19))
                file.seek(size - (1 << 19))
                digest.update(file.read())
    return digest.hexdigest()[:16]


def refuse_code(folder: str | Path) -> None:
    """Raise if a model's folder holds Python files, which some of its readers would run.

    Args:
        folder: of a model; a hub id passes.

    Raises:
        DataError: there is one.
    """
    folder = Path(folder)
    found = sorted([*folder.rglob("*.py"), *folder.glob("*/*.py")])  # the second follows links
    if found:
        raise DataError(
            f"{found[0]}: a model's folder must hold no Python file, which may be run as the model "
            "is read; delete it if you need only the weights"
        )


def hash_model(model: str) -> str:
    """Return a short hash of a model: of the files of its folder, or of its hub id.

    Args:
        model: folder that diffusers or transformers wrote, or a hub id.
    """
    folder = Path(model)
    if not folder.is_dir():
        return hash_texts([model])
    suffixes = {".json", ".safetensors", ".txt", ".bin"}
    files = (path for path in folder.rglob("*") if path.suffix in suffixes)
    return hash_files(sorted(path for path in files if path.is_file()))


def hash_texts(texts: Iterable[str]) -> str:
    """Return a short hash of texts in their order, also where they are no UTF-8."""
    return hashlib.sha256("\n".join(texts).encode(errors="surrogateescape")).hexdigest()[:16]


def hash_saved(path: str | Path) -> str:
    """Return a short hash of a saved network: whether it is the one that a run began with.

    Args:
        path: folder of a saved network, or of the run that made it; or a file of weights.

    Raises:
        DataError: see `find_saved`.
    """
    if Path(path).is_file():
        return hash_files([path])
    folder = find_saved(path)
    return hash_files([folder / "config.json", *sorted(folder.glob("*.safetensors"))])


def name_outputs(stems: Iterable[str], *, empty: str = "file") -> list[str]:
    """Return a plain, unique, short name for the outputs of each file; the same for the same list.

    Args:
        stems: names of the files, without folder and suffix.
        empty: what stands for a name without letters.

    Example:
        >>> name_outputs(["x", "x", "y z"])
        ['x', 'x_2', 'y_z']
    """
    names: dict[str, None] = {}
    last: dict[str, int] = {}
    for stem in stems:
        plain = "".join(c if c.isalnum() or c == "-" else "_" for c in stem) or empty
        plain = plain.encode()[:_NAME_BYTES].decode(errors="ignore")
        number = last.get(plain, 0) + 1
        while (name := plain if number == 1 else f"{plain}_{number}") in names:
            number += 1
        last[plain], names[name] = number, None
    return list(names)


def read_note(note: Path, path: Path, digest: str) -> dict[str, Any] | None:
    """Return what an interrupted run noted of a file, None where it must be looked at again.

    Args:
        note: JSON file, with at least ``path`` and ``hash``; it need not exist.
        path: the file.
        digest: its hash now.
    """
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(kept, dict) and (kept.get("path"), kept.get("hash")) == (str(path), digest)
    return kept if same else None
