"""The commands of rld-distill: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from papercommons.checks import check_at_least, check_fraction
from papercommons.cli import DeviceOptions, RunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_file_out, check_out, find_saved
from papercommons.report import Result

from rld_distill.methods import Method, complete_options
from rld_distill.options import (
    PACKAGE,
    DataOptions,
    LossOptions,
    RecipeOptions,
    TeacherOptions,
    check_networks,
)
from rld_distill.sources import parse_data
from rld_distill.zoo import list_models

Format = Literal["safetensors", "onnx"]
MOST_CLASSES = 1_000_000


def train(
    *,
    data: str,
    out: str = "runs/rld-distill",
    method: Method = "rld",
    student: str | None = None,
    pretrained: bool = False,
    teacher_cache: str | None = None,
    teacher: TeacherOptions = TeacherOptions(),
    loss: LossOptions = LossOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    images: DataOptions = DataOptions(),
    run: RunOptions = RunOptions(),
) -> Result:
    """Train a small classifier (the student) with the help of a large one (the teacher).

    Args:
        data: digits (built in), a folder with one sub-folder of images per class (or train/, val/,
            test/ of such), an .npz file, cifar10:FOLDER or cifar100:FOLDER.
        out: new folder for checkpoints, metrics.csv, export/, result.json and report.html.
        method: how the teacher's logits are used.
        student: the student network's name (rld-distill-models lists them).
        pretrained: begin with the published weights of a timm: or torchvision: student.
        teacher_cache: file of rld-distill-cache, so that the teacher need not run.
        teacher: the teacher.
        loss: the loss.
        recipe: how to train.
        images: how images are read.
        run: how to run.
    """
    _, place = parse_data(data)
    complete_options(method, loss.given())
    check_networks(student, teacher)
    keep = [place, teacher.teacher, teacher.teacher_checkpoint, teacher_cache]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    from rld_distill.training import train_student

    return train_student(
        data,
        out,
        method,
        student,
        pretrained,
        teacher_cache,
        teacher,
        loss,
        recipe,
        images,
        run,
    )


def teacher(
    *,
    data: str,
    out: str = "runs/rld-distill-teacher",
    network: str | None = None,
    pretrained: bool = False,
    recipe: RecipeOptions = RecipeOptions(),
    images: DataOptions = DataOptions(),
    run: RunOptions = RunOptions(),
) -> Result:
    """Train a classifier on labels alone, to be a teacher.

    Args:
        data: as for rld-distill-train.
        out: new folder; give it to rld-distill-train as --teacher.
        network: its name; the preset's teacher if not given.
        pretrained: begin with the published weights of a timm: or torchvision: network (choose a
            small --lr).
        recipe: how to train.
        images: how images are read.
        run: how to run.
    """
    _, place = parse_data(data)
    check_networks(network, TeacherOptions())
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=[place])
    from rld_distill.teaching import teach

    return teach(data, out, network, pretrained, recipe, images, run)


def cache(
    *,
    data: str,
    teacher: str,
    out: str = "teacher-logits.safetensors",
    views: int = 1,
    dtype: Literal["float32", "float16"] = "float32",
    top_k: int | None = None,
    batch_size: int = 256,
    teacher_checkpoint: str | None = None,
    images: DataOptions = DataOptions(),
    run: DeviceOptions = DeviceOptions(),
) -> Result:
    """Run the teacher once over the training images and keep its logits for rld-distill-train.

    Exact for training with the same data, --augment, --seed and --val-fraction, for as many epochs
    as --views (with --augment none one view serves all epochs). Fewer views come round again: the
    student then sees less variety than with the teacher at its side.

    Args:
        data: as for rld-distill-train.
        teacher: folder of a trained one, or a network's name.
        out: the file.
        views: augmented views of each image to record.
        dtype: float16 halves the file and rounds.
        top_k: keep only the k largest logits of each image and the mass of the rest.
        batch_size: images at once.
        teacher_checkpoint: weights for a teacher given by name.
        images: how images are read.
        run: where and how to compute.
    """
    _, place = parse_data(data)
    options = TeacherOptions(teacher=teacher, teacher_checkpoint=teacher_checkpoint)
    check_networks(None, options, weights_needed=True)
    check_at_least(1, views=views, top_k=top_k, batch_size=batch_size)
    check_file_out(out, overwrite=run.overwrite, keep=[place, teacher, teacher_checkpoint])
    from rld_distill.caching import cache_teacher

    return cache_teacher(data, options, out, images, run, views, dtype, top_k, batch_size)


def evaluate(
    *,
    data: str,
    checkpoint: str,
    split: Literal["train", "val", "test", "all"] = "test",
    teacher: str | None = None,
    out: str | None = None,
    batch_size: int = 256,
    val_fraction: float = 0.1,
    bootstrap: int = 1000,
    skip_bad: bool = False,
    run: DeviceOptions = DeviceOptions(),
) -> Result:
    """Judge a trained classifier: accuracy with interval, top-5, NLL, calibration, and its teacher.

    Args:
        data: as for rld-distill-train.
        checkpoint: the --out folder of a run, or one of rld-distill-export.
        split: which images; all judges every image of --data, as for a set from elsewhere.
        teacher: folder of its teacher: adds agreement, and accuracy where the teacher is right
            and where it is wrong.
        out: folder for items.csv, result.json and report.html; nothing is written if not given.
        batch_size: images at once.
        val_fraction: as in training, so that val and train are divided alike.
        bootstrap: resamples of images for the interval.
        skip_bad: leave out images that cannot be read (they are named) instead of stopping.
        run: where and how to compute.
    """
    _, place = parse_data(data)
    find_saved(checkpoint)
    if teacher is not None:
        find_saved(teacher)
    check_at_least(1, batch_size=batch_size)
    check_at_least(10, bootstrap=bootstrap)
    check_fraction("[0, 1)", val_fraction=val_fraction)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[place, checkpoint, teacher])
    from rld_distill.evaluating import evaluate_classifier

    return evaluate_classifier(
        data, checkpoint, split, teacher, out, batch_size, val_fraction, skip_bad, bootstrap, run
    )


def predict(
    *images: str,
    checkpoint: str,
    out: str | None = None,
    batch_size: int = 256,
    skip_bad: bool = False,
    run: DeviceOptions = DeviceOptions(),
) -> Result:
    """Name the class of each image: path, prediction, probability, and the five likeliest classes.

    Args:
        images: image files, or folders (searched at any depth).
        checkpoint: the --out folder of a run, or one of rld-distill-export.
        out: folder for predictions.csv, result.json and report.html.
        batch_size: images at once.
        skip_bad: leave out images that cannot be read (they are named) instead of stopping.
        run: where and how to compute.
    """
    from papercommons.data.images import find_images

    if not images:
        raise DataError(
            "give image files or folders, e.g. rld-distill-predict photos/ --checkpoint runs/x"
        )
    paths = find_images(images)
    find_saved(checkpoint)
    check_at_least(1, batch_size=batch_size)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[checkpoint, *images])
    from rld_distill.predicting import predict_images

    return predict_images(paths, checkpoint, out, batch_size, skip_bad, run)


def compare(
    *,
    data: str,
    out: str = "runs/rld-distill-compare",
    methods: list[str] = ["ce", "kd", "dkd", "rld"],
    seeds: list[int] = [0, 1, 2],
    reference: str = "rld",
    student: str | None = None,
    tune: int = 0,
    teacher: TeacherOptions = TeacherOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    images: DataOptions = DataOptions(),
    run: RunOptions = RunOptions(),
) -> Result:
    """Train one student per method and seed with one teacher, and compare them on the test split.

    Args:
        data: as for rld-distill-train.
        out: new folder: one run per method and seed, comparison.csv, comparison.md, result.json and
            report.html.
        methods: names, as for rld-distill-train --method.
        seeds: of weights, order and augmentation; every method gets the same ones.
        reference: the method that the others are tested against, pair by pair of seeds.
        student: the student network's name.
        tune: try this many settings of each method's weights on the val split first; 0 compares
            the defaults.
        teacher: the teacher, the same for all.
        recipe: how to train.
        images: how images are read.
        run: how to run.
    """
    _, place = parse_data(data)
    for method in [*methods, reference]:
        complete_options(method, {})
    in_range = all(0 <= seed < 2**32 for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not in_range:
        raise ValueError(f"--seeds must be different numbers in [0, 2^32), got {seeds}")
    check_at_least(0, tune=tune)
    check_networks(student, teacher)
    keep = [place, teacher.teacher, teacher.teacher_checkpoint]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    from rld_distill.comparing import compare_methods

    return compare_methods(
        data, out, methods, seeds, reference, student, tune, teacher, recipe, images, run
    )


def export(
    *,
    checkpoint: str,
    out: str = "runs/rld-distill-export",
    formats: list[Format] = ["safetensors", "onnx"],
    overwrite: bool = False,
) -> Result:
    """Write a trained classifier for use elsewhere; the ONNX file is checked against torch.

    Args:
        checkpoint: the --out folder of a run, or a saved classifier.
        out: new folder for model.safetensors, config.json, README.md, model.onnx and result.json.
        formats: safetensors (with config.json and a model card) and onnx (any batch size).
        overwrite: empty --out first if it holds an earlier export.
    """
    if not formats:
        raise ValueError(f"--formats must name one or more of {', '.join(get_args(Format))}")
    source = find_saved(checkpoint)
    check_out(out, overwrite=overwrite, keep=[checkpoint])
    from rld_distill.exporting import export_classifier

    return export_classifier(source, out, formats, overwrite)


def models(*, num_classes: int = 100) -> Result:
    """List the CIFAR networks with their sizes.

    Args:
        num_classes: for the size of the last layer.
    """
    check_at_least(1, num_classes=num_classes)
    if num_classes > MOST_CLASSES:
        raise ValueError(f"--num-classes must be <= {MOST_CLASSES:,}, got {num_classes}")
    from rld_distill.zoo import create_model

    rows = []
    for name in list_models():
        network = create_model(name, num_classes)
        rows.append({"name": name, "parameters": sum(p.numel() for p in network.parameters())})
    return Result(
        package=PACKAGE,
        command="rld-distill-models",
        title=f"CIFAR networks, {num_classes} classes (also: timm:NAME, torchvision:NAME)",
        rows=rows,
        settings={"num_classes": num_classes},
        limits="Sizes say nothing about accuracy or speed.",
        device="cpu",
    )


def loss(*, file: str, method: Method = "rld", loss: LossOptions = LossOptions()) -> Result:
    """Evaluate a method's loss on logits from a file, to check another implementation against it.

    Args:
        file: .npz with student (B, C), teacher (B, C) and target (B,).
        method: its name.
        loss: the loss.
    """
    complete_options(method, loss.given())
    if method == "ce":
        raise ValueError("method ce has no distillation loss; choose another --method")
    if not Path(file).is_file():
        raise DataError(f"{file}: no such file; expected .npz with student, teacher and target")
    from rld_distill.loss_on_file import evaluate_loss

    return evaluate_loss(file, method, loss.given())


main_train = program(train, "rld-distill-train")
main_teacher = program(teacher, "rld-distill-teacher")
main_cache = program(cache, "rld-distill-cache")
main_eval = program(evaluate, "rld-distill-eval")
main_predict = program(predict, "rld-distill-predict")
main_compare = program(compare, "rld-distill-compare")
main_export = program(export, "rld-distill-export")
main_models = program(models, "rld-distill-models")
main_loss = program(loss, "rld-distill-loss")
