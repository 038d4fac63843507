"""The commands of d-tiil: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from papercommons.checks import check_at_least, check_fraction, check_port, check_seed
from papercommons.cli import FloatRunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_out
from papercommons.report import Result
from papercommons.text_to_image.options import SceneModelOptions

from d_tiil.batch_options import DataOptions, Feature, Method, PairSetOptions, check_method
from d_tiil.loading import check_model
from d_tiil.options import (
    Depth,
    HelperOptions,
    LocateOptions,
    ModelOptions,
    check_caption,
    check_image,
    check_scorer,
    given_phrases,
)
from d_tiil.settings import LocateSettings


def localize(
    *,
    model: str,
    image: str,
    caption: str,
    first_step_only: bool = False,
    words: list[str] | None = None,
    out: str = "runs/d-tiil-localize",
    seed: int = 0,
    overwrite: bool = False,
    how: LocateOptions = LocateOptions(),
    helpers: HelperOptions = HelperOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Find the region of an image and the word of its caption that contradict each other.

    Args:
        model: folder of a Stable Diffusion 1, 2 or XL pipeline as diffusers writes it, or a hub id.
        image: a picture.
        caption: what it is said to show.
        first_step_only: end after the first of the four steps: no edited image, a mask of the
            aligned embedding against the caption's, half the time or less.
        words: words or phrases of the caption to choose from, e.g. red,circle; all that are no stop
            words if not given.
        out: new folder for mask.png, map.png, overlay.png, edited.png, result.json and report.html.
        seed: of the noise; the same on every device.
        overwrite: empty --out first if it holds an earlier run.
        how: how inconsistencies are found.
        helpers: models and files beside it.
        where: where the model runs.
    """
    depth: Depth = "first" if first_step_only else "full"
    check_seed(seed)
    check_caption(caption, words=words is None)
    phrases = None if words is None else given_phrases(caption, words)
    check_image(image)
    check_out(out, overwrite=overwrite, keep=[model, image, how.settings, *helpers.paths()])
    check_model(model)
    helpers.check()
    method = how.resolve(model)
    check_scorer(method, helpers.clip_model, depth)
    from d_tiil.localizing import locate_pair

    settings: dict[str, Any] = {"model": model, "image": image, "caption": caption, "out": out}
    settings |= {"first_step_only": first_step_only, "words": words}
    return locate_pair(settings, method, phrases, depth, seed, overwrite, how, helpers, where)


def score(
    *,
    model: str,
    image: str,
    caption: str,
    out: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    how: LocateOptions = LocateOptions(),
    helpers: HelperOptions = HelperOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Say how well an image and its caption fit together, without looking where they do not.

    Args:
        model: as for d-tiil-localize.
        image: likewise.
        caption: likewise.
        out: new folder for result.json and report.html; nothing is written if not given.
        seed: of the noise.
        overwrite: empty --out first if it holds an earlier run.
        how: how inconsistencies are found.
        helpers: models and files beside it.
        where: where the model runs.
    """
    check_seed(seed)
    check_caption(caption, words=False)
    check_image(image)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=[model, image, how.settings, *helpers.paths()])
    check_model(model)
    helpers.check()
    method = how.resolve(model)
    from d_tiil.localizing import locate_pair

    settings = {"model": model, "image": image, "caption": caption, "out": out}
    return locate_pair(settings, method, None, "score", seed, overwrite, how, helpers, where)


def train(
    *,
    out: str = "runs/d-tiil",
    options: SceneModelOptions = SceneModelOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result:
    """Train a tiny text-to-image model on made-up scenes, where the truth is known.

    The method itself needs no training; a real model is a folder of diffusers or a hub id.

    Args:
        out: new folder for model/ (a diffusers folder, for --model), checkpoints, metrics.csv,
            result.json and report.html.
        options: the scenes and the training.
        run: how to run.
    """
    if not run.dry_run:
        check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last")
    from d_tiil.training import train_model

    return train_model(out, options, run)


def make_pairs(
    *,
    out: str = "runs/d-tiil-make-pairs",
    seed: int = 0,
    overwrite: bool = False,
    options: PairSetOptions = PairSetOptions(),
) -> Result:
    """Make pairs of scenes and captions in which it is known exactly what contradicts.

    Args:
        out: new folder for pairs.jsonl, images/, masks/, changed/, result.json and report.html;
            d-tiil-predict, -eval and -calibrate take it as --data.
        seed: of scenes and changes.
        overwrite: empty --out first if it holds an earlier run.
        options: what is made.
    """
    check_seed(seed)
    wanted = options.make()
    check_out(out, overwrite=overwrite)
    from d_tiil.synthesizing import make_scene_pairs

    return make_scene_pairs(out, wanted, seed=seed, overwrite=overwrite)


def demo(
    *,
    model: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    how: LocateOptions = LocateOptions(),
    helpers: HelperOptions = HelperOptions(),
    where: ModelOptions = ModelOptions(),
) -> None:
    """Show a page that takes an image and a caption and shows what contradicts, until interrupted.

    Args:
        model: as for d-tiil-localize.
        host: address to listen on; the default is reachable from this machine alone.
        port: likewise.
        how: how inconsistencies are found.
        helpers: models and files beside it.
        where: where the model runs.
    """
    check_model(model)
    check_port(port)
    helpers.check()
    method = how.resolve(model)
    check_scorer(method, helpers.clip_model, "full")
    from d_tiil.demo import serve

    serve(model, host, port, method, how, helpers, where)


def predict(
    *,
    data: str,
    model: str | None = None,
    out: str = "runs/d-tiil-predict",
    method: Method = "d-tiil",
    depth: Depth = "full",
    save_edited: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    of: DataOptions = DataOptions(),
    how: LocateOptions = LocateOptions(),
    helpers: HelperOptions = HelperOptions(),
    where: ModelOptions = ModelOptions(),
) -> Result:
    """Look at all pairs of a data set for what contradicts, with the method or with a baseline.

    Args:
        data: a .jsonl list of pairs or a folder with pairs.jsonl; TIIL, DGM4 or NewsCLIPpings as
            downloaded.
        model: as for d-tiil-localize.
        out: new folder for map/, mask/, findings.jsonl, predictions.csv, defects.csv, result.json
            and report.html; d-tiil-eval and d-tiil-calibrate take it.
        method: the paper's, or a baseline: the map of the empty caption against the caption
            (empty), the caption's cross-attention (attention), likeness by CLIP (clip).
        depth: all four steps, the first one alone with map and words, or only the score.
        save_edited: write the edited images too.
        resume: go on with an interrupted run in --out; what is done and unchanged is kept.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the noise, the same for every pair and on every device.
        of: what is taken of the data set.
        how: how inconsistencies are found.
        helpers: models and files beside it.
        where: where the model runs.
    """
    check_seed(seed)
    check_method(method, model, helpers)
    if save_edited and (method != "d-tiil" or depth != "full"):
        raise ValueError("--save-edited needs --method d-tiil and --depth full: else none is made")
    keep = [data, of.visual_news, model, how.settings, *helpers.paths()]
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=keep)
    if model is not None:
        check_model(model)
    helpers.check()
    settings = LocateSettings() if model is None else how.resolve(model)
    if method == "d-tiil":
        check_scorer(settings, helpers.clip_model, depth)
    pairs = of.open(data)
    records = of.choose(pairs)
    from d_tiil.predicting import predict_pairs

    words = {"model": model, "data": data, "out": out, "method": method}
    return predict_pairs(
        words,
        pairs,
        records,
        settings,
        depth,
        save_edited,
        resume,
        overwrite,
        seed,
        of,
        how,
        helpers,
        where,
    )


def evaluate(
    *,
    data: str,
    predicted: list[str],
    out: str | None = None,
    threshold_split: Literal["train", "val", "test"] | None = None,
    threshold: float = 0.3,
    trivial: bool = True,
    bootstrap: int = 1000,
    overwrite: bool = False,
    seed: int = 0,
    of: DataOptions = DataOptions(),
) -> Result:
    """Measure findings against the truth: region, words, detection; by kind, with intervals.

    Args:
        data: as for d-tiil-predict, with labels.
        predicted: --out folders of d-tiil-predict on this data, or folders with a findings.jsonl;
            several are compared on the pairs that all have; NAME=FOLDER names one.
        out: new folder for items.csv, summary.csv, defects.csv, result.json and report.html;
            nothing is written if not given.
        threshold_split: another split, that the thresholds of scores, and of maps that come without
            a mask, are fitted on; without it no decisions are judged.
        threshold: on maps that come without a mask, if there is no such split.
        trivial: judge the full mask and random guesses too.
        bootstrap: resamples of the intervals.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the resampling and of random guesses.
        of: what is taken of the data set.
    """
    check_seed(seed)
    check_at_least(10, bootstrap=bootstrap)
    check_fraction("(0, 1)", threshold=threshold)
    if threshold_split is not None and of.split in ("all", threshold_split):
        raise ValueError("--threshold-split must be another split than --split, and both be given")
    from d_tiil.finding_files import name_sets

    folders = name_sets(predicted)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=[data, of.visual_news, *folders.values()])
    pairs = of.open(data)
    records = of.choose(pairs)
    other = () if threshold_split is None else of.choose(pairs, threshold_split)
    from d_tiil.evaluating import evaluate_findings

    words: dict[str, Any] = {"data": data, "predicted": predicted, "out": out, **asdict(of)}
    words |= {"threshold_split": threshold_split, "threshold": threshold}
    words |= {"trivial": trivial, "bootstrap": bootstrap, "seed": seed}
    return evaluate_findings(
        words,
        pairs,
        records,
        other,
        folders,
        trivial,
        threshold,
        bootstrap,
        of.strict,
        overwrite,
        seed,
    )


def calibrate(
    *,
    data: str,
    predicted: str,
    out: str = "runs/d-tiil-calibrate",
    feature: Feature | None = None,
    locate: bool = True,
    overwrite: bool = False,
    of: DataOptions = DataOptions(),
) -> Result:
    """Make of a model's scores a consistency and a decision, from labelled pairs.

    Args:
        data: as for d-tiil-predict, with labels; take other pairs than are judged later.
        predicted: --out folder of d-tiil-predict on this data, with --method d-tiil.
        out: new folder for calibration.json, result.json and report.html; --calibration of the
            other commands takes it.
        feature: the measured quantity; the one that tells the pairs apart best if not given.
        locate: fit the threshold of the final map too, where masks are known; not with the feature
            clip_region, which depends on it.
        overwrite: empty --out first if it holds an earlier run.
        of: what is taken of the data set.
    """
    check_out(out, overwrite=overwrite, keep=[data, of.visual_news, predicted])
    if not Path(predicted).is_dir():
        raise DataError(f"{predicted}: no such folder; --predicted takes that of d-tiil-predict")
    pairs = of.open(data)
    records = of.choose(pairs)
    from d_tiil.calibrating import calibrate_findings

    words = {"data": data, "predicted": predicted, "out": out, **asdict(of)}
    words |= {"feature": feature, "locate": locate}
    return calibrate_findings(
        words, pairs, records, Path(predicted), feature, locate, of.strict, overwrite
    )


main_localize = program(localize, "d-tiil-localize")
main_score = program(score, "d-tiil-score")
main_predict = program(predict, "d-tiil-predict")
main_eval = program(evaluate, "d-tiil-eval")
main_calibrate = program(calibrate, "d-tiil-calibrate")
main_train = program(train, "d-tiil-train")
main_make_pairs = program(make_pairs, "d-tiil-make-pairs")
main_demo = program(demo, "d-tiil-demo")
