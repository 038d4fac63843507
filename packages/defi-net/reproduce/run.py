"""The experiment behind docs/results/defi-net.json: what do DFPL, REAM and SAFF add to an FPN?

Every variant has the same narrow backbone, the same crops in the same order, and the same steps.
The crops are cut out of photographs that training never sees, inpainted by two engines that it sees
and two that it does not; each crop is also judged as it was before. The design was settled before
any run, on other crops and seeds; five of the ten test photographs are new since then. At the end
stand whole photographs that a deep network inpainted. Finished runs are kept in --runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from crops import SEEN, SIZE, UNSEEN, Pictures
from defi_net import __version__
from defi_net.data import InpaintingData
from defi_net.evaluation import judge
from defi_net.lightning import CLAMP, DeFINetModule
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from papercommons.cli import RunOptions
from papercommons.files import write_json
from papercommons.report import describe_device
from papercommons.training import fit, seed_everything
from tables import compared, of_deepfill, of_new_photos, rule, summarize

SEEDS = (0, 1, 2)
BATCH = 8
PLAIN = {"width": 12, "head": "sum"}
FULL = {"width": 12}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of network and of training
    "full": (FULL, {}),
    "FPN": (PLAIN | {"neck": "fpn"}, {"edge_weight": 0.0}),
    "FPN, as large as full": (PLAIN | {"neck": "fpn", "width": 30}, {"edge_weight": 0.0}),
    "U-Net": (PLAIN | {"neck": "unet"}, {"edge_weight": 0.0}),
    "DFPL + sum": (PLAIN, {"edge_weight": 0.0}),
    "full, edge weight 0": (FULL, {"edge_weight": 0.0}),
    "full, official SAFF start": (FULL | {"saff_init": "official"}, {}),
    "full, weighted BCE": (FULL, {"bce": "weighted"}),
}
EVERYTHING = "every pixel"  # called forged
NOTES = (
    "Means over seeds ± standard deviation (crops, weights and order of training change with the "
    "seed; the test crops do not). F1 of forged pixels at 0.5, one value per crop; engines count "
    "the same. boundary f1: within 5 pixels of the edge; false alarms: share of pixels called "
    "forged in the crops as they were. No recipe was tuned for a single variant."
)


def judged(predict: Callable[[np.ndarray], np.ndarray], pictures: Pictures) -> list[dict[str, Any]]:
    """Return one row per test crop and whole photograph."""
    kinds = dict.fromkeys(SEEN, "seen") | dict.fromkeys(UNSEEN, "unseen")
    rows = []
    for (engine, photos), samples in pictures.test().items():
        about = {"engine": engine, "kind": kinds.get(engine, engine), "photos": photos}
        for row in judge(predict, samples, protocols=["imdl"]):
            names = {"crop": row["name"], "name": f"{engine}/{row['name']}"}
            rows.append(row | about | names)
    return rows


def do(options: argparse.Namespace, seed: int, name: str) -> None:
    """Train and judge one variant with one seed, if that is not done yet."""
    file = run_file(options, name, seed)
    if file.is_file():
        return
    torch.set_num_threads(options.threads)
    pictures = Pictures(options.runs / "pictures", options.data, quick=options.quick)
    seed_everything(seed)
    started = time.process_time()
    parameters = 0
    if name == EVERYTHING:
        rows = judged(lambda photo: np.ones(photo.shape[:2], np.float32), pictures)
    else:
        of_network, of_training = VARIANTS[name]
        network = DeFINet("hrnet_tiny", **of_network)
        module = DeFINetModule(network, lr=4e-3, schedule="cosine", **of_training)
        data = InpaintingData(
            str(pictures.train(seed)),
            size=SIZE,
            batch_size=BATCH,
            augment="none",
            val_fraction=0,
            seed=seed,
        )
        run = RunOptions(seed=seed, accelerator=options.accelerator, trainer=CLAMP)
        fit(module, data, epochs=1, run=run)
        parameters = sum(p.numel() for p in network.parameters())
        device = "cuda" if options.accelerator == "gpu" else "cpu"
        rows = judged(Localizer(network, way="whole", device=device), pictures)
        network.save_pretrained(file.with_suffix(""))
    seconds = time.process_time() - started
    of_run = {"variant": name, "seed": seed, "parameters": parameters, "seconds": seconds}
    write_json(file, of_run | {"rows": rows})
    scores = [row["imdl_f1"] for row in rows if "imdl_f1" in row and row["engine"] != "deepfill"]
    print(f"{name}, seed {seed}: F1 {fmean(scores):.4f}, {seconds:.0f} s", flush=True)


def run_file(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Return where a run is kept."""
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return Path(options.runs, f"{plain}-{seed}.json")


def main() -> None:
    """Do what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with deepfillv2_places2/ and photos_with_masks/",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/defi-net-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--only", help="names of variants, semicolon-separated")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of 0, 1, 2, the first ones")
    parser.add_argument("--quick", action="store_true", help="few steps and crops, seed 0")
    options = parser.parse_args()
    options.runs = options.runs / ("quick" if options.quick else "all")
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = SEEDS[:1] if options.quick else SEEDS[: options.seeds]
    wanted = options.only.split(";") if options.only else list(VARIANTS)
    for name in wanted:
        if name not in VARIANTS:
            parser.error(f"--only: no {name!r}; there are {'; '.join(VARIANTS)}")
    pictures = Pictures(options.runs / "pictures", options.data, quick=options.quick)
    pictures.make(seeds)
    tasks = [(seeds[0], EVERYTHING)]
    tasks += [(seed, name) for seed in seeds for name in wanted]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(do, options, *task) for task in tasks]:
            future.result()
    files = [run_file(options, name, seed) for name in (*VARIANTS, EVERYTHING) for seed in SEEDS]
    kept = [json.loads(file.read_text()) for file in files if file.is_file()]
    rows = summarize(kept)
    device = torch.device("cuda" if options.accelerator == "gpu" else "cpu")
    write_json(
        options.out,
        {
            "package": "defi-net",
            "version": __version__,
            "command": "nox -s reproduce -- defi-net --data INPAINTING",
            "rows": rows,
            "compared": compared(kept),
            "rule": rule(rows),
            "photos": of_new_photos(kept),
            "deepfill": of_deepfill(kept),
            "settings": {
                "seeds": list(seeds),
                "crop": SIZE,
                "batch": BATCH,
                "steps": pictures.counts["train"] // BATCH,
                "test crops per engine": pictures.counts["test"],
                "engines": {"training": SEEN, "unseen": UNSEEN},
                "backbone": "hrnet_tiny",
                "variants": {name: [*of] for name, of in VARIANTS.items()},
                "recipe": "Adam, warm-up and cosine, peak 4e-3, gradient clamped to 0.5; 5 x mask "
                "+ edge; no augmentation; the last step's network",
                "data": "scaled by 0.6 to 1, sensor noise of 2 to 6 grey levels before inpainting, "
                "free-form masks over 2 to 40 %, radius 5, PNG",
            },
            "hardware": f"{describe_device(device)}, {platform.system()}, one thread per run, "
            f"torch {torch.__version__}, Python {platform.python_version()}",
            "notes": NOTES + f" All runs together: {sum(run['seconds'] for run in kept) / 60:.0f} "
            "CPU minutes of one thread.",
        },
    )


if __name__ == "__main__":
    main()
