"""The commands of nlran: one typed function each; heavy imports wait for cheap checks.

Research use only: not a medical device.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from papercommons.checks import check_at_least, check_fraction, check_seed
from papercommons.cli import ComputeOptions, DeviceOptions, RunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_out, find_saved
from papercommons.report import Result

from nlran.options import (
    DataOptions,
    MapOptions,
    NetworkOptions,
    PreparationOptions,
    ReadingOptions,
    RecipeOptions,
    SplitOptions,
)

if TYPE_CHECKING:
    from nlran.scans import ScanSet


def train(
    *,
    data: str,
    out: str = "runs/nlran",
    scans: DataOptions = DataOptions(),
    preparation: PreparationOptions = PreparationOptions(),
    splitting: SplitOptions = SplitOptions(),
    network: NetworkOptions = NetworkOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    run: RunOptions = RunOptions(),
) -> Result:
    """Train a 3-D network that names the class of a CT scan and shows where it looked.

    Research use only: not a medical device.

    Args:
        data: folder with one sub-folder of scans per class (NIfTI, MetaImage, NumPy, or folders of
            DICOM files or of png or jpg slices, below patient folders if wanted), CC-CCII,
            COVID-CT-MD or MosMedData as they come, or a 3-D MedMNIST .npz.
        out: new folder for checkpoints, metrics.csv, splits.csv, export/, result.json and
            report.html.
        scans: the scans.
        preparation: what the network sees.
        splitting: how scans are divided.
        network: the network.
        recipe: how to train.
        run: how to run.
    """
    keep = [data, scans.manifest, preparation.lung_mask]
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=keep)
    if preparation.size is not None and preparation.size[0] == 0 and network.network != "covnet":
        raise ValueError(f"--size with depth 0 is for covnet; {network.network} needs a depth")
    found = open_scans(data, scans)
    from nlran.training import train_network

    return train_network(data, found, out, scans, preparation, splitting, network, recipe, run)


def evaluate(
    *,
    data: str,
    checkpoint: str,
    split: Literal["test", "val", "train", "all"] = "test",
    out: str | None = None,
    batch_size: int = 4,
    specificity: float = 0.95,
    bootstrap: int = 1000,
    scans: DataOptions = DataOptions(),
    run: DeviceOptions = DeviceOptions(),
) -> Result:
    """Judge a trained network: accuracy, macro AUC, precision, F1, with intervals over patients.

    Research use only: not a medical device.

    Args:
        data: as for nlran-train.
        checkpoint: the --out folder of nlran-train, or its export/.
        split: scans as the run divided them (its splits.csv); all judges every scan of --data, as
            for a data set of another hospital.
        out: folder for items.csv, confusion.csv, result.json and report.html; nothing is
            written if not given.
        batch_size: scans at once.
        specificity: at which the sensitivity is read off the ROC curve of these scans.
        bootstrap: resamples of patients for the intervals.
        scans: the scans.
        run: where and how to compute.
    """
    check_data(data)
    find_saved(checkpoint)
    check_at_least(1, batch_size=batch_size)
    check_at_least(10, bootstrap=bootstrap)
    check_fraction("(0, 1)", specificity=specificity)
    if out is not None:
        check_out(out, overwrite=run.overwrite, keep=[checkpoint, data, scans.manifest])
    from nlran.evaluating import evaluate_network

    return evaluate_network(
        data, checkpoint, split, out, scans, batch_size, specificity, bootstrap, run
    )


def predict(
    *scans: str,
    checkpoint: str,
    out: str = "runs/nlran-predict",
    resume: bool = False,
    maps: MapOptions = MapOptions(),
    reading: ReadingOptions = ReadingOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Name the class of each scan and write its heat map in the scanner's own space.

    Writes predictions.csv and, for each scan, scans/NAME_heatmap.nii.gz (same grid and affine as
    the scan), scans/NAME.png and a page scans/NAME.html. Research use only: not a medical device.

    Args:
        scans: files and folders; a folder that is no scan is searched at any depth.
        checkpoint: the --out folder of nlran-train, or its export/.
        out: new folder.
        resume: go on with an interrupted prediction; scans that are done and unchanged are kept.
        maps: heat maps.
        reading: how scans are read.
        run: where and how to compute.
    """
    if not scans:
        raise DataError("give scans or folders, e.g. nlran-predict scan.nii.gz --checkpoint runs/x")
    find_saved(checkpoint)
    keep = [checkpoint, reading.lung_mask, *scans]
    check_out(out, resume=resume, overwrite=run.overwrite, go_on="--resume", keep=keep)
    from nlran.predicting import predict_scans

    return predict_scans(scans, checkpoint, out, maps, reading, resume, run)


def explain(
    *scans: str,
    checkpoint: str,
    masks: str | None = None,
    slices: str | None = None,
    out: str | None = None,
    steps: int = 10,
    reading: ReadingOptions = ReadingOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Score every heat map of a network: does it find lesions, and does it depend on training?

    Shows mask, mask-trunk, trunk, CAM, Grad-CAM (last layer and stage 1) and non-local attention
    beside a random map and the middle of the lungs. Research use only: not a medical device.

    Args:
        scans: files and folders; a folder that is no scan is searched at any depth.
        checkpoint: the --out folder of nlran-train, or its export/.
        masks: folder of lesion masks, each with the relative name of its scan, on any grid.
        slices: JSON file of infected slices: name of a scan, without its ending -> numbers of
            axial slices in the scan's file, from 0.
        out: folder for scores.csv, result.json and report.html; nothing is written if not given.
        steps: of the deletion and insertion curves; 0 leaves them out.
        reading: how scans are read.
        run: where and how to compute.
    """
    if not scans:
        raise DataError("give scans or folders, e.g. nlran-explain ct/ --checkpoint runs/x")
    find_saved(checkpoint)
    check_at_least(0, steps=steps)
    if masks is not None and not Path(masks).is_dir():
        raise DataError(f"{masks}: no such folder; --masks takes a folder of lesion masks")
    if slices is not None and not Path(slices).is_file():
        raise DataError(f"{slices}: no such file; --slices takes a JSON file")
    if out is not None:
        keep = [checkpoint, masks, slices, reading.lung_mask, *scans]
        check_out(out, overwrite=run.overwrite, keep=keep)
    from nlran.explaining import explain_scans

    return explain_scans(scans, checkpoint, masks, slices, out, steps, reading, run)


def audit(
    *,
    data: str,
    manifest: str | None = None,
    classes: list[str] | None = None,
    out: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    allow_gaps: bool = False,
    overwrite: bool = False,
) -> Result:
    """Look for shortcuts: can the class be told from size, slice count, black borders, file type?

    Args:
        data: as for nlran-train.
        manifest: as for nlran-train.
        classes: as for nlran-train.
        out: folder for result.json and report.html; nothing is written if not given.
        limit: read at most so many scans of each class.
        seed: of the cross-validation.
        skip_bad: leave out scans that cannot be read (they are named) instead of stopping.
        allow_gaps: fill in slices missing from a DICOM series instead of refusing it.
        overwrite: empty --out first if it holds an earlier run.
    """
    check_seed(seed)
    check_data(data)
    check_at_least(1, limit=limit)
    if out is not None:
        check_out(out, overwrite=overwrite, keep=[data, manifest])
    from nlran.auditing import audit_scans

    return audit_scans(
        data,
        manifest=manifest,
        classes=classes,
        out=out,
        limit=limit,
        seed=seed,
        skip_bad=skip_bad,
        allow_gaps=allow_gaps,
        overwrite=overwrite,
    )


def inspect(*scans: str, allow_gaps: bool = False, skip_bad: bool = False) -> Result:
    """Say what a scan is: shape, spacing, orientation, HU percentiles, and what is odd about it.

    Args:
        scans: files and folders; a folder that is no scan is searched at any depth.
        allow_gaps: fill in slices missing from a DICOM series instead of refusing it.
        skip_bad: name scans that cannot be read and go on, instead of stopping.
    """
    if not scans:
        raise DataError("give scans or folders, e.g. nlran-inspect scan.nii.gz")
    from nlran.inspecting import inspect_scans

    return inspect_scans(scans, allow_gaps=allow_gaps, skip_bad=skip_bad)


def phantoms(
    *,
    out: str = "runs/nlran-phantoms",
    count: int = 240,
    size: int = 32,
    seed: int = 0,
    overwrite: bool = False,
) -> Result:
    """Write artificial chest scans of three classes, with lesion masks, to try all without data.

    Normal has no lesion, CP two in one lung, NCP one in each lung. The lesions are dense, so that a
    tiny network learns in minutes to tell the classes apart.

    Args:
        out: new folder: ct/CLASS/*.nii.gz, masks/CLASS/*.nii.gz, result.json and report.html.
        count: scans in all.
        size: voxels along each axis.
        seed: another seed gives other phantoms.
        overwrite: empty --out first if it holds an earlier run.
    """
    check_seed(seed)
    check_at_least(3, count=count)
    check_at_least(16, size=size)
    check_out(out, overwrite=overwrite)
    from nlran.synthesizing import make_phantoms

    return make_phantoms(out, count, size, seed, overwrite)


def check_data(data: str) -> None:
    """Raise DataError if there is nothing at `data`."""
    if not Path(data).exists():
        raise DataError(f"{data}: no such folder; expected {data}/CLASS/scans, or a MedMNIST .npz")


def open_scans(data: str, options: DataOptions) -> ScanSet:
    """Return the scans at `data`; nothing heavy is imported for that.

    Args:
        data: folder or file.
        options: which scans, and how they are read.

    Raises:
        DataError: see `nlran.scans.find_scans`.
    """
    check_data(data)
    from nlran.scans import find_scans

    return find_scans(
        data,
        manifest=options.manifest,
        classes=options.classes,
        skip_bad=options.skip_bad,
    )


main_train = program(train, "nlran-train")
main_eval = program(evaluate, "nlran-eval")
main_predict = program(predict, "nlran-predict")
main_explain = program(explain, "nlran-explain")
main_audit = program(audit, "nlran-audit")
main_inspect = program(inspect, "nlran-inspect")
main_phantoms = program(phantoms, "nlran-phantoms")
