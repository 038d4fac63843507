"""`d-tiil-localize` and `d-tiil-score`: one pair, its folder of results, its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papercommons.data.images import read_image
from papercommons.errors import DataError
from papercommons.files import hash_files, hash_model, prepare_out
from papercommons.report import Result, describe_device, write_report

from d_tiil.calibration import Calibration
from d_tiil.opening import open_pipeline, quantity_hashes
from d_tiil.options import PACKAGE, Depth, HelperOptions, LocateOptions, ModelOptions
from d_tiil.pair_report import LIMITS, pair_sections, score_rows, verdict, word_rows
from d_tiil.phrases import Phrase
from d_tiil.pictures import marked
from d_tiil.result import DTIILResult
from d_tiil.saved import save_result
from d_tiil.settings import LocateSettings


def locate_pair(
    settings: dict[str, Any],
    method: LocateSettings,
    phrases: list[Phrase] | None,
    depth: Depth,
    seed: int,
    overwrite: bool,
    how: LocateOptions,
    helpers: HelperOptions,
    where: ModelOptions,
) -> Result:
    """Find what contradicts, write the folder of the run, and return the result.

    Args:
        settings: model, image, caption and out (None: nothing is written), and the other words of
            the command.
        method: the settings of the method that `how` means for the model.
        phrases: of the caption to score, or None.
        depth: how far to go, see `DTIILPipeline`.
        seed: of the noise.
        overwrite: empty the folder first.
        how: the method's options.
        helpers: models and files beside it.
        where: where the model runs.

    Raises:
        DataError: the model, the image or the caption cannot be used, or the calibration is of
            another model.
        ValueError: the device is not there, or an option is out of range.
    """
    weights = hash_model(settings["model"])
    made_with = quantity_hashes(weights, method, helpers, depth)
    image = read_image(settings["image"])
    pipe = open_pipeline(settings["model"], method, how, helpers, where)
    check_made_with(pipe.calibration, made_with, helpers)
    done = pipe(
        image, settings["caption"], depth=depth, phrases=phrases, seed=seed, resize=where.resize
    )
    settings = {**settings, "seed": seed, **asdict(how), **asdict(helpers), **asdict(where)}
    command = "d-tiil-score" if depth == "score" else "d-tiil-localize"
    result = Result(
        package=PACKAGE,
        command=command,
        title=f"{Path(settings['image']).name}: {verdict(done, pipe.calibration)}",
        rows=word_rows(done) or score_rows(done),
        metrics={**_facts(done), "model_hash": weights},
        settings={**settings, "locate": method.to_dict()},
        limits=LIMITS,
        data_hash=hash_files([settings["image"]]),
        device=describe_device(pipe._execution_device),  # type: ignore[attr-defined]
        notes=_notes(done),
    )
    if settings["out"] is not None:
        folder = prepare_out(settings["out"], settings, overwrite=overwrite)
        result.files |= save_result(folder, image, done)
        write_report(folder / "report.html", result, pair_sections(image, done))
        result.save(folder)
    return result


def check_made_with(
    calibration: Calibration | None, made_with: Mapping[str, str], helpers: HelperOptions
) -> None:
    """Raise DataError if a calibration is of another model or of other settings.

    Args:
        calibration: or None.
        made_with: of the quantities at hand, see `d_tiil.opening.quantity_hashes`.
        helpers: where the calibration comes from.
    """
    if calibration is not None and not holds_for(calibration, made_with):
        raise DataError(
            f"{helpers.calibration}: was made with another model or other settings, on which its "
            f"quantity {calibration.feature} depends; give those, or calibrate anew"
        )


def holds_for(calibration: Calibration, made_with: Mapping[str, str]) -> bool:
    """Return whether a calibration is of the quantities at hand, as far as it says.

    Args:
        calibration: of one quantity.
        made_with: of the quantities at hand, see `d_tiil.opening.quantity_hashes`.
    """
    return calibration.made_with in ("", made_with.get(calibration.feature))


def _facts(done: DTIILResult) -> dict[str, Any]:
    facts = done.summary()
    del facts["settings"], facts["seed"]
    return facts


def _notes(done: DTIILResult) -> list[str]:
    notes = [f"{done.rows:,} network rows, {sum(done.seconds.values()):.1f} s"]
    if done.words:
        notes.insert(0, f"inconsistent: {marked(done.caption, done.words)}")
    if done.mask.any():
        notes.insert(1, f"{done.mask.mean():.1%} of the image in the mask")
    return [*([done.note] if done.note else []), *notes]
