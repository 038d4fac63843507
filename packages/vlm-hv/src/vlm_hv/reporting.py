"""Pages that show pairs side by side with what a model said of them; and `vlm-hv-report`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from papercommons.data.word_options import WordOptions
from papercommons.errors import DataError, one_line
from papercommons.files import hash_files, prepare_out
from papercommons.report import Result, Section, write_report

from vlm_hv.cases import Images, open_images
from vlm_hv.findings import read_findings
from vlm_hv.images import PictureOptions, encode, fit
from vlm_hv.options import PACKAGE
from vlm_hv.pictures import pair_png
from vlm_hv.records import LIMITS, Record
from vlm_hv.runs import Run, read_runs

MOST_LINES = 60  # of one explanation


def write_pair_report(
    predictions: Sequence[str],
    data: str,
    out: str,
    count: int,
    overwrite: bool,
    options: WordOptions,
) -> Result:
    """Write a page with the pairs worth a look, and return the result.

    Args:
        predictions: files or folders of runs.
        data: folder of the images.
        out: folder for the page.
        count: most pairs of each group.
        overwrite: empty `out` first.
        options: which images.

    Raises:
        DataError: a file cannot be read, or names an image that is not there.
    """
    runs = read_runs(predictions)
    images = open_images(data, **options.opening())
    settings = {"predictions": list(predictions), "data": data, "out": out, "count": count}
    sections, rows = [], []
    groups = pick(runs[0].records, count)
    if len(runs) > 1:
        groups["the systems disagree"] = disagreements(runs, count)
    for group, records in groups.items():
        rows.append({"group": group, "pairs shown": len(records)})
        for record in records:
            sections.append(pair_section(group, record, runs, images))
    folder = prepare_out(out, settings, overwrite=overwrite)
    result = Result(
        package=PACKAGE,
        command="vlm-hv-report",
        title=f"{runs[0].name}: pairs worth a look, of {len(runs[0].records):,}",
        rows=rows,
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([run.path for run in runs]),
        device="cpu",
        notes=runs[0].notes(),
    )
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def pick(records: Sequence[Record], count: int) -> dict[str, list[Record]]:
    """Return the pairs worth a look: certain and wrong, certain and right, torn, undecided.

    Args:
        records: of one run.
        count: most pairs of each group.
    """

    def certainty(record: Record) -> float:
        return -abs((0.5 if record["score"] is None else record["score"]) - 0.5)

    def group(fits: Callable[[Record], bool]) -> list[Record]:
        return sorted(filter(fits, records), key=certainty)[:count]

    if all(record["label"] is not None for record in records):
        found = {
            "most certain of the wrong": group(is_wrong),
            "most certain of the right": group(lambda r: r["prediction"] == _truth(r)),
        }
    else:
        found = {
            "most certain of one writer": group(lambda r: r["prediction"] == "same"),
            "most certain of two writers": group(lambda r: r["prediction"] == "different"),
        }
    found["the two orders disagree"] = group(lambda r: r.get("order_agrees") is False)
    found["no decision"] = group(lambda r: r["prediction"] == "unknown")
    return found


def disagreements(runs: Sequence[Run], count: int) -> list[Record]:
    """Return pairs of the first run on which systems decided differently, most torn first.

    Args:
        runs: over the same pairs, see `read_runs`.
        count: most pairs.
    """
    said = [
        {run.records[place]["prediction"] for run in runs} - {"unknown"}
        for place in range(len(runs[0].records))
    ]
    torn = [record for record, all_ in zip(runs[0].records, said, strict=True) if len(all_) > 1]
    return torn[:count]


def is_wrong(record: Record) -> bool:
    """Return whether a decision was made, and another than the label's."""
    return record["prediction"] not in ("unknown", _truth(record))


def _truth(record: Record) -> str | None:
    return None if record["label"] is None else "same" if record["label"] else "different"


def pair_section(group: str, record: Record, runs: Sequence[Run], images: Images) -> Section:
    """Return the part of a page on one pair.

    Args:
        group: why it is shown.
        record: of the first run.
        runs: all of them; what the others say of the pair stands in the text.
        images: gives the images.

    Raises:
        DataError: an image is not there.
    """
    options = sent_as(record)
    known, questioned = (
        images.read(images.find(f"pair {record['pair'] + 1}", record[side])[0])
        for side in ("known", "questioned")
    )
    findings, _ = read_findings(record.get("findings") or [])
    lines = [f"Verdict: {describe(record)}"]
    lines += [
        f"{run.name}: {describe(other)}"
        for run in runs[1:]
        for other in run.records
        if other["pair"] == record["pair"]
    ]
    if _differs(record, known, options):
        lines.append(
            "The picture differs from what was sent: another image, or another version of Pillow."
        )
    explanation = str(record.get("explanation") or "")
    spoken = [line for line in explanation.splitlines() if line.strip()][:MOST_LINES]
    rows: list[dict[str, Any]] = [
        {"no.": number, "feature": f.feature, "known": f.known, "questioned": f.questioned}
        for number, f in enumerate(findings, 1)
    ]
    if findings:
        lines += spoken
    return Section(
        f"{group.capitalize()}: {record['known']} and {record['questioned']}",
        " ".join(lines),
        figure=pair_png(known, questioned, options, findings),
        caption="Known sample on the left, questioned sample on the right",
        rows=rows or [{"explanation": line} for line in spoken],
    )


def describe(record: Record) -> str:
    """Return what was decided on a pair, and the truth if known, in one sentence."""
    verdict = {"same": "same writer", "different": "different writers"}
    said = verdict.get(record["prediction"], "no decision")
    score = "" if record["score"] is None else f", score {record['score']:.3f}"
    truth = _truth(record)
    told = "" if truth is None else f"; in truth {verdict[truth]}"
    failed = [str(o.get("failure")) for o in record["opinions"] if o.get("failure")]
    why = f" Failed: {one_line(failed[0])}." if failed else ""
    return f"{said}{score}{told}.{why}"


def sent_as(record: Record) -> PictureOptions:
    """Return how the pictures of a record were sent.

    Raises:
        DataError: the settings make no sense.
    """
    names = {field.name for field in fields(PictureOptions)} & record["settings"].keys()
    try:
        return PictureOptions(**{name: record["settings"][name] for name in names})
    except (ValueError, TypeError):
        raise DataError(
            f"pair {record['pair'] + 1}: min_side, max_side, border and layout of its settings are "
            "not those of a run; give a file of vlm-hv-predict"
        ) from None


def _differs(record: Record, known: Any, options: PictureOptions) -> bool:
    """Return whether the known sample is not the picture whose hash was noted."""
    noted = record.get("images") or [{}]
    if record["settings"].get("ablation") != "none" or options.layout == "concat":
        return False
    digest = noted[0].get("sha256")
    return digest is not None and digest != encode(fit(known, options), "").sha256
