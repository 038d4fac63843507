"""The commands of vlm-hv: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_seed
from papercommons.cli import ComputeOptions, FloatRunOptions, program
from papercommons.data.word_options import WordOptions, check_pairs
from papercommons.errors import DataError
from papercommons.files import check_file_out, check_out
from papercommons.report import Result

from vlm_hv import prompts
from vlm_hv.budget import BudgetOptions
from vlm_hv.options import (
    ModelOptions,
    PairOptions,
    QuestionOptions,
    RecipeOptions,
    ShownOptions,
    TinyOptions,
    check_data,
    check_folder,
)
from vlm_hv.runs import find_predictions


def predict(
    *,
    data: str,
    model: str,
    pairs: str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    limit: int | None = None,
    ablate: Literal["none", "blank", "shuffle", "text-only"] = "none",
    repeats: int = 1,
    checklist: bool = False,
    out: str = "runs/vlm-hv-predict",
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    words: WordOptions = WordOptions(),
    question: QuestionOptions = QuestionOptions(),
    shown: ShownOptions = ShownOptions(),
    who: ModelOptions = ModelOptions(),
    budget: BudgetOptions = BudgetOptions(),
) -> Result:
    """Ask a vision-language model about pairs of handwritings, and judge it where labels are known.

    Args:
        data: folder of the images: CEDAR AND as it comes or packed, CVL, IAM words, any folder
            ROOT/WRITER/*.png, or with --pairs any folder of images.
        model: folder of a saved model or of a run of vlm-hv-train, hub id (OWNER/NAME), or the id
            at the server of --backend openai.
        pairs: .csv, .csv.gz, .jsonl or .parquet file with columns known,questioned or left,right or
            sample1,sample2, and label if known; else the pairs of --split.
        split: train, val (training writers held out, to calibrate on), test (CEDAR's own list), or
            all writers.
        limit: most pairs, drawn with the seed, half of each kind.
        ablate: a control: blank pictures, those of other pairs (shuffle), or text-only; accuracy
            should fall to guessing.
        repeats: ask about everything so often, with other seeds, and report the spread.
        checklist: ask for the 15 coded attributes of each image instead of verdicts, and score
            them.
        out: new folder for predictions.jsonl, result.json and report.html.
        resume: go on with the run in --out; no pair that is answered is asked again.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the draw, of made pairs and of the sampling, >= 0.
        words: the images.
        question: the question.
        shown: the pictures.
        who: the model.
        budget: the cost.
    """
    check_seed(seed)
    check_data(data)
    check_pairs(pairs)
    check_at_least(1, limit=limit)
    if not 1 <= repeats <= 100:
        raise ValueError(f"--repeats must be in [1, 100], got {repeats}")
    if checklist and (ablate != "none" or repeats > 1):
        raise ValueError("--checklist goes with neither --ablate nor --repeats")
    chosen = prompts.load(question.prompt)
    if checklist and not chosen.features:
        raise DataError(f"{question.prompt}: has no features to ask for; take forensic_v1")
    who.check(model)
    keep = [data, model, pairs, question.prompt, who.cache]
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=keep)
    from vlm_hv.predicting import predict_pairs

    return predict_pairs(
        data,
        model,
        pairs,
        split,
        limit,
        ablate,
        repeats,
        checklist,
        out,
        resume,
        overwrite,
        seed,
        words,
        question,
        shown,
        who,
        budget,
    )


def evaluate(
    *predictions: str,
    calibration: list[str] | None = None,
    unknown: Literal["wrong", "drop", "both"] = "both",
    bootstrap: int = 1000,
    out: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Result:
    """Judge one run or several on the same pairs: accuracy twice, AUC, EER, Cllr, with intervals.

    Args:
        predictions: predictions.jsonl files, or --out folders of vlm-hv-predict, -train or
            -baseline; a control (--ablate) beside its run gives the ablation gap.
        calibration: for each of them the same system's run on other pairs (--split val, or
            predictions_val.jsonl), comma-separated: gives likelihood ratios and Cllr.
        unknown: pairs without a decision: wrong (over all pairs), drop (over answered), or both.
        bootstrap: resamples of writers for the intervals.
        out: folder for items.csv, result.json and report.html; nothing is written if not given.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the resampling, >= 0.
    """
    check_seed(seed)
    if not predictions:
        raise DataError("give one predictions.jsonl or more, e.g. vlm-hv-eval runs/vlm-hv-predict")
    files = [find_predictions(source) for source in (*predictions, *(calibration or []))]
    check_at_least(10, bootstrap=bootstrap)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=files)
    from vlm_hv.evaluating import evaluate_runs

    return evaluate_runs(predictions, calibration or [], unknown, bootstrap, out, overwrite, seed)


def train(
    *,
    data: str,
    model: str | None = None,
    test_limit: int | None = None,
    out: str = "runs/vlm-hv",
    words: WordOptions = WordOptions(),
    labels: PairOptions = PairOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    tiny: TinyOptions = TinyOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result:
    """Fine-tune a vision-language model on pairs, calibrate it, and judge it on unseen writers.

    Args:
        data: folder of words by writer, as for vlm-hv-predict.
        model: folder or hub id of the model to start from, e.g. google/paligemma-3b-pt-224; or
            --tiny.
        test_limit: most test pairs, half of each kind; the preset's if not given.
        out: new folder for checkpoints, metrics.csv, export/, predictions.jsonl, result.json and
            report.html.
        words: the images.
        labels: the labels.
        recipe: what is trained.
        tiny: the tiny model.
        run: how to run.
    """
    check_data(data)
    if (model is None) != tiny.tiny:
        raise ValueError("give either --model or --tiny")
    if model is not None:
        check_folder(model)
    elif recipe.tune == "lora":
        raise ValueError("--tiny has random weights, all of which need training: no --tune lora")
    if recipe.four_bit and recipe.tune == "full":
        raise ValueError("--four-bit freezes the weights: it goes with --tune lora")
    check_at_least(2, test_limit=test_limit)
    keep = [data, model, labels.pairs]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    from vlm_hv.training import train_model

    return train_model(data, model, test_limit, out, words, labels, recipe, tiny, run)


def pairs(
    *,
    data: str,
    out: str = "pairs.csv",
    split: Literal["train", "val", "test", "all"] = "test",
    writer_fraction: float = 1.0,
    max_per_writer: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    words: WordOptions = WordOptions(),
) -> Result:
    """Write pairs of one split: all same-writer pairs, and as many different ones.

    Args:
        data: folder of words by writer, as for vlm-hv-predict.
        out: .csv or .csv.gz file with columns left, right, label, or .parquet file with the
            authors' sample1, sample2, label.
        split: as for vlm-hv-predict.
        writer_fraction: share of the writers of that split, the first ones by name.
        max_per_writer: most same-writer pairs of one writer.
        limit: most pairs, drawn with the seed, half of each kind.
        seed: of the division, the different-writer pairs and the draw, >= 0.
        overwrite: replace the file if it exists.
        words: the images.
    """
    check_seed(seed)
    check_data(data)
    check_fraction("(0, 1]", writer_fraction=writer_fraction)
    check_at_least(1, max_per_writer=max_per_writer, limit=limit)
    if not out.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(f"--out must end in .csv, .csv.gz or .parquet, got {out}")
    check_file_out(out, overwrite=overwrite, keep=[data])
    from vlm_hv.pairing import make_pair_file

    return make_pair_file(data, out, split, writer_fraction, max_per_writer, limit, seed, words)


def compare(
    *images: str,
    model: str,
    out: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    question: QuestionOptions = QuestionOptions(),
    shown: ShownOptions = ShownOptions(),
    who: ModelOptions = ModelOptions(),
) -> Result:
    """Ask a vision-language model about one known and one questioned sample.

    Args:
        images: the known sample, then the questioned one.
        model: as for vlm-hv-predict.
        out: folder for record.json, result.json and report.html with the findings drawn; nothing is
            written if not given.
        overwrite: empty --out first if it holds an earlier run.
        seed: of the sampling, >= 0.
        question: the question.
        shown: the pictures.
        who: the model.
    """
    check_seed(seed)
    if len(images) != 2:
        raise DataError(
            f"give two images, the known and the questioned one, got {len(images)}: "
            "vlm-hv-compare KNOWN.png QUESTIONED.png --model MODEL"
        )
    for path in images:
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file; give an image")
    prompts.load(question.prompt)
    who.check(model)
    if out is not None:
        keep = [*images, model, question.prompt, who.cache]
        check_out(out, overwrite=overwrite, keep=keep)
    from vlm_hv.comparing import compare_images

    return compare_images(*images, model, out, overwrite, seed, question, shown, who)


def baseline(
    *,
    data: str,
    kind: Literal["hog", "gsc", "resnet18"] = "hog",
    pairs: str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    limit: int | None = None,
    preset: Literal["auto", "quick", "paper"] = "auto",
    epochs: int | None = None,
    max_pairs: int | None = None,
    out: str = "runs/vlm-hv-baseline",
    words: WordOptions = WordOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Train a method without a language model on the training writers, and judge the same pairs.

    Args:
        data: folder of words by writer, as for vlm-hv-predict.
        kind: hog or gsc (regression on the difference of handcrafted features), or resnet18.
        pairs: as for vlm-hv-predict.
        split: as for vlm-hv-predict.
        limit: as for vlm-hv-predict; the same seed draws the same pairs.
        preset: length of the training: quick (minutes on two cores) or paper; auto is paper where
            there is a CUDA device, else quick.
        epochs: of resnet18; the preset's if not given.
        max_pairs: most training pairs; the preset's if not given.
        out: new folder for predictions.jsonl, predictions_val.jsonl, result.json and report.html.
        words: the images.
        run: where and how to compute.
    """
    check_data(data)
    check_pairs(pairs)
    check_at_least(1, limit=limit, epochs=epochs)
    check_at_least(2, max_pairs=max_pairs)
    check_out(out, overwrite=run.overwrite, keep=[data, pairs])
    from vlm_hv.baselines import run_baseline

    return run_baseline(data, kind, pairs, split, limit, preset, epochs, max_pairs, out, words, run)


def report(
    *predictions: str,
    data: str,
    out: str = "runs/vlm-hv-report",
    count: int = 6,
    overwrite: bool = False,
    words: WordOptions = WordOptions(),
) -> Result:
    """Write a page of pairs side by side: the most certain, the wrong, the torn, with findings.

    Args:
        predictions: predictions.jsonl files or --out folders; the first one's pairs are shown, and
            with several also those on which they disagree.
        data: folder of the images, as for vlm-hv-predict.
        out: new folder for report.html and result.json.
        count: most pairs of each group.
        overwrite: empty --out first if it holds an earlier run.
        words: the images.
    """
    if not predictions:
        raise DataError("give one run or more: vlm-hv-report runs/vlm-hv-predict --data D")
    files = [find_predictions(source) for source in predictions]
    check_data(data)
    if not 1 <= count <= 1000:
        raise ValueError(f"--count must be in [1, 1000], got {count}")
    check_out(out, overwrite=overwrite, keep=[data, *files])
    from vlm_hv.reporting import write_pair_report

    return write_pair_report(predictions, data, out, count, overwrite, words)


main_predict = program(predict, "vlm-hv-predict")
main_eval = program(evaluate, "vlm-hv-eval")
main_train = program(train, "vlm-hv-train")
main_pairs = program(pairs, "vlm-hv-pairs")
main_compare = program(compare, "vlm-hv-compare")
main_baseline = program(baseline, "vlm-hv-baseline")
main_report = program(report, "vlm-hv-report")
