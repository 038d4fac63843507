"""The commands of cmdfd: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_seed
from papercommons.cli import ComputeOptions, FloatRunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_out
from papercommons.report import Result

from cmdfd.layouts import Layout
from cmdfd.options import (
    CropOptions,
    DataOptions,
    LossOptions,
    RecipeOptions,
    SynthOptions,
    TeachOptions,
    check_places,
    check_size,
)
from cmdfd.scoring_options import (
    Baseline,
    FaceOptions,
    WindowOptions,
    check_curve,
    check_judged,
    check_outputs,
)
from cmdfd.teaching_saved import check_recogniser, check_teacher


def prepare(
    *places: str,
    out: str = "runs/cmdfd-prepare",
    size: int = 112,
    label: Literal["real", "fake"] | None = None,
    num_workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    lists: DataOptions = DataOptions(),
    crop: CropOptions = CropOptions(),
) -> Result:
    """Cut clips to the speaking face at 25 frames per second, with 16 kHz sound of the same time.

    Args:
        places: lists, sets, or folders with real/ and fake/; with --label also videos and folders
            of them.
        out: new folder for list.csv, clips/, originals.csv, defects.csv, result.json and
            report.html; the other commands take it.
        size: side of the faces in pixels.
        label: what all clips are, for videos and folders without labels.
        num_workers: processes that prepare clips; 0 is the main one.
        resume: go on with an interrupted run in --out; what is done and unchanged is kept.
        overwrite: empty --out first if it holds an earlier run.
        lists: the data.
        crop: how faces are cut.
    """
    if not places:
        raise DataError("give a list, a set or a folder, e.g. cmdfd-prepare list.csv --out DIR")
    check_places(*places)
    check_size(size)
    check_at_least(0, num_workers=num_workers)
    read = [*places, lists.root]
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=read)
    from cmdfd.preparing import prepare_places

    return prepare_places(places, out, size, label, num_workers, resume, overwrite, lists, crop)


def audit(
    *places: str,
    out: str | None = None,
    layout: Layout = "auto",
    root: str | None = None,
    measure: bool = False,
    skip_bad: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> Result:
    """Say what lists and files give away beside their labels: lengths, shared people, balance.

    Args:
        places: lists, sets or folders; where they have no splits, each is one. Of a folder of
            cmdfd-prepare the files count that it was made of.
        out: folder for result.json and report.html; nothing is written if not given.
        layout: list, folders, fakeavceleb or segments, see cmdfd-prepare; auto finds out.
        root: folder where the files of lists are.
        measure: read the lengths from the headers of the files, not from the lists.
        skip_bad: go on without lines and files that cannot be used (they are named).
        bootstrap: resamples for the intervals.
        seed: of the resampling.
        overwrite: empty --out first if it holds an earlier run.
    """
    if not places:
        raise DataError("give a list, e.g. cmdfd-audit list.csv")
    check_places(*places)
    DataOptions(layout, root)
    check_at_least(10, bootstrap=bootstrap)
    check_seed(seed)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=[*places, root])
    from cmdfd.auditing import AuditOptions, audit_list

    options = AuditOptions(layout, root, measure, skip_bad, bootstrap, seed)
    return audit_list(places, out=out, overwrite=overwrite, options=options)


def synth(
    *,
    out: str = "runs/cmdfd-synth",
    count: int = 400,
    kinds: list[str] | None = None,
    size: int = 112,
    seed: int = 0,
    num_workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    options: SynthOptions = SynthOptions(),
) -> Result:
    """Make drawn people who talk, real and forged, as mp4 files with a list.

    Args:
        out: new folder for videos/, list.csv, facts.json, result.json and report.html.
        count: clips to make, of all splits and kinds together.
        kinds: real, lag, lipsync, lipsync_clean, rhythm, swap, shift, partial: those in all splits;
            real, lag and lipsync if not given.
        size: side of the pictures in pixels, even.
        seed: of everything.
        num_workers: processes that make clips; 0 is the main one.
        resume: go on with an interrupted run in --out.
        overwrite: empty --out first if it holds an earlier run.
        options: what is made.
    """
    check_at_least(1, count=count)
    check_at_least(0, num_workers=num_workers)
    check_seed(seed)
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume")
    from cmdfd.synthesizing import make_corpus

    return make_corpus(out, count, kinds, size, seed, num_workers, resume, overwrite, options)


def teach(
    *,
    data: str,
    val: str | None = None,
    hf_asr: str | None = None,
    out: str = "runs/cmdfd-teach",
    lists: DataOptions = DataOptions(),
    crop: CropOptions = CropOptions(),
    options: TeachOptions = TeachOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result:
    """Train a content teacher on real clips: what is heard and what is seen of each frame.

    Args:
        data: list, set or prepared folder; forged clips in it are left out.
        val: another one to judge the teacher on.
        hf_asr: folder of a CTC recogniser of Hugging Face; a lip reader learns what it hears, and
            no labels are needed.
        out: new folder for export/ (for --teacher of cmdfd-train), metrics.csv, result.json and
            report.html.
        lists: the data.
        crop: how faces are cut.
        options: the teacher.
        run: how to run; on one device.
    """
    places = check_places(data, val)
    if run.devices not in ("auto", "1"):
        raise ValueError("cmdfd-teach works on one device; leave out --devices")
    if run.compile:
        raise ValueError("cmdfd-teach does not compile its small networks; leave out --compile")
    read = [*places, hf_asr, lists.root]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=read)
    if hf_asr is not None:
        check_recogniser(hf_asr)
    from cmdfd.teaching import teach_network

    return teach_network(data, val, hf_asr, out, lists, crop, options, run)


def train(
    *,
    data: str,
    val: str | None = None,
    test: str | None = None,
    out: str = "runs/cmdfd",
    teacher: str = "none",
    init: str | None = None,
    legacy: bool = False,
    allow_leak: bool = False,
    lists: DataOptions = DataOptions(),
    crop: CropOptions = CropOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    losses: LossOptions = LossOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result:
    """Train a detector that compares voice and mouth, with a teacher's agreement or without.

    Args:
        data: list, set or prepared folder; it may hold val and test splits.
        val: another one for validation.
        test: another one for testing.
        out: new folder for checkpoints, metrics.csv, export/, items.csv, result.json and
            report.html.
        teacher: none (the plain classifier); a folder of cmdfd-teach; hf:FOLDER, a recogniser of
            Hugging Face after which a lip reader is taught first; official:AUDIO,VIDEO,LIPS,
            files of the official recognisers.
        init: weights to begin with: a run, a saved network, or a file of the official code or of
            TalkNet (with --preset paper).
        legacy: train as the official code does: its target, grey, features, learning rate, joined
            clips and a teacher with dropout.
        allow_leak: accept people, genuine clips or files that are in two splits.
        lists: the data.
        crop: how faces are cut.
        recipe: the recipe.
        losses: the losses.
        run: how to run.
    """
    places = check_places(data, val, test)
    if recipe.stream != "both" and teacher != "none":
        raise ValueError(f"--stream {recipe.stream} compares nothing: leave out --teacher")
    read = [*places, init, lists.root]
    if teacher != "none":
        read += check_teacher(teacher)
    if init is not None and not Path(init).exists():
        raise DataError(f"{init}: no such file or folder; --init takes weights to begin with")
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=read)
    from cmdfd.training import train_network

    return train_network(
        data, val, test, out, teacher, init, legacy, allow_leak, lists, crop, recipe, losses, run
    )


def evaluate(
    *,
    data: list[str],
    checkpoint: str,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    calibrate_on: str | None = None,
    calibration: str | None = None,
    threshold: float | None = None,
    baselines: list[Baseline] | None = None,
    teacher: str | None = None,
    resample: Literal["person", "clip"] = "person",
    bootstrap: int = 1000,
    out: str | None = None,
    resume: bool = False,
    num_workers: int = 0,
    lists: DataOptions = DataOptions(),
    faces: FaceOptions = FaceOptions(),
    windows: WindowOptions = WindowOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Judge a network on lists of clips, beside what the lengths of the files alone give away.

    Args:
        data: lists, folders and sets, comma-separated; those of cmdfd-prepare as they are, others
            are prepared first.
        checkpoint: the --out folder of cmdfd-train, its export/, a .ckpt file, or a file of
            official weights.
        split: of lists that have splits; auto is test, or all where there are none.
        calibrate_on: list (its val split, if it has one) from which the threshold and probabilities
            come; it must share no clip with --data.
        calibration: calibration.json of an earlier run, instead.
        threshold: on the score; the calibration's, or 0, if not given.
        baselines: more of them: correlation (of the network), sync (offset of its embeddings),
            divergence (of a --teacher).
        teacher: of the divergence: a folder of cmdfd-teach, or official:AUDIO,VIDEO,LIPS.
        resample: what the intervals draw: persons (clips where nobody is known) or clips.
        bootstrap: resamples.
        out: folder for items.csv, curves/, calibration.json, result.json and report.html; nothing
            is written if not given.
        resume: go on with an interrupted run in --out.
        num_workers: processes that prepare clips; 0 is the main one.
        lists: the data.
        faces: how faces are cut, of clips that are not prepared.
        windows: windows and forged parts.
        run: where and how to compute.
    """
    if not data:
        raise DataError("--data is empty; give lists or folders of clips")
    check_places(*data, calibrate_on)
    check_at_least(10, bootstrap=bootstrap)
    check_at_least(0, num_workers=num_workers)
    read = [*data, checkpoint, calibrate_on, calibration, lists.root]
    read += check_judged(checkpoint, threshold, calibrate_on, calibration, baselines, teacher)
    check_outputs(out, resume=resume, overwrite=run.overwrite, read=read)
    from cmdfd.evaluating import Evaluation, evaluate_lists

    what = Evaluation(
        tuple(data),
        checkpoint,
        calibrate_on,
        calibration,
        split,
        threshold,
        tuple(dict.fromkeys(baselines or [])),
        teacher,
        resample,
        bootstrap,
        out,
        resume,
        num_workers,
    )
    return evaluate_lists(what, lists, faces, windows, run)


def predict(
    *clips: str,
    checkpoint: str,
    calibration: str | None = None,
    threshold: float | None = None,
    curve: str | None = None,
    out: str | None = None,
    resume: bool = False,
    lists: DataOptions = DataOptions(),
    faces: FaceOptions = FaceOptions(),
    windows: WindowOptions = WindowOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Say of clips whether voice and mouth go together: fake or real, second by second.

    Args:
        clips: video files, folders (searched at any depth), lists, and folders of cmdfd-prepare.
        checkpoint: as for cmdfd-eval.
        calibration: calibration.json of cmdfd-eval, or its --out folder; the network's own, if it
            has one, if not given.
        threshold: on the score; the calibration's, or 0, if not given.
        curve: CSV file for one row per second: score, correlation, share in forged parts.
        out: folder for files/ (pictures), predictions.csv, curve.csv, result.json and report.html;
            nothing is written if not given.
        resume: go on with an interrupted run in --out; what is done and unchanged is kept.
        lists: the data.
        faces: how faces are cut, of clips that are not prepared.
        windows: windows and forged parts.
        run: where and how to compute.
    """
    if not clips:
        raise DataError("give clips, e.g. cmdfd-predict clip.mp4 --checkpoint RUN")
    check_places(*clips)
    check_judged(checkpoint, threshold, None, calibration)
    read = [*clips, checkpoint, calibration, lists.root]
    check_curve(curve, replace=run.overwrite or resume, read=read)
    check_outputs(out, resume=resume, overwrite=run.overwrite, read=read)
    from cmdfd.predicting import predict_clips

    return predict_clips(
        clips,
        checkpoint,
        calibration,
        threshold,
        curve,
        out,
        resume,
        lists,
        faces,
        windows,
        run,
    )


main_prepare = program(prepare, "cmdfd-prepare")
main_audit = program(audit, "cmdfd-audit")
main_synth = program(synth, "cmdfd-synth")
main_teach = program(teach, "cmdfd-teach")
main_train = program(train, "cmdfd-train")
main_eval = program(evaluate, "cmdfd-eval")
main_predict = program(predict, "cmdfd-predict")
