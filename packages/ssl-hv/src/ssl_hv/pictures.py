"""The pictures of the reports: where scores lie, what errors cost, what embeddings look like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from papercommons.metrics.verification import embedding_spread, tippett
from papercommons.report import Section, figure_png, image_grid_png
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from papercommons.data.words import Words

    from ssl_hv.evaluation import Judgement

MOST_WRITERS = 10
LN_TEN = math.log(10)


def report_sections(
    found: Judgement, words: Words, images: Tensor, embeddings: Tensor
) -> list[Section]:
    """Return the parts of a report on judged pairs.

    Args:
        found: what the verifier says.
        words: their names and writers.
        images: uint8, shape (N, C, H, W).
        embeddings: of all images, float32, shape (N, dim).
    """
    sections = []
    if 0 < found.pairs.same.sum() < len(found.pairs):
        sections = [
            Section(
                "Scores and errors",
                "Left: the scores of both kinds of pair, and the threshold. Right: how often pairs "
                "of one writer are accepted against how often pairs of two are.",
                figure=scores_png(found),
                caption="Histograms of the scores, and the ROC curve",
            ),
            Section(
                "Likelihood ratios (Tippett plot)",
                "Share of pairs whose log10 likelihood ratio is above a value. At 0 the curve of "
                "one writer should be high and that of two writers low; what is left of them on "
                "the wrong side misleads.",
                figure=tippett_png(found),
                caption="Tippett plot of same-writer and different-writer pairs",
            ),
            *errors_sections(found, words, images),
        ]
    test = np.unique(np.concatenate([found.pairs.left, found.pairs.right]))
    return [*sections, *embedding_sections(words, embeddings, test)]


def scores_png(found: Judgement) -> bytes:
    """Return a PNG with the histograms of the scores and the ROC curve."""
    from sklearn.metrics import roc_curve

    same = found.pairs.same == 1

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        bins = np.histogram_bin_edges(found.scores, 60).tolist()
        for kind, name in ((~same, "two writers"), (same, "one writer")):
            left.hist(found.scores[kind], bins, alpha=0.6, density=True, label=name)
        left.axvline(found.threshold, color="k", linewidth=1, label="threshold")
        left.set(xlabel="score", ylabel="density")
        left.legend()
        false_match, match, _ = roc_curve(found.pairs.same, found.scores)
        right.plot(false_match, match)
        right.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        right.set(
            xlabel="false match rate",
            ylabel="true match rate",
            title=f"AUC {found.metrics['auc'].value:.3f}",
        )

    return figure_png(draw)


def tippett_png(found: Judgement) -> bytes:
    """Return a PNG of the Tippett plot."""
    curves = tippett(found.llr, found.pairs.same)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for shares, label in ((curves.same, "one writer"), (curves.different, "two writers")):
            axes.plot(curves.llr / LN_TEN, shares, label=label)
        axes.axvline(0, color="0.7", linewidth=1)
        axes.set(
            xlabel="log10 likelihood ratio",
            ylabel="share of pairs above",
            ylim=(0, 1),
            title=f"Cllr {found.metrics['cllr'].value:.3f}",
        )
        axes.legend()

    return figure_png(draw, width=6)


def errors_sections(found: Judgement, words: Words, images: Tensor) -> list[Section]:
    """Return pictures of the pairs that mislead most, at most six of each kind.

    Args:
        found: what the verifier says.
        words: their names.
        images: uint8, shape (N, C, H, W).
    """
    sections = []
    for label, heading, sign in (
        (0, "Two writers taken for one: the worst", 1),
        (1, "One writer taken for two: the worst", -1),
    ):
        wrong = np.flatnonzero(
            (found.pairs.same == label) & ((found.scores >= found.threshold) != bool(label))
        )
        worst = wrong[np.argsort(-sign * found.llr[wrong], kind="stable")][:6]
        if len(worst):
            pictures, captions = [], []
            for pair in worst:
                left, right = int(found.pairs.left[pair]), int(found.pairs.right[pair])
                pictures.append(side_by_side(images[left, 0], images[right, 0]))
                names = f"{words.names[left]} · {words.names[right]}"
                captions.append(f"{names}\nlog10 LR {found.llr[pair] / LN_TEN:+.1f}")
            sections.append(
                Section(
                    heading,
                    figure=image_grid_png(pictures, captions, columns=2),
                    caption="Pairs side by side, with the likelihood ratio of each",
                )
            )
    return sections


def side_by_side(left: Tensor, right: Tensor) -> np.ndarray:
    """Return two pictures as one with a grey line between, uint8, shape (H, 2 W + 3).

    Args:
        left: uint8, shape (H, W).
        right: likewise.
    """
    line = left.new_full((left.shape[0], 3), 160)
    joined: np.ndarray = torch.cat([left, line, right], dim=1).numpy()
    return joined


def embedding_sections(
    words: Words, embeddings: Tensor, places: Sequence[int] | np.ndarray
) -> list[Section]:
    """Return how embeddings of some words lie: spread, a map, similarities of a few writers.

    Args:
        words: their writers.
        embeddings: of all images, float32, shape (N, dim).
        places: words to look at.
    """
    places = np.asarray(places)
    writers = np.asarray(words.writers)[places]
    names, counts = np.unique(writers, return_counts=True)
    chosen = sorted(names[np.argsort(-counts, kind="stable")][:MOST_WRITERS])
    some = np.concatenate([places[writers == name] for name in chosen])
    of_some = np.concatenate([[name] * int((writers == name).sum()) for name in chosen])
    if len(chosen) < 2 or len(some) < 5:
        return []
    mean = embeddings[torch.as_tensor(places)].mean(0)
    spread = embedding_spread((embeddings[torch.as_tensor(places)] - mean).numpy(), writers)
    method = "UMAP" if find_spec("umap") is not None else "t-SNE"
    return [
        Section(
            "Embeddings",
            f"The words of the {len(chosen)} writers with most words, by {method} of the "
            "embeddings, made once after training, and their cosines, writer by writer, after the "
            "mean is taken off. Distances between far groups of the map mean nothing.",
            figure=map_png((embeddings[torch.as_tensor(some)] - mean).numpy(), of_some, method),
            caption=f"{method} map and cosines of the words of {len(chosen)} writers",
            rows=[{"mean cosine (centred)": name, "value": v} for name, v in spread.items()],
        )
    ]


def map_png(vectors: np.ndarray, writers: np.ndarray, method: str) -> bytes:
    """Return a PNG with a map in two dimensions and the matrix of cosines.

    Args:
        vectors: embeddings, float32, shape (N, D), N >= 5.
        writers: of each, shape (N,), sorted.
        method: see `flatten`.
    """
    unit = F.normalize(torch.from_numpy(vectors)).numpy()
    flat = flatten(unit, method)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name in sorted(set(writers.tolist())):
            own = writers == name
            left.scatter(flat[own, 0], flat[own, 1], s=14, label=name)
        left.set(xticks=[], yticks=[])
        left.legend(fontsize=7, ncols=2, handletextpad=0.1)
        shown = right.imshow(unit @ unit.T, vmin=-1, vmax=1, cmap="RdBu_r")
        edges = np.flatnonzero(writers[1:] != writers[:-1]) + 0.5
        right.hlines(edges, -0.5, len(unit) - 0.5, color="k", linewidth=0.4)
        right.vlines(edges, -0.5, len(unit) - 0.5, color="k", linewidth=0.4)
        right.set(xticks=[], yticks=[])
        right.grid(visible=False)
        figure.colorbar(shown, ax=right, shrink=0.8)

    return figure_png(draw, width=9, height=4.2)


def flatten(vectors: np.ndarray, method: str, *, seed: int = 0) -> np.ndarray:
    """Return two coordinates per vector, shape (N, 2).

    Args:
        vectors: float, shape (N, D), N >= 5.
        method: UMAP (needs umap-learn) or t-SNE.
        seed: of the map.
    """
    if method == "UMAP":
        from umap import UMAP

        flat: np.ndarray = UMAP(
            n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1, metric="cosine"
        ).fit_transform(vectors)
        return flat
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(vectors) - 1) / 3)
    found: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        vectors
    )
    return found


def curves_of(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[str, ...]]:
    """Return the panels of a training run, one per logged number, the first four."""
    names = [name for name in rows[-1] if "/" in name]
    return {name.removeprefix("train/"): (name,) for name in names[:4]}


def comparison_png(
    questioned: np.ndarray,
    known: Sequence[np.ndarray],
    captions: Sequence[str],
    log10_lr: float,
    remembered: Mapping[str, Sequence[float]] | None,
) -> bytes:
    """Return a PNG: the words, and where the likelihood ratio lies among pairs of known origin.

    Args:
        questioned: uint8 dark on white, shape (H, W).
        known: likewise.
        captions: one per picture, the questioned one first.
        log10_lr: of the comparison.
        remembered: quantiles of ln LR of held-out pairs, by kind; None where they are not known.
    """
    images = [questioned, *known[:5]]

    def draw(figure: Any) -> None:
        upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.2])
        for place, image, caption in zip(
            upper.subplots(1, len(images), squeeze=False)[0], images, captions, strict=False
        ):
            place.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            place.set_title(caption, fontsize=8, loc="center")
            place.axis("off")
        axes = lower.subplots()
        for kind, name in (("different", "two writers"), ("same", "one writer")):
            if remembered and kind in remembered:
                values = np.asarray(remembered[kind]) / LN_TEN
                axes.hist(values, 30, alpha=0.6, density=True, label=f"{name} (held-out pairs)")
        axes.axvline(log10_lr, color="k", linewidth=2, label="this comparison")
        axes.set(xlabel="log10 likelihood ratio", yticks=[])
        axes.legend(fontsize=8)

    return figure_png(draw, width=8, height=4.6)
