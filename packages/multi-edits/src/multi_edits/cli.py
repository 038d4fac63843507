"""The commands of multi-edits: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_port, check_seed
from papercommons.cli import FloatRunOptions, program
from papercommons.files import check_out
from papercommons.report import Result
from papercommons.text_to_image.options import SceneModelOptions

from multi_edits.benchmark import choose_records, open_benchmark
from multi_edits.earlier import read_earlier
from multi_edits.edited_sets import name_sets
from multi_edits.loading import check_model
from multi_edits.options import (
    BaselineOptions,
    DataOptions,
    GroupOptions,
    Method,
    MethodOptions,
    MetricOptions,
    ModelOptions,
    Save,
    SceneSetOptions,
    check_image,
)
from multi_edits.reading import read_groups, read_masks, wanted_edits
from multi_edits.words import strip_brackets


def edit(
    *,
    model: str,
    image: str,
    source: str,
    target: str | None = None,
    edits: str | None = None,
    strength: list[str] | None = None,
    mask: list[str] | None = None,
    groups: str | None = None,
    keep: int = 0,
    out: str = "runs/multi-edits-edit",
    seed: int = 0,
    overwrite: bool = False,
    method: MethodOptions = MethodOptions(),
    grouping: GroupOptions = GroupOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Make many edits of one image at once.

    Args:
        model: folder of a Stable Diffusion 1, 2 or XL pipeline as diffusers writes it, or a hub id.
        image: a picture.
        source: prompt: what it shows.
        target: prompt: what the result shall show; edits are derived from the two, and square
            brackets around phrases help.
        edits: JSON file of edits instead: a list of objects with old, new and position.
        strength: how far edits go, e.g. dog=0.5,2=1.5; an edit is meant by its phrase or number.
        mask: pictures of the image's size, white where an edit may change it, e.g. dog=mask.png; a
            branch of several edits goes by them if each has one, or --mode is per-word.
        groups: --out folder of an earlier run, or a JSON file: these groups; the grouping pass is
            left out, but for --mode per-word, which takes regions from it.
        keep: how many of the branches of the run --groups stay as they were; the others are
            sampled on top of them.
        out: new folder for edited.png, branches/, masks/, maps/, result.json and report.html.
        seed: of the noise; the same on every device.
        overwrite: empty --out first if it holds an earlier run.
        method: how edits are made.
        grouping: how they are grouped.
        where: where the model runs.
    """
    check_seed(seed)
    check_at_least(0, keep=keep)
    if keep and (groups is None or not Path(groups).is_dir()):
        raise ValueError("--keep needs --groups with the --out folder of an earlier run")
    if keep and (method.mode != "parallel" or method.compat != "paper"):
        raise ValueError("--keep needs --mode parallel, and --compat paper")
    size = check_image(image)
    files = [part.rpartition("=")[2] for part in mask or []]
    check_out(out, overwrite=overwrite, keep=[model, image, edits, groups, *files])
    check_model(model)
    wanted = wanted_edits(source, target, edits, strength or [])
    given = None if groups is None else read_groups(groups, wanted)
    masks = read_masks(mask or [], wanted, size)
    plain = strip_brackets(source)
    earlier = read_earlier(str(groups), keep, plain, wanted) if keep else None
    from multi_edits.editing import edit_picture

    settings = {
        "model": model,
        "image": image,
        "source": plain,
        "target": target,
        "edits": edits,
        "strength": strength,
        "mask": mask,
        "groups": groups,
        "keep": keep,
        "out": out,
    }
    return edit_picture(
        settings, wanted, masks, given, earlier, seed, overwrite, method, grouping, where
    )


def group(
    *,
    model: str,
    image: str,
    source: str,
    target: str | None = None,
    edits: str | None = None,
    out: str = "runs/multi-edits-group",
    seed: int = 0,
    overwrite: bool = False,
    grouping: GroupOptions = GroupOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Show the types of edits and how they would be grouped, without making them.

    Args:
        model: as for multi-edits-edit.
        image: likewise.
        source: likewise.
        target: likewise.
        edits: likewise.
        out: new folder for maps/, result.json and report.html.
        seed: of the noise.
        overwrite: empty --out first if it holds an earlier run.
        grouping: how edits are grouped.
        where: where the model runs.
    """
    check_seed(seed)
    check_image(image)
    check_out(out, overwrite=overwrite, keep=[model, image, edits])
    check_model(model)
    wanted = wanted_edits(source, target, edits)
    from multi_edits.editing import group_picture

    settings = {
        "model": model,
        "image": image,
        "source": strip_brackets(source),
        "target": target,
        "edits": edits,
        "out": out,
    }
    return group_picture(settings, wanted, seed, overwrite, grouping, where)


def train(
    *,
    out: str = "runs/multi-edits",
    options: SceneModelOptions = SceneModelOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result:
    """Train a tiny text-to-image model on made-up scenes, where the truth is known.

    Editing itself needs no training; a real model is a folder of diffusers or a hub id.

    Args:
        out: new folder for model/ (a diffusers folder, for --model), checkpoints, metrics.csv,
            result.json and report.html.
        options: the scenes and the training.
        run: how to run.
    """
    if not run.dry_run:
        check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last")
    from multi_edits.training import train_model

    return train_model(out, options, run)


def make_scenes(
    *,
    out: str = "runs/multi-edits-make-scenes",
    seed: int = 1_000_000,
    overwrite: bool = False,
    options: SceneSetOptions = SceneSetOptions(),
) -> Result:
    """Make a benchmark of scenes with exact masks and exact edited pictures, in PIE-Bench++'s form.

    Args:
        out: new folder for mapping_file.json, annotation_images/, targets/, scenes.json,
            result.json and report.html; multi-edits-predict and -eval take it as --data.
        seed: of scenes and edits; the models of multi-edits-train saw those of small seeds.
        overwrite: empty --out first if it holds an earlier run.
        options: what is made.
    """
    check_seed(seed)
    check_out(out, overwrite=overwrite)
    from multi_edits.synthesizing import make_scene_set

    return make_scene_set(out, options, seed, overwrite)


def demo(
    *,
    model: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    where: ModelOptions = ModelOptions(),
) -> None:
    """Show a page that takes an image and two prompts and edits it, until interrupted.

    Args:
        model: as for multi-edits-edit.
        host: address to listen on; the default is reachable from this machine alone.
        port: likewise.
        where: where the model runs.
    """
    check_model(model)
    check_port(port)
    from multi_edits.demo import serve

    serve(model, host, port, where)


def predict(
    *,
    model: str,
    data: str,
    out: str = "runs/multi-edits-predict",
    method: Method = "multi-edits",
    save: Save = "edited",
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    which: DataOptions = DataOptions(),
    editing: MethodOptions = MethodOptions(),
    grouping: GroupOptions = GroupOptions(),
    baseline: BaselineOptions = BaselineOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Edit every record of a benchmark.

    Args:
        model: as for multi-edits-edit.
        data: PIE-Bench (folder with mapping_file.json), PIE-Bench++ (folder of parquet files), the
            --out folder of multi-edits-make-scenes, or a list of one's own in either form (JSON).
        out: new folder for edited/, predictions.csv, defects.csv, gallery/, result.json and
            report.html; multi-edits-eval takes it.
        method: the paper's, or LEDITS++ or image-to-image of diffusers on the same model.
        save: edited images alone, or also branches, masks and maps of every record (pictures/).
        strict: refuse a benchmark with any defect, and stop at a record that cannot be edited;
            else they are named, counted and, where they cannot be edited, left out.
        resume: go on with an interrupted run in --out, or add records to it; what is done and
            unchanged is kept.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the noise, the same for every record and on every device.
        which: which of the records.
        editing: how edits are made.
        grouping: how they are grouped.
        baseline: how the baselines edit.
        where: where the model runs.
    """
    check_seed(seed)
    if where.offload and method != "multi-edits":
        raise ValueError(f"--offload is not for --method {method}")
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=[model, data])
    check_model(model)
    benchmark = open_benchmark(data, strict=strict)
    records = choose_records(benchmark, which)
    from multi_edits.editors import Editor
    from multi_edits.predicting import predict_benchmark

    settings = {"model": model, "data": data, "out": out, **asdict(which)}
    return predict_benchmark(
        settings,
        benchmark,
        records,
        Editor(method, editing, grouping, baseline, seed, where.resize),
        save,
        strict,
        resume,
        overwrite,
        where,
    )


def evaluate(
    *,
    data: str,
    edited: list[str],
    out: str | None = None,
    sort_by: str | None = None,
    bootstrap: int = 1000,
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    which: DataOptions = DataOptions(),
    measures: MetricOptions = MetricOptions(),
) -> Result:
    """Measure edited images against a benchmark: what was kept, what was changed.

    Args:
        data: as for multi-edits-predict.
        edited: --out folders of multi-edits-predict, or folders with CATEGORY/ID.png, ID.png or the
            benchmark's own paths; several are compared on the records that all have; NAME=FOLDER
            names one.
        out: new folder for items.csv, summary.csv, gallery/, result.json and report.html;
            nothing is written if not given.
        sort_by: measure that orders the gallery, e.g. background_psnr.
        bootstrap: resamples of the intervals.
        strict: refuse a benchmark with defects, and missing images or ones of another size; else
            they are named and counted.
        resume: go on with an interrupted run in --out; what is measured and unchanged is kept.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the resampling.
        accelerator: where the metrics' networks run: auto, cpu or gpu.
        which: which of the records.
        measures: what is measured, by which networks.
    """
    check_seed(seed)
    check_at_least(10, bootstrap=bootstrap)
    if resume and out is None:
        raise ValueError("--resume goes on with the run in --out; give it")
    folders = name_sets(edited)
    if out is not None:
        clip = measures.clip and measures.clip.rpartition("=")[2]
        keep = [data, *folders.values(), clip, measures.dino, measures.lpips]
        check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=keep)
    benchmark = open_benchmark(data, border=measures.border, strict=strict)
    records = choose_records(benchmark, which)
    from multi_edits.evaluating import evaluate_edits

    settings = {"data": data, "edited": edited, "out": out, **asdict(which), **asdict(measures)}
    return evaluate_edits(
        settings,
        benchmark,
        records,
        folders,
        sort_by,
        bootstrap,
        strict,
        resume,
        overwrite,
        seed,
        ModelOptions(accelerator),
    )


main_edit = program(edit, "multi-edits-edit")
main_group = program(group, "multi-edits-group")
main_train = program(train, "multi-edits-train")
main_make_scenes = program(make_scenes, "multi-edits-make-scenes")
main_demo = program(demo, "multi-edits-demo")
main_predict = program(predict, "multi-edits-predict")
main_eval = program(evaluate, "multi-edits-eval")
