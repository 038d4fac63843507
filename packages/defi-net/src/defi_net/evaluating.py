"""`defi-net-eval`: a saved network judged on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from papercommons.cli import ComputeOptions
from papercommons.data.distortions import Distortion
from papercommons.errors import DataError
from papercommons.files import prepare_out
from papercommons.metrics.detection import Score
from papercommons.metrics.localization import Protocol
from papercommons.report import Result, describe_device

from defi_net.calibration import ImageThreshold, choose_threshold, remembered
from defi_net.data import InpaintingData
from defi_net.evaluation import judge
from defi_net.judgement import Judgement, example_sections, write_judgement
from defi_net.layouts import Sample
from defi_net.localizer import Localizer
from defi_net.opening import describe_way, open_data, open_localizer
from defi_net.options import PACKAGE, DataOptions, ViewOptions
from defi_net.reading import read_sample
from defi_net.saved import LIMITS


def evaluate_network(
    data: str,
    checkpoint: str,
    split: str,
    protocols: Sequence[Protocol],
    by: str | None,
    distortions: Sequence[Distortion],
    threshold: float,
    score: Score | None,
    false_alarm_rate: float | None,
    bootstrap: int,
    out: str | None,
    options: DataOptions,
    view: ViewOptions,
    run: ComputeOptions,
) -> Result:
    """Judge a saved network and return the result.

    Args:
        data: folder or manifest.
        checkpoint: folder of a run or of a saved network, or file of a published checkpoint.
        split: auto, train, val, test or all.
        protocols: by which to judge.
        by: method or source, or None.
        distortions: what else to judge the photographs after.
        threshold: on the probability of pixels.
        score: of whole photographs; the network's own if not given.
        false_alarm_rate: chooses the threshold for whole photographs on the val split; None takes
            the network's own.
        bootstrap: resamples of sources for the intervals.
        out: folder for the report; None writes nothing.
        options: how the data are read.
        view: how photographs are looked at.
        run: where and how to compute.

    Raises:
        DataError: data or network cannot be used, or there is no such split.
        ValueError: options that do not go together.
    """
    found = open_data(data, options, val_fraction=0.0)
    name, samples = choose_samples(found, split, data)
    localizer, config = open_localizer(checkpoint, view, run)
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "split": split}
    settings |= {"protocol": list(protocols), "by": by, "robustness": list(map(str, distortions))}
    settings |= {"threshold": threshold, "score": score, "false_alarm_rate": false_alarm_rate}
    settings |= {"bootstrap": bootstrap, "out": out}
    settings |= {**asdict(options), **asdict(view), **run.settings()}
    read = partial(
        read_sample, missing_mask=options.missing_mask, resize_masks=options.resize_masks
    )
    image = image_threshold(localizer, config, found, score, false_alarm_rate, read, name, data)
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    rows = judge(
        localizer,
        samples,
        protocols=protocols,
        distortions=distortions,
        threshold=threshold,
        score=image.score,
        seed=run.seed,
        read=read,
    )
    judgement = Judgement.of(rows, protocols, image, by=by, draws=bootstrap, seed=run.seed)
    result = Result(
        package=PACKAGE,
        command="defi-net-eval",
        title=f"{checkpoint} on {data}: {len(samples):,} photographs, {name}",
        rows=judgement.table(),
        metrics=judgement.numbers(),
        settings=settings,
        limits=LIMITS,
        data_hash=found.data_hash,
        device=describe_device(localizer.device),
        notes=[
            *(
                ["THESE PHOTOGRAPHS MAY HAVE BEEN TRAINED ON: the numbers flatter."]
                * _trained(name)
            ),
            f"seen as {describe_way(localizer)}",
            *judgement.notes(),
            *(f"left out: {each}" for each in found.left_out),
        ],
    )
    if folder is not None:
        examples = example_sections(localizer, samples, rows, **read.keywords)
        write_judgement(folder, result, judgement, judgement.sections(*examples))
    return result


def choose_samples(data: InpaintingData, split: str, place: str) -> tuple[str, list[Sample]]:
    """Return the photographs to judge, and what they are in words.

    Args:
        data: opened without holding any out.
        split: auto (test, where the data have splits, else all), train, val, test or all.
        place: where the data are, for the message.

    Raises:
        DataError: the split is empty.
    """
    everything = [sample for part in data.splits.values() for sample in part]
    divided = any(sample.split for sample in everything)
    if split == "all" or (split == "auto" and not divided):
        return "all splits" if divided else "all of them", everything
    wanted = "test" if split == "auto" else split
    if not data.splits[wanted] or not divided:
        there = [name for name, part in data.splits.items() if part] if divided else []
        raise DataError(
            f"{place}: no {wanted} split; there {'are ' + ', '.join(there) if there else 'is none'}"
            "; choose another --split, or all"
        )
    return f"{wanted} split", data.splits[wanted]


def _trained(name: str) -> bool:
    return name in ("train split", "all splits")


def image_threshold(
    localizer: Localizer,
    config: dict[str, Any],
    data: InpaintingData,
    score: Score | None,
    rate: float | None,
    read: Any,
    judged: str,
    place: str,
) -> ImageThreshold:
    """Return the threshold for whole photographs.

    Args:
        localizer: gives the maps.
        config: of the saved network, which may remember one.
        data: its val split chooses one.
        score: of whole photographs; the network's own if not given.
        rate: of false alarms; None takes what is remembered.
        read: from a sample to the photograph and its mask.
        judged: what is judged, as `choose_samples` says it.
        place: where the data are, for messages.

    Raises:
        DataError: no authentic val photographs beside those judged.
    """
    own = remembered(config)
    if rate is None:
        if score not in (None, own.score):
            return ImageThreshold(score or own.score, 0.5)
        return own
    if judged in ("val split", "all splits") or not data.splits["val"]:
        raise DataError(
            f"{place}: --false-alarm-rate needs a val split beside the photographs judged (it is "
            f"{'judged' if data.splits['val'] else 'absent'}); leave the option out, or judge test"
        )
    kind: Score = score or own.score
    chosen = choose_threshold(localizer, data.splits["val"], read=read, score=kind, rate=rate)
    if chosen is None:
        raise DataError(
            f"{place}: its val split has no authentic photographs, which --false-alarm-rate needs"
        )
    return chosen
