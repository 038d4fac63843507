"""What `nlran-audit` does: a table of what tells the classes apart besides disease."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, counted
from papercommons.files import prepare_out
from papercommons.report import PALETTE, Result, Section, figure_png, write_report

from nlran.audit import Nuisance, feature_rows, measure_nuisance, nuisance_aucs
from nlran.options import PACKAGE
from nlran.scans import ScanSet, find_scans, read_scan

LIMITS = (
    "A high AUC says that a network could tell the classes apart without looking at disease, not "
    "that one does; a low one rules out these features only. For research use; not a medical "
    "device."
)


def audit_scans(
    data: str,
    *,
    manifest: str | None = None,
    classes: Sequence[str] | None = None,
    out: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    allow_gaps: bool = False,
    overwrite: bool = False,
) -> Result:
    """Return a table of nuisance features by class, and how well they alone tell the classes.

    Every scan is read. The AUCs are macro one-versus-rest averages of out-of-fold predictions,
    cross-validated by patient: of a decision tree for one feature, of a random forest for all.

    Args:
        data: see `find_scans`.
        manifest: likewise.
        classes: likewise.
        out: folder for report.html and result.json; None: neither is written.
        limit: read at most so many scans of each class; None: all.
        seed: of folds, forest and bootstrap.
        skip_bad: leave out scans that cannot be read; else they are an error.
        allow_gaps: see `read_volume`.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        DataError: see `find_scans` and `prepare_out`; a scan cannot be read.
    """
    scans = find_scans(data, manifest=manifest, classes=classes, skip_bad=skip_bad, check=False)
    scans = scans if limit is None else scans.limit(limit)
    settings = {
        "data": data,
        "manifest": manifest,
        "classes": list(scans.classes),
        "out": out,
        "limit": limit,
        "seed": seed,
        "skip_bad": skip_bad,
        "allow_gaps": allow_gaps,
    }
    if out is not None:
        kept = {name: value for name, value in settings.items() if value is not None}
        prepare_out(out, kept, overwrite=overwrite)
    nuisances, bad = _measure(scans, skip_bad=skip_bad, allow_gaps=allow_gaps)
    scans = scans.without(bad)
    aucs, interval, notes = nuisance_aucs(scans, nuisances, seed)
    rows = [{**row, "AUC": aucs.get(row["feature"])} for row in feature_rows(scans, nuisances)]
    low, high = interval
    result = Result(
        package=PACKAGE,
        command="nlran-audit",
        title=f"What tells the classes of {data} apart besides disease",
        rows=rows,
        metrics={
            "macro_auc": aucs.get("all"),
            "macro_auc_low": low,
            "macro_auc_high": high,
            "scans": len(scans),
            "patients": len({scan.patient for scan in scans.scans}),
            "left_out": len(scans.skipped),
            "copies": len(scans.copies),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=scans.hash(),
        device="cpu",
        notes=[f"found: {scans.layout}", *scans.notes, *_defects(scans), *notes],
    )
    if out is not None:
        write_report(Path(out) / "report.html", result, _sections(scans, nuisances, aucs))
        result.save(out)
    return result


def _measure(
    scans: ScanSet, *, skip_bad: bool, allow_gaps: bool
) -> tuple[list[Nuisance], dict[int, str]]:
    """Return the features of the scans that can be read, and why others cannot, by place."""
    nuisances, bad = [], {}
    for place, scan in enumerate(scans.scans):
        try:
            volume = read_scan(scans, scan, allow_gaps=allow_gaps)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}; --skip-bad leaves it out") from None
            bad[place] = str(error)
        else:
            nuisances.append(measure_nuisance(volume, scans.files(scan)))
    return nuisances, bad


def _defects(scans: ScanSet) -> list[str]:
    """Return sentences on copies, and on patients and copies in two classes or splits."""
    notes = []
    for what in ("label", "split"):
        seen = defaultdict(set)
        for scan in scans.scans:
            seen[scan.patient].add(getattr(scan, what))
        plural = "classes" if what == "label" else "splits"
        if torn := [patient for patient, values in seen.items() if len(values) > 1]:
            notes.append(f"{len(torn)} patients in several {plural}, e.g. {torn[0]}")
    if scans.skipped:
        path, why = scans.skipped[0]
        notes.append(f"{counted(len(scans.skipped), 'scan')} left out, the first {path} ({why})")
    return notes


def _sections(
    scans: ScanSet, nuisances: Sequence[Nuisance], aucs: dict[str, float]
) -> list[Section]:
    background = {
        name: [
            nuisance.numbers["background share"]
            for nuisance, scan in zip(nuisances, scans.scans, strict=True)
            if scan.label == label
        ]
        for label, name in enumerate(scans.classes)
    }

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        names = [name for name in reversed(aucs) if name != "all"]
        left.barh(names, [aucs[name] for name in names], color=PALETTE[0])
        left.axvline(0.5, color=PALETTE[-1], linestyle="--")
        left.set(title="AUC of one feature", xlim=(0, 1))
        right.hist(list(background.values()), bins=20, range=(0, 1), label=list(background))
        right.set(title="Share of the lowest value", xlabel="share of voxels", ylabel="scans")
        right.legend()

    caption = "Left: how well each feature alone tells the classes. Right: background by class."
    return [Section("Shortcuts", figure=figure_png(draw), caption=caption)]
