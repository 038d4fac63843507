"""The commands of defi-net: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from papercommons.checks import (
    check_at_least,
    check_fraction,
    check_held_out,
    check_port,
    check_seed,
)
from papercommons.cli import ComputeOptions, FloatRunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_out, find_saved
from papercommons.report import Result

from defi_net.options import (
    DataOptions,
    MaskOptions,
    NetworkOptions,
    PictureOptions,
    RecipeOptions,
    SplitOptions,
    ViewOptions,
)

ROBUSTNESS = {
    "jpeg": (100.0, 90.0, 80.0, 70.0, 60.0, 50.0),
    "blur": (0.5, 1.0, 1.5, 2.0),
    "noise": (2.0, 4.0, 6.0, 8.0, 10.0),
    "resize": (0.5, 0.75, 1.0, 1.25, 1.5),
}
"""Section 5's strengths: JPEG quality, sigmas in pixels and in grey levels, factor."""
Map = Literal["prob", "mask", "edge", "overlay"]
Form = Literal["png", "npy"]
Format = Literal["safetensors", "onnx"]


def synth(
    *,
    images: list[str],
    out: str = "runs/defi-net-synth",
    per_image: int = 1,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    skip_bad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    num_workers: int = 0,
    seed: int = 0,
    what: MaskOptions = MaskOptions(),
    pictures: PictureOptions = PictureOptions(),
) -> Result:
    """Make forged pictures with masks and a manifest out of photographs.

    Args:
        images: folders or files of photographs, comma-separated; NAME_mask beside NAME is left out.
        out: new folder for images/, labels/, manifest.csv, result.json and report.html.
        per_image: pictures made of each photograph.
        val_fraction: share of the photographs for validation.
        test_fraction: share for testing.
        skip_bad: leave out photographs that cannot be used (they are named) instead of stopping.
        resume: go on with an interrupted run in --out.
        overwrite: empty --out first if it holds an earlier run.
        num_workers: processes beside the main one; results do not depend on it.
        seed: of everything.
        what: what is inpainted.
        pictures: how pictures are cut and treated.
    """
    check_seed(seed)
    for place in images:
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder; --images takes photographs")
    if not images:
        raise DataError("--images is empty; give folders or files of photographs")
    check_at_least(1, per_image=per_image)
    check_at_least(0, num_workers=num_workers)
    check_held_out(val_fraction, test_fraction)
    keep = [*images, what.mask_folder]
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=keep)
    from defi_net.synthesizing import make_recipe, synthesize_pictures

    recipe = make_recipe(what, pictures, seed)
    return synthesize_pictures(
        images,
        out,
        recipe,
        per_image,
        val_fraction,
        test_fraction,
        num_workers,
        skip_bad,
        resume,
        overwrite,
    )


def train(
    *,
    data: str,
    out: str = "runs/defi-net",
    options: DataOptions = DataOptions(),
    splits: SplitOptions = SplitOptions(),
    network: NetworkOptions = NetworkOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result | None:
    """Train a network to find inpainted pixels, and judge it on the test split.

    Args:
        data: --out folder of defi-net-synth; a folder with images/ and labels/, or Tp/ and Gt/; a
            manifest (.csv, .json); or a published set, see --layout.
        out: new folder for checkpoints, metrics.csv, export/, items.csv, result.json and
            report.html.
        options: the data set.
        splits: the splits of the data.
        network: the network.
        recipe: the recipe.
        run: how to run.
    """
    places = [place for place in (data, splits.val, splits.test) if place is not None]
    for place in places:
        check_data(place)
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=places)
    from defi_net.training import train_network

    return train_network(data, out, options, splits, network, recipe, run)


def evaluate(
    *,
    data: str,
    checkpoint: str,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    protocol: Literal["official", "imdl", "trufor", "all"] = "all",
    by: Literal["method", "source", "none"] = "method",
    robustness: list[str] | None = None,
    threshold: float = 0.5,
    score: Literal["max", "top1"] | None = None,
    false_alarm_rate: float | None = None,
    bootstrap: int = 1000,
    out: str | None = None,
    options: DataOptions = DataOptions(),
    view: ViewOptions = ViewOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Judge a network: F1, IoU, AUC per photograph and method, false alarms, robustness.

    Args:
        data: as for defi-net-train.
        checkpoint: the --out folder of defi-net-train, its export/, or the file of a published
            checkpoint.
        split: which photographs; auto is test, or all where the data have no splits.
        protocol: official (map stretched first, as the paper's code does), imdl (IMDL-BenCo's),
            trufor (TruFor's, which flatters) or all.
        by: what groups the table: method, source or none.
        robustness: distortions to judge after, too: jpeg, webp, blur, noise, resize, as
            jpeg=100:50:10,blur=0.5:2:0.5,resize=0.7; jpeg alone has standard strengths; standard is
            all of those.
        threshold: on the probability of a pixel.
        score: of a whole photograph: max of its map, or top1, the mean of its highest 1 %; the
            network's own if not given.
        false_alarm_rate: choose the threshold for whole photographs anew on authentic ones of the
            val split; the network's own if not given.
        bootstrap: resamples of source photographs for the intervals.
        out: folder for items.csv, result.json and report.html; nothing is written if not given.
        options: the data set.
        view: how photographs are looked at.
        run: where and how to compute.
    """
    check_data(data)
    check_checkpoint(checkpoint)
    check_fraction("(0, 1)", threshold=threshold)
    check_fraction("[0, 1)", false_alarm_rate=false_alarm_rate)
    check_at_least(10, bootstrap=bootstrap)
    from papercommons.data.distortions import parse_distortions

    distortions = parse_distortions(robustness or [], ROBUSTNESS)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[data, checkpoint])
    from papercommons.metrics.localization import PROTOCOLS

    from defi_net.evaluating import evaluate_network

    return evaluate_network(
        data,
        checkpoint,
        split,
        PROTOCOLS if protocol == "all" else [protocol],
        None if by == "none" else by,
        distortions,
        threshold,
        score,
        false_alarm_rate,
        bootstrap,
        out,
        options,
        view,
        run,
    )


def predict(
    *images: str,
    checkpoint: str,
    out: str = "runs/defi-net-predict",
    threshold: float = 0.5,
    save: list[Map] = ["prob", "mask", "edge", "overlay"],
    format: list[Form] = ["png"],
    skip_bad: bool = False,
    resume: bool = False,
    view: ViewOptions = ViewOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Show where photographs were inpainted: maps, masks, edges, overlays, a report.

    Args:
        images: photographs of any size, files and folders; a folder is searched at any depth.
        checkpoint: as for defi-net-eval.
        out: new folder for predictions.csv, photographs/, result.json and report.html.
        threshold: on the probability of a pixel, for masks.
        save: what is written of each photograph.
        format: of prob and edge: png (255ths), npy (float32).
        skip_bad: leave out photographs that cannot be used (they are named) instead of stopping.
        resume: go on with an interrupted run in --out; what is done and unchanged is kept.
        view: how photographs are looked at.
        run: where and how to compute.
    """
    if not images:
        raise DataError(
            "give photographs, e.g. defi-net-predict photos/ --checkpoint runs/defi-net"
        )
    for place in images:
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder; give photographs")
    check_checkpoint(checkpoint)
    check_fraction("(0, 1)", threshold=threshold)
    keep = [checkpoint, *images]
    check_out(out, resume=resume, overwrite=run.overwrite, go_on="--resume", keep=keep)
    from defi_net.predicting import predict_photos

    return predict_photos(
        images, checkpoint, out, threshold, save, format, skip_bad, resume, view, run
    )


def compare(
    *results: str,
    metrics: list[str] | None = None,
    by: Literal["method", "source", "none"] = "method",
    bootstrap: int = 1000,
    out: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Result:
    """Compare two results photograph by photograph, with intervals of the differences.

    Args:
        results: two --out folders of defi-net-eval or -train, their result.json or items.csv;
            differences are the second minus the first.
        metrics: columns of items.csv to show; those of one protocol if not given.
        by: what groups the table: method, source or none.
        bootstrap: resamples of source photographs for the intervals.
        out: folder for comparison.csv, result.json and report.html; nothing is written if not
            given.
        seed: of the resampling.
        overwrite: empty --out first if it holds an earlier run.
    """
    check_seed(seed)
    if len(results) != 2:
        raise DataError(
            f"give two results, got {len(results)}: defi-net-compare runs/eval-a runs/eval-b"
        )
    for place in results:
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder; give results of defi-net-eval")
    check_at_least(10, bootstrap=bootstrap)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=results)
    from defi_net.comparing import compare_results

    group = None if by == "none" else by
    return compare_results(*results, metrics, group, bootstrap, out, seed, overwrite)


def export(
    *,
    checkpoint: str,
    out: str = "runs/defi-net-export",
    formats: list[Format] = ["safetensors"],
    overwrite: bool = False,
) -> Result:
    """Write a network as safetensors with config.json and model card, and as ONNX.

    Args:
        checkpoint: as for defi-net-eval.
        out: new folder for model.safetensors, config.json, README.md and model.onnx.
        formats: safetensors, onnx (for any number of images of any size, checked against torch).
        overwrite: empty --out first if it holds an earlier export.
    """
    if not formats:
        raise ValueError(f"--formats must name one or more of {', '.join(get_args(Format))}")
    check_checkpoint(checkpoint)
    check_out(out, overwrite=overwrite, keep=[checkpoint])
    from defi_net.exporting import export_network

    return export_network(checkpoint, out, formats, overwrite)


def demo(
    *,
    checkpoint: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    view: ViewOptions = ViewOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> None:
    """Show a page that takes a photograph and shows where it was inpainted, until interrupted.

    Args:
        checkpoint: as for defi-net-eval.
        host: address to listen on; the default is reachable from this machine alone.
        port: likewise.
        view: how photographs are looked at.
        run: where and how to compute.
    """
    check_checkpoint(checkpoint)
    check_port(port)
    from defi_net.demo import serve

    serve(checkpoint, host, port, view, run)


def check_data(data: str) -> None:
    """Raise DataError if there is nothing at `data`."""
    if not Path(data).exists():
        raise DataError(f"{data}: no such file or folder; expected a data set (see --layout)")


def check_checkpoint(checkpoint: str) -> None:
    """Raise DataError if there is neither a saved network nor a file at `checkpoint`."""
    if not Path(checkpoint).is_file():
        find_saved(checkpoint)


main_synth = program(synth, "defi-net-synth")
main_train = program(train, "defi-net-train")
main_eval = program(evaluate, "defi-net-eval")
main_predict = program(predict, "defi-net-predict")
main_compare = program(compare, "defi-net-compare")
main_export = program(export, "defi-net-export")
main_demo = program(demo, "defi-net-demo")
