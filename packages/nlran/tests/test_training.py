import shutil

import numpy as np
import pytest
import yaml
from nlran.scans import find_scans
from nlran.splits import split_scans
from papercommons.errors import DataError


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("ct", ("--size", "16,16,16", "--batch-size", 17), "pass --norm group"),
        ("broken", (), "cut.nii.gz"),
    ],
)
def test_an_overwrite_that_fails_leaves_the_old_run(
    data, options, message, train_small, run, phantoms, tmp_path, capsys
):
    out, broken = tmp_path / "run", tmp_path / "broken"
    shutil.copytree(run, out)
    for name in ("CP", "NCP"):
        (broken / name).mkdir(parents=True)
        (broken / name / "cut.nii.gz").write_bytes(name.encode())
    before = contents(out)
    place = broken if data == "broken" else phantoms / data
    arguments = ("--data", place, "--split-by", "none", "--out", out, "--overwrite", *options)
    assert train_small(*arguments) == 2
    assert message in capsys.readouterr().err
    assert contents(out) == before


def test_the_data_of_a_run_are_noted_as_they_were_given(train_small, tmp_path):
    sets = {}
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        shape = (count, 28, 28, 28)
        sets[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sets[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "nodule.npz", **sets)
    out = tmp_path / "run"
    assert train_small("--data", tmp_path / "nodule.npz", "--epochs", 1, "--out", out) == 0
    noted = yaml.safe_load((out / "config.yaml").read_text())
    assert noted["data"] == str(tmp_path / "nodule.npz")


def test_only_the_split_by_the_seed_that_is_given_must_hold(train_small, phantoms, tmp_path):
    """Divided by scan, a scan and its copy fall together by one seed and apart by seed 0."""
    data = tmp_path / "ct"
    shutil.copytree(phantoms / "ct", data)
    holds = {}
    for number, scan in enumerate(sorted((data / "CP").iterdir())):
        copy = data / "CP" / f"copy{number}.nii.gz"
        shutil.copy(scan, copy)
        holds = {seed: splits_hold(data, seed) for seed in range(8)}
        if not holds[0]:
            break
        copy.unlink()
    assert not holds[0]
    seed = next(seed for seed, good in holds.items() if good)
    assert train_small("--data", data, "--split-by", "scan", "--seed", seed, "--dry-run") == 0


def splits_hold(data, seed):
    try:
        split_scans(find_scans(data), by="scan", val_fraction=0.1, test_fraction=0.1, seed=seed)
    except DataError:
        return False
    return True
