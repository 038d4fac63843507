"""The commands of semforge: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_seed
from papercommons.cli import ComputeOptions, FloatRunOptions, program
from papercommons.errors import DataError, nearest
from papercommons.files import check_out, find_saved
from papercommons.report import Result

from semforge.options import (
    CropMode,
    CropOptions,
    DataOptions,
    LossOptions,
    NetworkOptions,
    RecipeOptions,
    SynthOptions,
    check_crop_words,
    check_graph,
)

ROBUSTNESS = {
    "jpeg": (90.0, 70.0, 50.0, 30.0),
    "resize": (0.75, 0.5, 0.35, 0.25),
    "blur": (0.5, 1.0, 2.0, 3.0),
    "noise": (2.0, 5.0, 10.0, 20.0),
}
"""Standard strengths: JPEG quality, factor, sigmas in pixels and in grey levels."""


def train(
    *,
    data: str,
    val: str | None = None,
    test: str | None = None,
    out: str = "runs/semforge",
    options: DataOptions = DataOptions(),
    crop: CropOptions = CropOptions(),
    network: NetworkOptions = NetworkOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    losses: LossOptions = LossOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result | None:
    """Train a network to say whether a face is fake and what was altered, and judge it.

    Args:
        data: a list (lines `path label` or `path split label`, or CSV), the --out folder of
            semforge-synth, or the folder of a published set; it may hold val and test splits.
        val: another one for validation.
        test: another one for testing.
        out: new folder for checkpoints, metrics.csv, lambda.csv, export/, items.csv, result.json
            and report.html.
        options: the data.
        crop: how faces are cut.
        network: the network.
        recipe: the recipe.
        losses: the losses and their weights.
        run: how to run.
    """
    places = [place for place in (data, val, test) if place is not None]
    for place in places:
        check_data(place)
    if losses.weighting == "autol" and (network.head == "binary" or losses.loss == "nll"):
        raise ValueError(
            "--weighting autol weighs the losses of several levels; --head binary and --loss nll "
            "have one"
        )
    if run.compile and losses.weighting == "autol":
        raise ValueError("--compile does not go with --weighting autol, whose steps are not fixed")
    keep = [*places, options.root, crop.boxes, network.graph, network.pretrained]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    from semforge.training import train_network

    return train_network(data, val, test, out, options, crop, network, recipe, losses, run)


def evaluate(
    *,
    data: str,
    checkpoint: str,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    robustness: list[str] | None = None,
    threshold: float | None = None,
    resample: Literal["video", "identity", "face"] = "video",
    bootstrap: int = 1000,
    batch_size: int = 32,
    num_workers: int = 0,
    out: str | None = None,
    crop: CropMode | None = None,
    boxes: str | None = None,
    options: DataOptions = DataOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Judge a network on faces and videos: AUC, EER, nodes, methods, calibration, robustness.

    Args:
        data: as for semforge-train.
        checkpoint: the --out folder of semforge-train, or its export/.
        split: of a list that has splits; auto is test, or all where there are none.
        robustness: distortions to judge after, too, at the network's size: jpeg, webp, blur, noise,
            resize (and back), as jpeg=100:50:10,blur=2,resize=0.5; jpeg alone has standard
            strengths; standard is all of those.
        threshold: on p(fake); the network's own, chosen on val, if not given.
        resample: what the intervals draw: videos, identities (where the list names them) or faces.
        bootstrap: resamples.
        batch_size: faces computed at once.
        num_workers: processes that read data beside the main one.
        out: folder for items.csv, result.json and report.html; nothing is written if not given.
        crop: how faces are cut, see semforge-train; as in training if not given.
        boxes: CSV file of boxes, for --crop boxes.
        options: the data.
        run: where and how to compute.
    """
    check_data(data)
    find_saved(checkpoint)
    if crop is not None or boxes is not None:
        check_crop_words(crop, boxes)
    check_fraction("(0, 1)", threshold=threshold)
    check_at_least(10, bootstrap=bootstrap)
    check_at_least(1, batch_size=batch_size)
    check_at_least(0, num_workers=num_workers)
    from papercommons.data.distortions import AtSameSize, parse_distortions

    distortions = parse_distortions(robustness or [], ROBUSTNESS)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[data, checkpoint, boxes, options.root])
    from semforge.evaluating import evaluate_network

    return evaluate_network(
        data,
        checkpoint,
        split,
        [AtSameSize(each) for each in distortions],
        threshold,
        resample,
        bootstrap,
        batch_size,
        num_workers,
        out,
        crop,
        boxes,
        options,
        run,
    )


def predict(
    *files: str,
    checkpoint: str,
    out: str | None = None,
    crop: bool = True,
    boxes: str | None = None,
    n_frames: int = 32,
    threshold: float | None = None,
    heatmap: Literal["gradient", "occlusion", "none"] = "gradient",
    heatmap_node: str | None = None,
    batch_size: int = 32,
    skip_bad: bool = False,
    resume: bool = False,
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Say of each face in pictures and videos whether it is fake, and what was altered.

    Args:
        files: pictures, videos and folders; a folder is searched at any depth.
        checkpoint: as for semforge-eval.
        out: folder for files/ (pictures), predictions.csv, result.json and report.html; nothing is
            written if not given.
        crop: find the faces; --no-crop takes pictures as faces, cut as those of the training were.
        boxes: CSV file of boxes, for a network trained with --crop boxes.
        n_frames: frames taken of each video, evenly spaced.
        threshold: as for semforge-eval.
        heatmap: map in the pictures: gradient, occlusion (slower: parts are covered one by one) or
            none.
        heatmap_node: node that the map is about; the first, fake, if not given.
        batch_size: faces computed at once.
        skip_bad: leave out files that cannot be read (they are named) instead of stopping.
        resume: go on with an interrupted run in --out; what is done and unchanged is kept.
        run: where and how to compute.
    """
    if not files:
        raise DataError("give pictures or videos, e.g. semforge-predict a.jpg --checkpoint RUN")
    for place in files:
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder; give pictures or videos")
    find_saved(checkpoint)
    if not crop and boxes is not None:
        raise ValueError("--no-crop and --boxes exclude each other; give one")
    mode: CropMode | None = "boxes" if boxes is not None else None if crop else "none"
    check_crop_words(mode, boxes)
    check_fraction("(0, 1)", threshold=threshold)
    check_at_least(1, n_frames=n_frames, batch_size=batch_size)
    if resume and out is None:
        raise ValueError("--resume goes on with the run in --out; give it")
    if out is not None:
        keep = [checkpoint, boxes, *files]
        check_out(out, resume=resume, overwrite=run.overwrite, go_on="--resume", keep=keep)
    from semforge.predicting import predict_faces

    return predict_faces(
        files,
        checkpoint,
        out,
        mode,
        boxes,
        n_frames,
        threshold,
        heatmap,
        heatmap_node,
        batch_size,
        skip_bad,
        resume,
        run,
    )


def graph(
    *what: str,
    data: str | None = None,
    labels: list[str] | None = None,
) -> Result:
    """Show a label graph, or check a graph and the labels of a list.

    Args:
        what: show or check, then ffsc, ffpp or a YAML file.
        data: with check, a list of pictures with labels; the pictures need not exist.
        labels: with check, labels such as 110000100001 (2 = unknown).
    """
    if len(what) != 2 or what[0] not in ("show", "check"):
        hint = nearest(what[0], ("show", "check")) if what else ""
        raise DataError(f"give show or check, and a graph: semforge-graph show ffsc{hint}")
    verb, name = what
    check_graph(name)
    if verb == "show" and (data is not None or labels):
        raise ValueError("--data and --labels go with semforge-graph check")
    if data is not None and not Path(data).is_file():
        raise DataError(f"{data}: no such file; --data takes a list")
    from semforge.graphing import check_labels, show_graph

    return show_graph(name) if verb == "show" else check_labels(name, data, labels or [])


def synth(
    *,
    faces: list[str],
    out: str = "runs/semforge-synth",
    count: int = 1000,
    graph: str = "ffsc",
    size: int = 64,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    options: SynthOptions = SynthOptions(),
) -> Result:
    """Make a set of real and altered faces whose labels are exact.

    Args:
        faces: folders or files of photographs or videos, comma-separated; a video is one person, a
            sub-folder of photographs too, any other photograph a person of its own.
        out: new folder for images/, list.txt, list.csv, facts.json, result.json and report.html.
        count: faces to make, real and fake together.
        graph: ffsc, ffpp or a YAML file; kinds of edits whose nodes it lacks are left out.
        size: side of the faces in pixels.
        seed: of everything.
        skip_bad: leave out files that cannot be used (they are named) instead of stopping.
        overwrite: empty --out first if it holds an earlier run.
        options: what is made.
    """
    check_seed(seed)
    if not faces:
        raise DataError("--faces is empty; give folders or files of photographs or videos")
    for place in faces:
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder; --faces takes photographs or videos")
    check_at_least(1, count=count)
    check_graph(graph)
    if not 32 <= size <= 1024:
        raise ValueError(f"--size must be in [32, 1024], got {size}")
    check_out(out, overwrite=overwrite, keep=[*faces, graph])
    from semforge.synthesizing import make_faces

    return make_faces(faces, out, count, graph, size, seed, skip_bad, overwrite, options)


def check_data(data: str) -> None:
    """Raise DataError if there is nothing at `data`."""
    if not Path(data).exists():
        raise DataError(f"{data}: no such file or folder; expected a list or a set (see --layout)")


main_train = program(train, "semforge-train")
main_eval = program(evaluate, "semforge-eval")
main_predict = program(predict, "semforge-predict")
main_graph = program(graph, "semforge-graph")
main_synth = program(synth, "semforge-synth")
