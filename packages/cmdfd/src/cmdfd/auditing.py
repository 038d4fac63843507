"""`cmdfd-audit`: what lists and files give away beside their labels, as a table and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.errors import DataError
from papercommons.files import hash_texts, prepare_out
from papercommons.report import PALETTE, Result, Section, figure_png, write_report

from cmdfd.audit import Audit, Separation, audit_entries
from cmdfd.entries import ClipEntry, ClipList, join
from cmdfd.headers import with_headers
from cmdfd.layouts import Layout, open_clips
from cmdfd.options import PACKAGE
from cmdfd.prepared import ORIGINALS, is_prepared
from cmdfd.splits import Leak, find_leaks

LIMITS = (
    "A list without a leak of this kind may have others. Lengths are those that lists or headers "
    "state; nothing was decoded. People are known where names or lists say so."
)
_SHOWN = 20


@dataclass(frozen=True)
class AuditOptions:
    """How lists are audited.

    Attributes:
        layout: see `cmdfd.layouts`.
        root: folder where the files of lists are.
        measure: read the lengths from the headers of the files, not from the lists.
        skip_bad: go on without lines and files that cannot be used.
        draws: resamples for the intervals.
        seed: of the resampling.
    """

    layout: Layout = "auto"
    root: str | None = None
    measure: bool = False
    skip_bad: bool = False
    draws: int = 1000
    seed: int = 0


def audit_list(
    paths: str | Sequence[str],
    *,
    out: str | None = None,
    overwrite: bool = False,
    options: AuditOptions | None = None,
) -> Result:
    """Audit lists of clips, and return what was found.

    Args:
        paths: lists and folders, see `cmdfd.layouts`. Where they have no splits, each is one.
        out: folder for report.html and result.json; None writes nothing.
        overwrite: empty `out` first if it holds an earlier run.
        options: how.

    Raises:
        ValueError: an option out of range.
        DataError: see `cmdfd.layouts.open_clips`; no clip has lengths, or `out` is not empty.
    """
    how = options or AuditOptions()
    given = [paths] if isinstance(paths, str) else list(paths)
    settings = {"lists": given, "out": out, **asdict(how)}
    lists = {
        name: open_clips(
            listed(name),
            layout=how.layout,
            root=how.root,
            files=how.measure or Path(listed(name)).is_dir(),
            skip_bad=how.skip_bad,
        )
        for name in dict.fromkeys(given)
    }
    if out is not None:
        prepare_out(out, settings, overwrite=overwrite)
    clips = join(list(lists.values()))
    entries, faults = list(clips), list(clips.faults)
    if how.measure:
        entries, unread = with_headers(track(entries, "reading headers"))
        if unread and not how.skip_bad:
            raise DataError(f"{unread[0]} ({len(unread)} such files; or pass --skip-bad)")
        faults += unread
    if not any(entry.offset is not None for entry in entries):
        raise DataError(
            f"{given[0]}: no clip states how long picture and sound are; pass --measure to read "
            "the files"
        )
    audit = audit_entries(entries, draws=how.draws, seed=how.seed)
    leaks = find_leaks(splits_of(lists))
    result = Result(
        package=PACKAGE,
        command="cmdfd-audit",
        title=f"{clips.source}: {len(entries):,} clips, sound minus picture alone as a detector",
        rows=[separation_row(one) for one in audit.separations],
        metrics=_metrics(audit, leaks, faults),
        settings=settings,
        limits=LIMITS,
        data_hash=hash_texts(
            ascii((str(e.video), str(e.audio), e.entire, e.video_seconds, e.audio_seconds))
            for e in entries
        ),
        device="cpu",
        notes=[*_notes_of(audit), *(leak.words for leak in leaks), *clips.notes, *_faults(faults)],
    )
    if out is not None:
        write_report(Path(out) / "report.html", result, _sections(audit, entries, leaks, faults))
        result.save(out)
    return result


def listed(place: str) -> str:
    """Return what is audited; of a prepared folder it is the list of the files it was made of.

    Args:
        place: list, set or folder.
    """
    path = Path(place)
    folder = path.parent if path.name == "list.csv" else path
    originals = folder / ORIGINALS
    return str(originals) if is_prepared(folder) and originals.is_file() else place


def splits_of(lists: Mapping[str, ClipList]) -> dict[str, list[ClipEntry]]:
    """Return the clips of each split; of each list, where no list has splits.

    Args:
        lists: name -> its clips.
    """
    found: dict[str, list[ClipEntry]] = {}
    divided = any(entry.split for clips in lists.values() for entry in clips)
    for name, clips in lists.items():
        for entry in clips:
            split = (entry.split or "no split") if divided else Path(name).stem
            found.setdefault(split, []).append(entry)
    return found


def separation_row(one: Separation) -> dict[str, Any]:
    """Return a row of the table that goes beside a detector's results.

    Args:
        one: a method's.
    """
    return {
        "method": one.method,
        "fake": one.fakes,
        "real": one.reals,
        "AUC": one.auc,
        "from": one.low,
        "to": one.high,
        "either sign": one.found,
        "ties": one.ties,
        "real (s)": one.median_real,
        "fake (s)": one.median_fake,
        "verdict": one.verdict,
    }


def offsets_png(audit: Audit, entries: Sequence[ClipEntry]) -> bytes:
    """Return a PNG: the AUC of each method with its interval, and the offsets of both classes.

    Args:
        audit: of the clips.
        entries: the clips.
    """
    shown = [one for one in audit.separations if one.fakes and one.reals][: _SHOWN + 1]
    offsets = [
        np.array([e.offset for e in entries if e.offset is not None and e.entire == k])
        for k in (0, 1)
    ]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for place, one in enumerate(shown):
            reach = [[max(0, one.auc - one.low)], [max(0, one.high - one.auc)]]
            left.errorbar(one.auc, place, xerr=reach, fmt="o", color=PALETTE[3], capsize=3)
        left.axvline(0.5, color="0.6", linewidth=1)
        left.set(xlim=(-0.03, 1.03), xlabel="AUC of the offset; 0.5 tells nothing")
        left.set_yticks(range(len(shown)), [one.method for one in shown])
        left.invert_yaxis()
        everything = np.concatenate(offsets)
        middle = float(np.median(everything))
        low, high = np.quantile(everything, [0.005, 0.995]).clip(middle - 0.5, middle + 0.5)
        bins = np.linspace(low - 2e-3, high + 2e-3, 61).tolist()
        for values, name, colour in zip(
            offsets, ("real", "fake"), (PALETTE[0], PALETTE[3]), strict=True
        ):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                right.hist(
                    values.clip(bins[0], bins[-1]),
                    bins,
                    weights=weights,
                    alpha=0.6,
                    label=name,
                    color=colour,
                )
        right.set(xlabel="sound - picture in s (ends: and beyond)", ylabel="share")
        right.locator_params(axis="x", nbins=5)
        right.legend()

    return figure_png(draw, width=9.0, height=max(3.2, 1.4 + 0.28 * len(shown)))


def _metrics(audit: Audit, leaks: Sequence[Leak], faults: Sequence[str]) -> dict[str, Any]:
    overall = audit.overall
    return {
        "auc": overall.auc,
        "auc_low": overall.low,
        "auc_high": overall.high,
        "auc_either_sign": overall.found,
        "by_method": {one.method: one.auc for one in audit.separations[1:]},
        "facts": audit.facts,
        "clips": audit.clips,
        "without_lengths": audit.unknown,
        "balance": audit.balance,
        "left_out": len(faults),
        "shared": [
            {
                "splits": [leak.one, leak.other],
                "people": len(leak.people),
                "genuine_clips": len(leak.sources),
                "files": len(leak.files),
            }
            for leak in leaks
        ],
    }


def _notes_of(audit: Audit) -> list[str]:
    fakes = sum(int(str(row["clips"])) for row in audit.balance if row["label"] == "fake")
    reals = audit.clips - fakes
    notes = [f"classes: {reals} real, {fakes} fake"]
    small, large = sorted((reals, fakes))
    if small and large > 3 * small:
        notes.append(f"1 to {large / small:.0f}: give balanced accuracy and AUC, not accuracy")
    if audit.unknown:
        notes.append(f"{audit.unknown} clips do not state their lengths and are left out")
    for name, auc in list(audit.facts.items())[1:]:
        if not np.isnan(auc) and abs(auc - 0.5) > 0.1:
            notes.append(f"the {name.replace('_', ' ')} alone have an AUC of {auc:.3f}")
    return notes


def _faults(faults: Sequence[str]) -> list[str]:
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return [*(f"left out: {fault}" for fault in faults[:_SHOWN]), *more]


def _sections(
    audit: Audit, entries: Sequence[ClipEntry], leaks: Sequence[Leak], faults: Sequence[str]
) -> list[Section]:
    sections = [
        Section(
            "Sound minus picture",
            "Each method's fakes against all real clips. At 0.5 the lengths tell nothing; a "
            "detector's result is worth what it is better than the distance from there.",
            figure=offsets_png(audit, entries),
            caption="AUC of the offset by method with 95 % intervals, and the offsets",
        ),
        Section(
            "Other facts",
            "AUC of what else lists or headers state, over all clips.",
            rows=[{"fact": k.replace("_", " "), "AUC": v} for k, v in audit.facts.items()],
        ),
        Section("Classes", rows=audit.balance),
    ]
    if leaks:
        rows = [
            {
                "splits": f"{leak.one} and {leak.other}",
                "people": len(leak.people),
                "genuine clips": len(leak.sources),
                "files": len(leak.files),
            }
            for leak in leaks
        ]
        sections.append(Section("What splits share", leaks[0].words, rows=rows))
    if faults:
        sections.append(
            Section(
                "Left out", f"{len(faults)} of lists and files.", rows=[{"what": f} for f in faults]
            )
        )
    return sections
