"""The commands of ssl-hv: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_positive, check_seed
from papercommons.cli import ComputeOptions, FloatRunOptions, program
from papercommons.data.word_options import LabelOptions, WordOptions, check_pairs
from papercommons.errors import DataError, nearest
from papercommons.files import check_file_out, check_out, find_saved
from papercommons.report import Result

from ssl_hv.options import RecipeOptions
from ssl_hv.presets import GENERATIVE, METHODS


def pretrain(
    *,
    data: str,
    method: str = "vicreg",
    encoder: str | None = None,
    width: int | None = None,
    channels: Literal[1, 3] = 1,
    positives: Literal["word", "page"] = "word",
    allow_writer_overlap: bool = False,
    out: str = "runs/ssl-hv-pretrain",
    words: WordOptions = WordOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result | None:
    """Pre-train an encoder on word images without labels.

    Args:
        data: CEDAR AND as it comes or packed, CVL, IAM words, or any folder ROOT/WRITER/*.png.
        method: simclr, moco, byol, simsiam, fastsiam, dino, barlow-twins or vicreg (they compare
            views); vae, mae, aim, bigan or flow (they generate).
        encoder: resnet18, resnet-layout (small, ours), vit-b32, vit-tiny; bigan and flow bring
            their own; the preset's if not given.
        width: channels of the first stage of resnet-layout; the preset's if not given.
        channels: 1, or 3 equal ones as the published scripts have.
        positives: what methods that compare views take for alike: two views of one word, or (page)
            of two words of one page, known to be of one hand: a weak label, where pages are known.
        allow_writer_overlap: accept writers in both training and test split.
        out: new folder for checkpoints, metrics.csv, export/, result.json and report.html.
        words: the images.
        recipe: the recipe.
        run: how to run.
    """
    if method not in METHODS:
        raise ValueError(
            f"--method: no {method}{nearest(method, METHODS)}; there are {', '.join(METHODS)}"
        )
    if positives == "page" and method in GENERATIVE:
        raise ValueError(f"--positives page: {method} compares no views; use --positives word")
    check_data(data)
    check_width(width, encoder)
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=[data])
    from ssl_hv.pretraining import pretrain_encoder

    return pretrain_encoder(
        data,
        method,
        encoder,
        width,
        channels,
        positives,
        allow_writer_overlap,
        out,
        words,
        recipe,
        run,
    )


def train(
    *,
    data: str,
    encoder: str = "resnet-layout",
    width: int | None = None,
    objective: Literal["auto", "pairs", "writers", "logistic", "whitened", "cosine"] = "auto",
    freeze: bool = False,
    encoder_lr: float = 1.0,
    head_input: Literal["absolute", "product", "signed"] = "absolute",
    out: str = "runs/ssl-hv",
    words: WordOptions = WordOptions(),
    labels: LabelOptions = LabelOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    run: FloatRunOptions = FloatRunOptions(),
) -> Result | None:
    """Train a verifier, calibrate it on held-out training writers, and judge it on unseen ones.

    Args:
        data: as for ssl-hv-pretrain.
        encoder: the --out folder of ssl-hv-pretrain; or resnet18, resnet-layout, vit-b32, vit-tiny
            from scratch; or raw, hog, gsc, gsc-bits.
        width: channels of the first stage of resnet-layout from scratch; the preset's if not given.
        objective: pairs (the paper's: a small network on the difference, cross-entropy), writers
            (cosine margin over the training writers, ours), logistic (regression on the difference
            of fixed features), whitened (cosine of fixed features, divided by how one writer's
            words vary, ours) or cosine (of centred fixed features: no label at all); auto is
            logistic for handcrafted features, else writers; pairs where --freeze, --pairs or
            --head-input is given.
        freeze: leave the encoder as it is.
        encoder_lr: factor of the learning rate for the encoder.
        head_input: of objective pairs: absolute difference; product adds the product; signed is
            the published script's (the order of the two images then matters).
        out: new folder for checkpoints, metrics.csv, export/, items.csv, result.json and
            report.html.
        words: the images.
        labels: the labels.
        recipe: the recipe.
        run: how to run.
    """
    check_data(data)
    check_encoder(encoder)
    check_width(width, encoder)
    check_positive(encoder_lr=encoder_lr)
    keep = [data, encoder, labels.pairs]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    from ssl_hv.training import train_verifier

    return train_verifier(
        data,
        encoder,
        width,
        objective,
        freeze,
        encoder_lr,
        head_input,
        out,
        words,
        labels,
        recipe,
        run,
    )


def evaluate(
    *,
    data: str,
    checkpoint: str,
    pairs: str | None = None,
    split: Literal["train", "test", "all"] = "test",
    threshold: str = "val",
    bootstrap: int = 1000,
    out: str | None = None,
    words: WordOptions = WordOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Judge a verifier: accuracy, AUC, EER, Cllr and more, with intervals over writers.

    Args:
        data: as for ssl-hv-pretrain.
        checkpoint: the --out folder of ssl-hv-train, or its export/.
        pairs: CSV or parquet file of pairs; else those of --split.
        split: train, test or all writers, with generated pairs (CEDAR's own list for test).
        threshold: val (chosen on held-out training writers), eer (where both errors are equal on
            these pairs: it flatters) or a score.
        bootstrap: resamples of writers for the intervals.
        out: folder for items.csv, result.json and report.html; nothing is written if not given.
        words: the images.
        run: where and how to compute.
    """
    check_data(data)
    find_saved(checkpoint)
    check_pairs(pairs)
    check_threshold(threshold)
    check_at_least(10, bootstrap=bootstrap)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[data, checkpoint, pairs])
    from ssl_hv.evaluating import evaluate_verifier

    return evaluate_verifier(data, checkpoint, pairs, split, threshold, bootstrap, out, words, run)


def embed(
    *images: str,
    checkpoint: str,
    out: str = "embeddings.npz",
    resize: int | None = None,
    skip_bad: bool = False,
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Write the embeddings of word images: names and vectors in one .npz file.

    Args:
        images: files and folders; a folder is searched at any depth.
        checkpoint: the --out folder of ssl-hv-train or ssl-hv-pretrain, or raw, hog, gsc or
            gsc-bits.
        out: the .npz file: names (N,), vectors float32 (N, D).
        resize: cut words to their ink and fit them into squares of this side.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
        run: where and how to compute.
    """
    if not images:
        raise DataError("give images or folders, e.g. ssl-hv-embed words/ --checkpoint runs/ssl-hv")
    check_encoder(checkpoint)
    if Path(out).suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {out}")
    check_at_least(16, resize=resize)
    check_file_out(out, overwrite=run.overwrite)
    from ssl_hv.embedding import embed_images

    return embed_images(images, checkpoint, out, resize, skip_bad, run)


def predict(
    *images: str,
    checkpoint: str,
    out: str | None = None,
    resize: int | None = None,
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Compare one questioned word with one or more known ones: verdict and likelihood ratio.

    Args:
        images: the questioned word first, then one or more of the same word by one known writer.
        checkpoint: the --out folder of ssl-hv-train, or its export/.
        out: folder for comparison.png, predictions.csv, result.json and report.html; nothing is
            written if not given.
        resize: cut words to their ink and fit them into squares of this side.
        run: where and how to compute.
    """
    if len(images) < 2:
        raise DataError(
            "give a questioned and at least one known image: ssl-hv-predict A.png B.png"
        )
    for path in images:
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file; give images of one word each")
    find_saved(checkpoint)
    check_at_least(16, resize=resize)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[checkpoint, *images])
    from ssl_hv.predicting import compare_words

    return compare_words(images[0], images[1:], checkpoint, out, resize, run)


def pairs(
    *,
    data: str,
    out: str = "pairs.csv",
    split: Literal["train", "test", "all"] = "train",
    writer_fraction: float = 1.0,
    max_per_writer: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    words: WordOptions = WordOptions(),
) -> Result:
    """Write pairs of one split: all same-writer pairs, and as many different ones.

    Args:
        data: as for ssl-hv-pretrain.
        out: .csv or .csv.gz file with columns left, right, label, or .parquet file with the
            authors' sample1, sample2, label.
        split: train, test or all writers.
        writer_fraction: share of the writers of that split, the first ones by name.
        max_per_writer: most same-writer pairs of one writer.
        seed: of the different-writer pairs.
        overwrite: replace the file if it exists.
        words: the images.
    """
    check_seed(seed)
    check_data(data)
    check_fraction("(0, 1]", writer_fraction=writer_fraction)
    check_at_least(1, max_per_writer=max_per_writer)
    if not out.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(f"--out must end in .csv, .csv.gz or .parquet, got {out}")
    check_file_out(out, overwrite=overwrite, keep=[data])
    from ssl_hv.pairing import make_pair_file

    return make_pair_file(data, out, split, writer_fraction, max_per_writer, seed, words)


def check_data(data: str) -> None:
    """Raise DataError if there is nothing at `data`."""
    if not Path(data).is_dir():
        raise DataError(f"{data}: no such folder; expected CEDAR AND, or {Path(data)}/WRITER/*.png")


def check_encoder(encoder: str) -> None:
    """Raise DataError if `encoder` is neither a saved network nor a name."""
    names = ("resnet18", "resnet-layout", "vit-b32", "vit-tiny", "raw", "hog", "gsc", "gsc-bits")
    if encoder in names:
        return
    if not Path(encoder).exists():
        raise DataError(
            f"{encoder}: no such folder, and no encoder of that name{nearest(encoder, names)}; "
            f"give the --out folder of ssl-hv-pretrain, or one of {', '.join(names)}"
        )
    find_saved(encoder)


def check_width(width: int | None, encoder: str | None) -> None:
    """Raise ValueError if a width is given that no encoder takes.

    Args:
        width: of the first stage.
        encoder: name or folder; None is the preset's.

    Raises:
        ValueError: see above, or it is below 4.
    """
    if width is None:
        return
    if encoder not in (None, "resnet-layout"):
        raise ValueError(f"--width is for resnet-layout, not for {encoder}")
    check_at_least(4, width=width)


def check_threshold(threshold: str) -> None:
    """Raise ValueError if `threshold` is neither val, eer nor a number."""
    if threshold in ("val", "eer"):
        return
    try:
        known = math.isfinite(float(threshold))
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"--threshold must be val, eer or a score, got {threshold}")


main_pretrain = program(pretrain, "ssl-hv-pretrain")
main_train = program(train, "ssl-hv-train")
main_eval = program(evaluate, "ssl-hv-eval")
main_embed = program(embed, "ssl-hv-embed")
main_predict = program(predict, "ssl-hv-predict")
main_pairs = program(pairs, "ssl-hv-pairs")
