"""Teachers on disk: a folder with model.safetensors, config.json and a card; and where to find one.

Of a teacher with a recogniser of Hugging Face the lip reader is saved, and where the recogniser is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.errors import DataError, reason
from papercommons.files import find_saved, hash_files, write_text
from papercommons.versions import installed_version

from cmdfd.options import PACKAGE

if TYPE_CHECKING:
    from cmdfd.teachers import ContentTeacher

SMALL, HF = "small", "hf"
OFFICIAL = "official:"
HUGGING_FACE = "hf:"

CARD = """# Content teacher of cmdfd ({kind}, {classes} classes)

Saved by cmdfd {version}; for `cmdfd-train --teacher FOLDER`.

- Says of each frame (25 per second) what is heard and what is seen.
- Made by: {made_by}
- Trained on clips with hash {data_hash}.
- Limits: it knows the voices and faces of its training clips; a weak teacher teaches little.
"""


def save_teacher(teacher: ContentTeacher, folder: str | Path, **about: Any) -> Path:
    """Write a teacher, and return the folder.

    Args:
        teacher: a `SmallTeacher` or an `HFTeacher`.
        folder: made if absent.
        **about: what else config.json keeps, plain types: labels, crop, made_by, data_hash, and of
            an `HFTeacher` recogniser, its folder, and dim and width of its lip reader.

    Raises:
        ValueError: another teacher.
    """
    from papercommons.checkpoint import save_model

    from cmdfd.hf_teacher import HFTeacher
    from cmdfd.small_teacher import SmallTeacher

    version = installed_version(PACKAGE)
    config = {"package": PACKAGE, "version": version, "classes": teacher.classes, **about}
    if isinstance(teacher, SmallTeacher):
        config |= {"kind": SMALL, "model": teacher.config}
        save_model(teacher, folder, config)
    elif isinstance(teacher, HFTeacher):
        digest = hash_recogniser(about["recogniser"])
        sizes = {key: about[key] for key in ("dim", "width")}
        config |= {"kind": HF, "recogniser_hash": digest, "model": sizes}
        save_model(teacher.video, folder, config)
    else:
        raise ValueError(f"a {type(teacher).__name__} is not saved; it has files of its own")
    shown = {key: config.get(key, "not said") for key in ("kind", "made_by", "data_hash")}
    card = CARD.format(version=version, classes=teacher.classes, **shown)
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def open_teacher(name: str) -> ContentTeacher:
    """Return a teacher, in evaluation mode.

    Args:
        name: folder of cmdfd-teach or of a saved teacher; or ``official:AUDIO,VIDEO,LIPS``, files
            of the official recognisers (without LIPS, features of the lips lie beside the videos).

    Raises:
        DataError: missing, broken, or not this package's.
    """
    from papercommons.checkpoint import load_weights, read_config, read_state_dict

    from cmdfd.hf_teacher import HFTeacher
    from cmdfd.small_teacher import SmallTeacher, VisualContent
    from cmdfd.teachers import load_official_teacher

    check_teacher(name)
    if name.startswith(OFFICIAL):
        return load_official_teacher(*official_files(name))
    folder = find_saved(name)
    config = read_config(folder, package=PACKAGE, entries=("model",))
    kind = config.get("kind")
    if kind not in (SMALL, HF):
        raise DataError(f"{folder}/config.json: no teacher of cmdfd-teach")
    try:
        if kind == SMALL:
            teacher: Any = SmallTeacher(**config["model"])
            part: Any = teacher
        else:
            recogniser = str(config["recogniser"])
            if not Path(recogniser).is_dir():
                raise DataError(
                    f"{folder}: its recogniser was in {recogniser}, which is not there; put it "
                    "back, or correct recogniser in config.json"
                )
            if hash_recogniser(recogniser) != config["recogniser_hash"]:
                raise DataError(f"{recogniser}: not the recogniser that {folder} was taught with")
            part = VisualContent(config["classes"], **config["model"])
            teacher = HFTeacher.from_folder(recogniser, part)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{folder}/config.json: {reason(error)}") from error
    load_weights(part, read_state_dict(folder), source=str(folder))
    return teacher.eval()


def check_teacher(name: str) -> list[str]:
    """Check that there is something where a teacher is said to be, and return these places.

    Args:
        name: as for `open_teacher`; also ``hf:FOLDER``.

    Returns:
        files and folders that it is read from.

    Raises:
        DataError: there is not.
    """
    if name.startswith(OFFICIAL):
        files = official_files(name)
        for file in files:
            if not Path(file).is_file():
                raise DataError(f"{file}: no such file; --teacher official:AUDIO,VIDEO,LIPS")
        return files
    if name.startswith(HUGGING_FACE):
        folder = name.removeprefix(HUGGING_FACE)
        check_recogniser(folder)
        return [folder]
    find_saved(name)
    return [name]


def check_recogniser(folder: str) -> None:
    """Raise DataError unless a folder may hold a recogniser of Hugging Face."""
    if not (Path(folder) / "config.json").is_file():
        raise DataError(
            f"{folder}: no recogniser (config.json, model.safetensors as save_pretrained writes "
            "them); give a local folder"
        )


def official_files(name: str) -> list[str]:
    """Return the files named after ``official:``.

    Raises:
        DataError: not two or three.
    """
    files = [part for part in name.removeprefix(OFFICIAL).split(",") if part]
    if len(files) not in (2, 3):
        raise DataError(f"{name}: expected official:AUDIO,VIDEO or official:AUDIO,VIDEO,LIPS")
    return files


def hash_recogniser(folder: str | Path) -> str:
    """Return a short hash of a recogniser's files."""
    check_recogniser(str(folder))
    return hash_files([Path(folder) / "config.json", *sorted(Path(folder).glob("*.safetensors"))])
