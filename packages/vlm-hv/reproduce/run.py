"""The experiment behind docs/results/vlm-hv.json: do pictures reach the model, and does it learn?

Three parts. `learning`: a tiny PaliGemma memorises 32 real pairs, and falls to guessing where the
pictures are blank or those of other pairs. `tiny`: the same architecture is trained on thousands of
pairs of training writers and judged, with its controls, on the published pairs of unseen writers,
beside HOG, GSC and a ResNet-18 on the very same pairs. `generate`: verdicts from the logits against
generated answers. Calibration comes from held-out training writers only. Finished runs are kept in
--runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions, RunOptions
from papercommons.data.pairs import read_pairs
from papercommons.data.word_options import WordOptions
from papercommons.files import write_json
from papercommons.metrics.verification import pair_weights
from papercommons.report import describe_device
from papercommons.training import fit, seed_everything
from vlm_hv import __version__, prompts
from vlm_hv.baselines import run_baseline
from vlm_hv.cases import from_pairs
from vlm_hv.data import PairData, ablate_pairs
from vlm_hv.evaluation import Judged, judge_run
from vlm_hv.images import PictureOptions
from vlm_hv.lightning import VLMHVModule
from vlm_hv.local import LocalModel
from vlm_hv.modes import AskOptions
from vlm_hv.options import PACKAGE
from vlm_hv.pairing import make_pair_file
from vlm_hv.pairs import draw_pairs
from vlm_hv.records import read_records
from vlm_hv.running import run_cases
from vlm_hv.runs import read_runs
from vlm_hv.scoring import answer_difference, last_logits
from vlm_hv.tiny import tiny_paligemma
from vlm_hv.verifier import VLMVerifier
from vlm_hv.vision_pretraining import teach_tower

SEEDS = (0, 1, 2)
BASELINES: dict[str, dict[str, int]] = {
    "hog": {"max_pairs": 20_000},
    "gsc": {"max_pairs": 20_000},
    "resnet18": {"max_pairs": 8_000, "epochs": 3},
}
SIZE = {"size": 64, "patch_size": 16, "width": 64, "layers": 2}
TRAIN = {"max_pairs": 40_000, "batch_size": 64}
TOWER_STEPS, LR = 400, 3e-3
MEMORISED, MEMORY_EPOCHS = 32, 100
VAL = 1000  # pairs to calibrate on
JUDGED = 1000  # of the published pairs of unseen writers, half of each kind, drawn once
PAIRS = "pairs.csv"
PICTURES = PictureOptions(min_side=0, border=0)
CONTROLS = ("blank", "shuffle")  # PaliGemma takes no prompt without pictures
NAMES = {"tiny": "tiny PaliGemma", "random-tower": "the same, its tower not taught to see"}
COMPARED = ("hog", "gsc", "resnet18", "random-tower")  # each against tiny, settled before any run
NOTES = (
    "Means over seeds ± standard deviation. Intervals are over test writers, the seeds averaged "
    "inside each resample. A pair without a decision counts as wrong. Calibration, and with it the "
    "threshold, comes from pairs of held-out training writers."
)


class Study:
    """One process's share of the runs.

    Args:
        options: of the command line.
        seed: of the run.
    """

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self.options, self.seed = options, seed
        trainer = {"gradient_clip_val": 1.0}
        trainer |= {"limit_train_batches": 20} if options.quick else {}
        self.run = RunOptions(seed=seed, accelerator="cpu", trainer=trainer)

    def data(self, verifier: VLMVerifier, **options: Any) -> PairData:
        """Return the pairs as prompts of a model."""
        return PairData(self.options.data, verifier.prompt, seed=self.seed, **options)

    def learning(self, folder: Path) -> list[dict[str, Any]]:
        """Memorise a few pairs, then take the pictures away."""
        verifier = VLMVerifier(*tiny_paligemma(seed=self.seed))
        data = self.data(verifier, max_pairs=MEMORISED, batch_size=MEMORISED)
        data.val_dataloader = lambda: []  # type: ignore[method-assign, assignment, return-value]
        module = VLMHVModule(verifier, tune="full", lr=1e-3, warmup=0.1)
        fit(module, data, epochs=5 if self.options.quick else MEMORY_EPOCHS, run=self.run)
        pairs = data.pairs["train"]
        shown = {"as they are": [(data.images, pairs)]}
        shown["blank"] = [ablate_pairs(data.images, pairs, "blank")]
        shown["of other pairs"] = [
            ablate_pairs(data.images, pairs, "shuffle", seed=draw) for draw in range(8)
        ]
        rows = []
        for pictures, draws in shown.items():
            found = []
            for images, some in draws:
                odds = verifier.score(images[some.left], images[some.right], swap=True).mean(0)
                found.append(float(((odds >= 0) == some.same).mean()))
            rows.append({"pictures": pictures, "accuracy": fmean(found)})
        return rows

    def tiny(self, folder: Path, *, taught: bool) -> list[dict[str, Any]]:
        """Train on thousands of pairs, calibrate, save, and ask about the unseen writers' pairs."""
        verifier = VLMVerifier(*tiny_paligemma(**SIZE, seed=self.seed))
        short = {"max_pairs": 2000} if self.options.quick else {}
        data = self.data(verifier, **(TRAIN | short))
        if taught:
            teach_tower(verifier, data, self.run, steps=TOWER_STEPS)
        module = VLMHVModule(verifier, tune="full", lr=LR)
        if taught:
            verifier.model.model.vision_tower.requires_grad_(False)
        fit(module, data, epochs=1, run=self.run)
        verifier.eval()
        val = draw_pairs(data.pairs["val"], 200 if self.options.quick else VAL, seed=self.seed)
        test = read_pairs(self.options.runs / PAIRS, data.words)
        odds = verifier.score(data.images[val.left], data.images[val.right], swap=True).mean(0)
        verifier.calibrate(odds, val.same)
        export = verifier.save_pretrained(
            folder / "export", made_by="reproduce", data_hash=data.words.digest
        )
        backend = LocalModel(export, device="cpu", batch_size=32)
        asked = {"predictions_val": (val, "none"), "predictions": (test, "none")}
        asked |= {f"predictions_{control}": (test, control) for control in CONTROLS if taught}
        for name, (pairs, control) in asked.items():
            run_cases(
                from_pairs(pairs, data.words),
                backend,
                prompts.load("forensic_v1"),
                AskOptions(mode="logprob", swap=True, seed=self.seed),
                out=folder / f"{name}.jsonl",
                options=PICTURES,
                ablation=control,  # type: ignore[arg-type]
                batch_size=32,
                overwrite=True,
            )
        return []

    def baseline(self, folder: Path, *, kind: Any) -> list[dict[str, Any]]:
        """Train a baseline and ask it about the same pairs."""
        length = BASELINES[kind] | ({"max_pairs": 500} if self.options.quick else {})
        run_baseline(
            self.options.data,
            kind,
            pairs=str(self.options.runs / PAIRS),
            split="test",
            limit=None,
            preset="quick",
            epochs=length.get("epochs"),
            max_pairs=length["max_pairs"],
            out=str(folder),
            words=WordOptions(),
            run=ComputeOptions(seed=self.seed, accelerator="cpu", overwrite=True),
        )
        return []

    def generate(self, folder: Path) -> list[dict[str, Any]]:
        """Compare verdicts from the logits with generated answers, one by one and in batches."""
        verifier = VLMVerifier.from_pretrained(folder.with_name(f"tiny-{self.seed}"), device="cpu")
        data = self.data(verifier)
        pairs = read_pairs(self.options.runs / PAIRS, data.words)
        few = pairs.take(np.arange(min(200, len(pairs))))
        return [verdicts(verifier, data.images, *how) for how in ((few, 1), (pairs, 16))]


@torch.inference_mode()
def verdicts(
    verifier: VLMVerifier, images: np.ndarray, pairs: Any, batch_size: int
) -> dict[str, Any]:
    """Return how often both ways agree, and what each takes, from pictures to verdict."""
    model, (yes, no) = verifier.model, verifier.tokens
    agree, seconds = 0, {"logits": 0.0, "generate": 0.0}
    for start in range(0, len(pairs), batch_size):
        some = pairs.take(np.arange(start, min(start + batch_size, len(pairs))))
        found: dict[str, torch.Tensor] = {}
        for way in seconds:
            begun = time.process_time()
            inputs = verifier.prompt.encode(images[some.left], images[some.right])
            if way == "logits":
                odds = answer_difference(last_logits(model, inputs)[:, 0], verifier.tokens)
                found[way] = torch.where(odds > 0, yes, no)
            else:
                made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
                found[way] = made[:, inputs["input_ids"].shape[1]]
            seconds[way] += time.process_time() - begun
        agree += int((found["logits"] == found["generate"]).sum())
    return {
        "pairs": len(pairs),
        "at a time": batch_size,
        "equal verdicts": agree,
        **{f"{way}, ms per pair": 1e3 * value / len(pairs) for way, value in seconds.items()},
        "generate / logits": seconds["generate"] / seconds["logits"],
    }


def jobs() -> Iterator[tuple[str, Callable[..., list[dict[str, Any]]]]]:
    """Give every run of one seed by name, in an order in which what is needed comes first."""
    yield "tiny", partial(Study.tiny, taught=True)
    for kind in BASELINES:
        yield kind, partial(Study.baseline, kind=kind)
    yield "learning", Study.learning
    yield "random-tower", partial(Study.tiny, taught=False)


def do(options: argparse.Namespace, seed: int, name: str) -> None:
    """Do the named run of one seed, if it is not done yet."""
    folder = options.runs / f"{name}-{seed}"
    file = folder.with_suffix(".json")
    if file.is_file():
        return
    torch.set_num_threads(1)
    seed_everything(seed)
    started = time.process_time()
    work = dict(jobs()) | {"generate": Study.generate}
    rows = work[name](Study(options, seed), folder)
    write_json(file, {"rows": rows, "seconds": time.process_time() - started})
    print(name, seed, f"{time.process_time() - started:.0f} s", flush=True)


def judged(runs: Path, name: str, seeds: Sequence[int]) -> list[Judged]:
    """Return what the runs of a system come to, one per seed that is there."""
    folders = [runs / f"{name}-{seed}" for seed in seeds]
    return [
        judge_run(
            read_runs([str(folder)])[0], read_records(folder / "predictions_val.jsonl"), draws=10
        )
        for folder in folders
        if folder.with_suffix(".json").is_file()
    ]


def mean(values: Iterable[float]) -> float | None:
    """Return the mean over the seeds that have a value; a baseline has no order, for example."""
    known = [value for value in values if value == value]
    return fmean(known) if known else None


def spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Return the cells of a mean and its deviation over seeds."""
    return {name: fmean(values), f"{name} std": stdev(values) if len(values) > 1 else None}


def right(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return which pairs are decided rightly, float64, (P,)."""
    return np.array([float(r["prediction"] == ("different", "same")[r["label"]]) for r in records])


def over_writers(
    gains: np.ndarray, records: Sequence[dict[str, Any]], *, balanced: bool = False
) -> dict[str, float]:
    """Return the 95 % interval of a mean over pairs, writers resampled.

    Where it is `balanced`, both kinds of pair weigh the same in every resample that has both.
    """
    left, other = zip(*(record["writers"] for record in records), strict=True)
    weights = pair_weights(left, other, draws=2000, seed=0).astype(np.float64)
    same = np.array([record["label"] for record in records], bool)
    for kind in (same, ~same) if balanced else ():
        weights = weights[weights[:, kind].sum(1) > 0]
        weights[:, kind] /= weights[:, kind].sum(1, keepdims=True)
    low, high = np.quantile(weights @ gains / weights.sum(1), [0.025, 0.975])
    return {"95 % low": float(low), "95 % high": float(high)}


def systems(found: dict[str, list[Judged]]) -> list[dict[str, Any]]:
    """Return one row per system."""
    rows: list[dict[str, Any]] = []
    for name, runs in found.items():
        records = runs[0].run.records
        gains = np.mean([right(one.run.records) for one in runs], axis=0)
        accounts = [one.account for one in runs]
        rows.append(
            {"system": NAMES.get(name, name), "seeds": len(runs)}
            | spread("accuracy", [a.over_all["accuracy"].value for a in accounts])
            | over_writers(gains, records)
            | {"of answered": mean(a.over_answered["accuracy"].value for a in accounts)}
            | {"coverage": fmean(a.coverage.value for a in accounts)}
            | spread("AUC", [a.scores["auc"].value for a in accounts])
            | spread("EER", [a.scores["eer"].value for a in accounts])
            | spread("Cllr", [one.calibrated["cllr"].value for one in runs])
            | {"orders disagree": mean(a.order_disagreement.value for a in accounts)}
        )
    return sorted(rows, key=lambda row: -row["AUC"])


def differences(found: dict[str, list[Judged]]) -> list[dict[str, Any]]:
    """Return how much more accurate the tiny model is than each other, over test writers."""
    rows = []
    for name in COMPARED:
        if not (found.get("tiny") and found.get(name)):
            continue
        ours, theirs = (
            np.mean([right(one.run.records) for one in found[key]], axis=0)
            for key in ("tiny", name)
        )
        gain = ours - theirs
        row: dict[str, Any] = {"first": NAMES["tiny"], "second": NAMES.get(name, name)}
        row |= {"accuracy gained": float(gain.mean())}
        rows.append(row | over_writers(gain, found["tiny"][0].run.records))
    return rows


def controls(runs: Path, found: Sequence[Judged], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return what is left where the pictures say nothing; a control may answer all pairs alike."""
    rows: list[dict[str, Any]] = []
    for control in CONTROLS if found else ():
        files = [runs / f"tiny-{seed}" / f"predictions_{control}.jsonl" for seed in seeds]
        tables = [read_runs([str(file)])[0].records for file in files if file.is_file()]
        own = np.mean([right(one.run.records) for one in found], axis=0)
        left = np.mean([right(records) for records in tables], axis=0)
        row = {"pictures": control, **spread("accuracy", [float(right(t).mean()) for t in tables])}
        row |= {"lost": float((own - left).mean())}
        rows.append(row | over_writers(own - left, tables[0], balanced=True))
    return rows


def learnt(runs: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the accuracy on the memorised pairs, per kind of pictures."""
    files = [runs / f"learning-{seed}.json" for seed in seeds]
    tables = [json.loads(file.read_text())["rows"] for file in files if file.is_file()]
    return [
        {"pictures": rows[0]["pictures"], **spread("accuracy", [row["accuracy"] for row in rows])}
        for rows in zip(*tables, strict=True)
    ]


def main() -> None:
    """Do what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--data", required=True, help="CEDAR AND, packed or original")
    parser.add_argument("--runs", type=Path, default=Path("runs/vlm-hv-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", help="names of runs that begin so, comma-separated")
    parser.add_argument("--quick", action="store_true", help="few pairs, seed 0; needs own --runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = SEEDS[:1] if options.quick else SEEDS
    wanted = tuple(options.only.split(",")) if options.only else ("",)
    names = [name for name, _ in jobs() if name.startswith(wanted)]
    if not (options.runs / PAIRS).is_file():
        count, file = 200 if options.quick else JUDGED, str(options.runs / PAIRS)
        make_pair_file(options.data, file, "test", 1.0, None, count, 0, WordOptions())
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(do, options, seed, name) for name in names for seed in seeds]:
            future.result()
    if (options.runs / "tiny-0.json").is_file():
        do(options, 0, "generate")  # alone, as it is timed
    found = {n: judged(options.runs, n, seeds) for n, _ in jobs() if n != "learning"}
    found = {name: runs for name, runs in found.items() if runs}
    kept = [json.loads(file.read_text()) for file in sorted(options.runs.glob("*.json"))]
    generated = options.runs / "generate-0.json"
    write_json(
        options.out,
        {
            "package": PACKAGE,
            "version": __version__,
            "command": "nox -s reproduce -- vlm-hv --data CEDAR",
            "rows": systems(found),
            "compared": differences(found),
            "controls": controls(options.runs, found.get("tiny", []), seeds),
            "learning": learnt(options.runs, seeds),
            "generate": json.loads(generated.read_text())["rows"] if generated.is_file() else [],
            "settings": {
                "tiny": SIZE,
                "tower_steps": TOWER_STEPS,
                "training": {**TRAIN, "epochs": 1, "lr": LR, "tower": "frozen after its start"},
                "baselines": BASELINES,
                "memorised_pairs": MEMORISED,
                "memory_epochs": MEMORY_EPOCHS,
                "val_pairs": VAL,
                "judged_pairs": JUDGED,
                "seeds": list(seeds),
                "quick": options.quick,
            },
            "hardware": f"{describe_device(torch.device('cpu'))}, {platform.system()}, one thread "
            f"per run, torch {torch.__version__}, Python {platform.python_version()}",
            "notes": NOTES + f" All runs together: {sum(e['seconds'] for e in kept) / 60:.0f} "
            "minutes of one thread.",
        },
    )


if __name__ == "__main__":
    main()
