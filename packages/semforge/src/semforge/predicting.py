"""`semforge-predict`: fake or real, and what was altered, of each face of pictures and videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.errors import DataError, counted
from papercommons.files import (
    atomic_path,
    hash_files,
    hash_saved,
    name_outputs,
    prepare_out,
    read_note,
    write_csv,
    write_json,
)
from papercommons.report import Result, Section, describe_device, write_report

from semforge.calibration import threshold_of
from semforge.crop_settings import crop_of_photographs, crop_way, describe_crop
from semforge.crops import Cropper, check_header
from semforge.detection import SeenFile, find_files, is_video, see
from semforge.face_pictures import boxes_png, face_png, video_png
from semforge.inspector import Inspector, open_inspector
from semforge.options import PACKAGE, CropMode
from semforge.saved import LIMITS
from semforge.verdicts import BOX, Heatmap, Look, Row, Verdict, heat_map, judge_face

FOLDER = "files"
SHOWN = 24  # files whose pictures are in the report; the others are linked
NO_FACE = "no face"


def predict_faces(
    places: Sequence[str],
    checkpoint: str,
    out: str | None,
    crop: CropMode | None,
    boxes: str | None,
    n_frames: int,
    threshold: float | None,
    heatmap: Heatmap,
    node: str | None,
    batch_size: int,
    skip_bad: bool,
    resume: bool,
    run: ComputeOptions,
) -> Result:
    """Say of each face whether it is fake and what was altered, and return the result.

    Args:
        places: files and folders.
        checkpoint: folder of a run, or of a saved network.
        out: folder for pictures, predictions.csv and the report; None writes nothing.
        crop: how faces are cut; None is as in training.
        boxes: CSV file of boxes.
        n_frames: taken of a video.
        threshold: on p(fake); None is the network's own.
        heatmap: which map is drawn.
        node: what it is about; None is the root.
        batch_size: faces computed at once.
        skip_bad: leave out files that cannot be used.
        resume: go on with an interrupted run; files that are done and unchanged are kept.
        run: where and how to compute.

    Raises:
        DataError: no files, one that cannot be used, no face in any, or no such network.
        ValueError: there is no such node.
    """
    left_out = LeftOut(skip_bad)
    paths = check_files(find_files(places), left_out)
    inspector = open_inspector(checkpoint, run)
    nodes = inspector.net.nodes
    if node is not None and node not in nodes:
        raise ValueError(f"--heatmap-node {node}: no such node; there are {', '.join(nodes)}")
    crop = crop_of_photographs(inspector.config) if crop is None else crop
    way = crop_way(inspector.config, inspector.net.image_size, crop, boxes)
    look = Look(
        Cropper(**way),
        n_frames,
        batch_size,
        threshold_of(inspector.calibration, threshold),
        heatmap if out is not None else "none",
        0 if node is None else nodes.index(node),
    )
    settings: dict[str, Any] = {"files": list(places), "checkpoint": checkpoint, "out": out}
    settings |= {"weights": hash_saved(checkpoint)}
    settings |= {
        "n_frames": n_frames,
        "threshold": threshold,
        "heatmap": heatmap,
        "heatmap_node": node,
    }
    settings |= {"batch_size": batch_size, "skip_bad": skip_bad, **way, **run.settings()}
    folder = None
    if out is not None:
        folder = prepare_out(
            out, settings, resume=resume, overwrite=run.overwrite, inputs=["weights"]
        )
    rows: list[Row] = []
    names = name_outputs(path.stem for path in paths)
    for path, name in track(list(zip(paths, names, strict=True)), "files"):
        with left_out.noting():
            rows += look_at(path, name, inspector, look, folder)
    left_out.check_any(len(rows), "files")
    without = [row["file"] for row in rows if row["prediction"] == NO_FACE]
    faces = [row for row in rows if row["prediction"] != NO_FACE]
    if not faces:
        raise DataError(
            f"{without[0]}: no face found{' (nor in any other file)' * (len(without) > 1)}; give "
            "a picture with a larger frontal face, or faces cut before with --no-crop"
        )
    result = make_result(rows, faces, without, left_out, inspector, look, settings)
    result.data_hash = hash_files(sorted({row["path"] for row in rows}))
    if folder is not None:
        write_csv(folder / "predictions.csv", [{**row, "path": str(row["path"])} for row in rows])
        result.files["predictions"] = str(folder / "predictions.csv")
        result.files["pictures"] = str(folder / FOLDER)
        write_report(folder / "report.html", result, sections_of(folder, rows))
        result.save(folder)
    return result


def check_files(paths: Sequence[Path], left_out: LeftOut) -> list[Path]:
    """Return the videos, and the pictures whose first bytes promise one.

    Args:
        paths: files.
        left_out: gets what is wrong with the others.

    Raises:
        DataError: a picture cannot be used; or all cannot.
    """
    good = []
    for path in paths:
        with left_out.noting():
            if not is_video(path):
                check_header(path)
            good.append(path)
    left_out.check_any(len(good), "files")
    return good


def make_result(
    rows: Sequence[Row],
    faces: Sequence[Row],
    without: Sequence[str],
    left_out: LeftOut,
    inspector: Inspector,
    look: Look,
    settings: dict[str, Any],
) -> Result:
    """Return the result of a run, still without files.

    Args:
        rows: of all files.
        faces: those that are about a face.
        without: files without a face.
        left_out: files that were.
        inspector: the network.
        look: how files were looked at.
        settings: every resolved option.
    """
    files = len({row["path"] for row in rows})
    fakes = sum(row["prediction"] == "fake" for row in faces)
    trained = inspector.config["crop"]
    notes = [f"called fake from p = {look.probability:.4g} on; altered: the most probable labels"]
    if inspector.calibration is None:
        notes.append("THE NETWORK IS NOT CALIBRATED (no val split in training): p is its own")
    if look.cropper.crop == "none":
        notes.append(f"taken as faces already; the network's were {describe_crop(trained)}")
    notes += [f"{name}: no face found; faces cut before go with --no-crop" for name in without]
    return Result(
        package=PACKAGE,
        command="semforge-predict",
        title=f"{settings['checkpoint']}: {counted(files, 'file')}, "
        f"{counted(len(faces), 'face')}, {fakes:,} called fake",
        rows=[shown(row) for row in rows],
        metrics={
            "faces": [{k: v for k, v in row.items() if k != "path"} for row in rows],
            "files": files,
            "called_fake": fakes,
            "without_face": len(without),
            "left_out": len(left_out),
            "threshold": look.probability,
        },
        settings={**settings, "made_by": inspector.config.get("made_by")},
        limits=LIMITS,
        device=describe_device(inspector.device),
        notes=[*notes, *left_out.notes()],
    )


def shown(row: Row) -> Row:
    """Return a row as the table shows it."""
    found: Row = {"file": row["file"], "face": row.get("face"), "prediction": row["prediction"]}
    if row["prediction"] == NO_FACE:
        return found
    found["p(fake)"] = row["p_fake"]
    if "p_calibrated" in row:
        found["at even odds"] = row["p_calibrated"]
    found["altered"] = row["altered"]
    if row.get("frames", 1) > 1:
        found["frames"] = row["frames"]
    if "left" in row:
        found["box"] = " ".join(f"{row[side]:.0f}" for side in BOX)
    return found


def look_at(
    path: Path, name: str, inspector: Inspector, look: Look, folder: Path | None
) -> list[Row]:
    """Return the rows of a file, and write its pictures.

    Args:
        path: the file.
        name: plain and unique, of what is written.
        inspector: the network.
        look: how it is looked at.
        folder: of the run; what an earlier run noted there of the unchanged file is taken.

    Raises:
        DataError: it cannot be read.
    """
    note = None if folder is None else folder / FOLDER / f"{name}.json"
    digest = hash_files([path]) if path.is_file() else ""
    if note is not None:
        kept = read_note(note, path, digest)
        if kept is not None and isinstance(kept.get("rows"), list):
            return [{**row, "path": path} for row in kept["rows"]]
    seen = see(path, look.cropper, look.n_frames)
    about = {"file": str(path), "path": path, "name": name}
    verdicts = [
        judge_face(face, number, inspector, look, about)
        for number, face in enumerate(seen.faces, 1)
    ]
    rows = [verdict.row for verdict in verdicts] or [{**about, "prediction": NO_FACE}]
    if note is not None:
        draw_file(note.with_suffix(""), seen, verdicts, inspector, look, is_video(path))
        plain = [{k: v for k, v in row.items() if k != "path"} for row in rows]
        write_json(note, {"path": str(path), "hash": digest, "rows": plain})
    return rows


def draw_file(
    start: Path,
    seen: SeenFile,
    verdicts: Sequence[Verdict],
    inspector: Inspector,
    look: Look,
    video: bool,
) -> None:
    """Write the pictures of a file: START.png, START_video.png, START_face1.png and so on.

    Args:
        start: begin of the names.
        seen: the faces.
        verdicts: of each.
        inspector: the network.
        look: which map is drawn.
        video: whether it is one.
    """
    if not verdicts:
        _save(Path(f"{start}.png"), boxes_png(seen.frames[len(seen.frames) // 2], [], [], []))
        return
    middle = seen.faces[0].pictures[len(seen.faces[0].pictures) // 2]
    there = [
        (face.boxes[face.pictures.index(middle)], verdict)
        for face, verdict in zip(seen.faces, verdicts, strict=True)
        if middle in face.pictures
    ]
    says = [verdict.row["prediction"] for _, verdict in there]
    texts = [f"{v.row['face']}: {v.row['prediction']}, p {v.row['p_fake']:.2f}" for _, v in there]
    boxes = [box for box, _ in there]
    _save(Path(f"{start}.png"), boxes_png(seen.frames[middle], boxes, says, texts))
    if video:
        curves = {
            f"face {verdict.row['face']}": (face.seconds, verdict.of_frames)
            for face, verdict in zip(seen.faces, verdicts, strict=True)
        }
        _save(Path(f"{start}_video.png"), video_png(curves, look.probability))
    for face, verdict in zip(seen.faces, verdicts, strict=True):
        crop = face.crops[int(verdict.of_frames.argmax())]
        heat, title = heat_map(crop, inspector, look)
        picture = face_png(crop, heat, verdict.probabilities, verdict.decoded, title)
        _save(Path(f"{start}_face{verdict.row['face']}.png"), picture)


def sections_of(folder: Path, rows: Sequence[Row]) -> list[Section]:
    """Return the pictures of the most suspicious files, and links to the others.

    Args:
        folder: of the run.
        rows: of all files.
    """
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row["name"], []).append(row)
    ordered = sorted(files, key=lambda name: -max(row.get("p_fake", -1) for row in files[name]))
    sections = []
    for name in ordered[:SHOWN]:
        for kind in ("", "_video"):
            path = folder / FOLDER / f"{name}{kind}.png"
            if path.is_file():
                heading = files[name][0]["file"] if not kind else f"{name}: frame by frame"
                what = "Faces found" if not kind else "p(fake) of each frame looked at"
                sections.append(Section(heading, figure=path.read_bytes(), caption=what))
        for row in files[name]:
            path = folder / FOLDER / f"{name}_face{row.get('face')}.png"
            if path.is_file():
                sections.append(
                    Section(
                        f"{name}, face {row['face']}: {row['prediction']}, p {row['p_fake']:.3f}",
                        f"Altered, by the most probable labels: {row['altered']}.",
                        figure=path.read_bytes(),
                        caption="The face (of a video, its most suspicious frame), and p of each "
                        "node",
                    )
                )
    rest = {files[name][0]["file"]: f"{FOLDER}/{name}.png" for name in ordered[SHOWN:]}
    return [*sections, *([Section("The others", links=rest)] if rest else [])]


def _save(path: Path, png: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
