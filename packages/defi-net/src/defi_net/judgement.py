"""What a network says about photographs of known truth, as a table, a report and a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papercommons.errors import counted
from papercommons.files import write_csv
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.localization import Protocol
from papercommons.metrics.tables import Summary
from papercommons.report import Result, Section, write_report

from defi_net.calibration import ImageThreshold
from defi_net.evaluation import (
    Point,
    Row,
    curves,
    detection,
    means,
    metric_columns,
    undistorted,
)
from defi_net.layouts import Sample
from defi_net.localizer import Localizer
from defi_net.pictures import means_png, metric_name, panels_png, robustness_png, scores_png
from defi_net.reading import read_sample

Curves = dict[str, list[Point]]
SHOWN = ("f1_best", "f1_fixed", "f1", "iou", "false_positive_rate")
BEST, MIDDLE, WORST = "the best", "in the middle", "the worst"


@dataclass
class Judgement:
    """Rows of `defi_net.evaluation.judge` and what follows from them.

    Attributes:
        rows: one per photograph and distortion.
        summaries: means with intervals, of all and by group.
        detection: how well photographs as a whole are told apart.
        protocol: the one shown in the table; the report has all.
        by: column that groups, or None.
        image: threshold for whole photographs.
        curves: measure -> how it depends on distortions.
    """

    rows: list[Row]
    summaries: list[Summary]
    detection: dict[str, Estimate]
    protocol: Protocol
    by: str | None
    image: ImageThreshold
    curves: dict[str, Curves]

    @classmethod
    def of(
        cls,
        rows: list[Row],
        protocols: Sequence[Protocol],
        image: ImageThreshold,
        *,
        by: str | None = "method",
        draws: int = 1000,
        seed: int = 0,
    ) -> Judgement:
        """Return the judgement of rows.

        Args:
            rows: of `defi_net.evaluation.judge`.
            protocols: by which they were judged.
            image: threshold for whole photographs.
            by: column that groups, or None.
            draws: resamples of sources for the intervals.
            seed: of the resampling.
        """
        protocol: Protocol = "imdl" if "imdl" in protocols else protocols[0]
        wanted = [f"{protocol}_{name}" for name in ("f1", "f1_best", "false_positive_rate")]
        there = metric_columns(rows)
        return cls(
            rows,
            means(rows, by=by, draws=draws, seed=seed),
            detection(rows, threshold=image.value, draws=draws, seed=seed),
            protocol,
            by,
            image,
            curves_of(rows, [name for name in wanted if name in there], seed),
        )

    def shown(self) -> list[str]:
        """Return the measures of the table, by their columns."""
        there = metric_columns(self.rows)
        wanted = [f"{self.protocol}_{name}" for name in SHOWN]
        wanted[-1:-1] = ["auc", "boundary_f1"]
        return [name for name in wanted if name in there]

    def table(self) -> list[Row]:
        """Return one row per group: how many photographs, and the means shown."""
        clean = undistorted(self.rows)
        found: list[Row] = []
        for group in dict.fromkeys(s.group for s in self.summaries):
            members = [r for r in clean if group == "all" or str(r.get(self.by or "")) == group]
            values = {s.metric: s.value for s in self.summaries if s.group == group}
            row: Row = {self.by or "": group, "photographs": len(members)}
            found.append(row | {metric_name(n): values.get(n) for n in self.shown()})
        return found

    def numbers(self) -> dict[str, Any]:
        """Return every mean by group and measure, and the measures of whole photographs."""
        groups: dict[str, dict[str, Any]] = {}
        for s in self.summaries:
            groups.setdefault(s.group, {})[s.metric] = {
                "value": s.value,
                "interval": [s.low, s.high],
                "photographs": s.images,
                "undefined": s.undefined,
            }
        whole = {
            name: {"value": e.value, "interval": [e.low, e.high]}
            for name, e in self.detection.items()
        }
        return {
            "means": groups,
            "image_level": whole,
            "image_threshold": self.image._asdict(),
            "robustness": {
                metric: {kind: [p._asdict() for p in members] for kind, members in points.items()}
                for metric, points in self.curves.items()
            },
            "sources": len({row["source"] for row in self.rows}),
        }

    def notes(self) -> list[str]:
        """Return what must be known beside the table, a line each."""
        clean = undistorted(self.rows)
        forged = sum(row["label"] for row in clean)
        sources = len({row["source"] for row in clean})
        lines = [
            f"{forged} forged and {len(clean) - forged} authentic photographs of "
            + counted(sources, "source")
        ]
        undefined = [s for s in self.summaries if s.group == "all" and s.undefined]
        if undefined:
            words = ", ".join(f"{metric_name(s.metric)} of {s.undefined}" for s in undefined)
            lines.append(f"undefined, and left out of the means: {words} photographs")
        if self.protocol != "imdl":
            lines.append(f"protocol {self.protocol}: {ABOUT[self.protocol]}")
        lines.append(f"whole photographs are called forged above {self.image}")
        return lines

    def sections(self, *middle: Section) -> list[Section]:
        """Return the pictures and tables of a report.

        Args:
            *middle: others, to stand before the long table.
        """
        drawn = [name for name in self.shown() if not name.endswith("_iou")]
        return [
            Section(
                f"By {self.by}" if self.by else "Means",
                figure=means_png(self.summaries, drawn),
                caption="Means over photographs, 95 % intervals over sources.",
            ),
            *self._after_distortions(),
            self._whole(),
            *middle,
            self._measures(),
        ]

    def _measures(self) -> Section:
        protocols = [p for p in ABOUT if any(s.metric.startswith(p) for s in self.summaries)]
        return Section(
            "All measures",
            text=" ".join(ABOUT[protocol] for protocol in protocols),
            rows=[
                {
                    self.by or "group": s.group,
                    "measure": metric_name(s.metric),
                    "mean": s.value,
                    "95 % low": s.low,
                    "95 % high": s.high,
                    "photographs": s.images,
                    "undefined": s.undefined,
                }
                for s in self.summaries
            ],
        )

    def _whole(self) -> Section:
        clean = undistorted(self.rows)
        scores, forged = [r["score"] for r in clean], [r["label"] for r in clean]
        return Section(
            "Photographs as a whole",
            text=f"Called forged above {self.image}.",
            figure=scores_png(scores, forged, self.image.value),
            caption="Scores of photographs.",
            rows=[
                {
                    "measure": name.replace("_", " "),
                    "value": e.value,
                    "95 % low": e.low,
                    "95 % high": e.high,
                }
                for name, e in self.detection.items()
            ],
        )

    def _after_distortions(self) -> list[Section]:
        return [
            Section(
                f"After distortions: {metric_name(metric)}",
                figure=robustness_png(points, metric),
                caption="Means with 95 % intervals; dashed: photographs as they are.",
                rows=[
                    {
                        "distortion": kind,
                        "strength": None if kind == "none" else p.strength,
                        metric_name(metric): p.value,
                        "95 % low": p.low,
                        "95 % high": p.high,
                    }
                    for kind, members in points.items()
                    for p in members
                ],
            )
            for metric, points in self.curves.items()
        ]


def curves_of(rows: list[Row], metrics: Sequence[str], seed: int) -> dict[str, Curves]:
    """Return how measures depend on distortions; nothing where there are none.

    Args:
        rows: of `defi_net.evaluation.judge`.
        metrics: columns; and the AUC of photographs, where both kinds are there.
        seed: of the resampling.
    """
    clean = undistorted(rows)
    if len(clean) == len(rows):
        return {}
    both = len({row["label"] for row in clean}) == 2
    wanted = [*metrics, *(["image_auc"] if both else [])]
    return {metric: curves(rows, metric, seed=seed) for metric in wanted}


ABOUT = {
    "official": "official: the map of each photograph is stretched to [0, 1] first, forged at or "
    "above the threshold; the published evaluation's rule.",
    "imdl": "imdl: forged above the threshold, forged photographs only; IMDL-BenCo's rule.",
    "trufor": "trufor: pixels near the edge do not count, and the better of the map and its "
    "complement does: it flatters.",
}


def example_sections(
    localizer: Localizer, samples: Sequence[Sample], rows: Sequence[Row], **reading: Any
) -> list[Section]:
    """Return pictures of the best, middle and worst forged photographs, and of the worst authentic.

    Args:
        localizer: gives the maps anew.
        samples: all that were judged.
        rows: their rows.
        **reading: of `defi_net.reading.read_sample`.
    """
    by_name = {sample.name: sample for sample in samples}
    measures = ("imdl_f1", "official_f1", "trufor_f1_fixed")
    measure = next((name for name in measures if any(name in row for row in rows)), "")
    clean = undistorted(list(rows))
    forged = sorted((r for r in clean if r["label"]), key=lambda r: r[measure])
    authentic = sorted((r for r in clean if not r["label"]), key=lambda r: r["score"])
    chosen = {}
    if forged:
        chosen = {BEST: forged[-1], MIDDLE: forged[len(forged) // 2], WORST: forged[0]}
    if authentic:
        chosen["authentic, the most suspicious"] = authentic[-1]
    sections = []
    for which, row in chosen.items():
        sample = by_name[row["name"]]
        photo, mask = read_sample(sample, **reading)
        edge, probability = localizer.maps(photo)
        says = f"{metric_name(measure)} {row[measure]:.2f}" if row["label"] else ""
        sections.append(
            Section(
                f"Example: {which}",
                figure=panels_png(photo, probability, mask=mask, edge=edge, says=says),
                caption=f"{row['name']} ({row['method']}). The outline is the truth.",
            )
        )
    return sections


def write_judgement(
    folder: Path, result: Result, found: Judgement, sections: Sequence[Section]
) -> None:
    """Write items.csv, report.html and result.json.

    Args:
        folder: of the run.
        result: gets the files' names.
        found: the judgement.
        sections: all of the report.
    """
    write_csv(folder / "items.csv", found.rows)
    result.files["items"] = str(folder / "items.csv")
    write_report(folder / "report.html", result, sections)
    result.save(folder)
