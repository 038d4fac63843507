"""The recipe of docs/howto/distributed.md: one long prediction as several, one of them killed."""

import csv
import shutil
import subprocess

import pytest
from defi_net.localizer import Localizer
from defi_net.model import DeFINet

pytestmark = pytest.mark.skipif(shutil.which("split") is None, reason="needs GNU split")

SHARE_OUT = r"""
find photos -iname '*.png' | sort > all.txt
split -n r/3 -d all.txt shard-
for list in shard-??; do
    { echo "images:"; sed "s/'/''/g; s/.*/- '&'/" "$list"; } > "$list.yaml"
done
"""
MERGE = "awk 'FNR > 1 || NR == 1' runs/shard-*/predictions.csv > predictions.csv"


def rows_of(path):
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_shards_are_together_the_single_run(call, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    (tmp_path / "photos/p9.png").rename("photos/it's: the last.png")
    DeFINet("hrnet_tiny", 4).save_pretrained("net", size=32, fit="resize")
    given = ("--checkpoint", "net", "--save", "prob")
    assert call("predict", "photos", *given, "--out", "runs/whole") == 0
    subprocess.run(["bash", "-ec", SHARE_OUT], check=True)
    seen = []
    maps = Localizer.maps

    def counted(self, photo, *, label=None):
        seen.append(label)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return maps(self, photo, label=label)

    monkeypatch.setattr(Localizer, "maps", counted)
    killed = ("--config", "shard-00.yaml", *given, "--out", "runs/shard-00")
    assert call("predict", *killed) == 1
    (tmp_path / "runs/shard-00/photographs/.p3_prob-x.png").write_bytes(b"half")  # what kill leaves
    assert call("predict", *killed, "--resume") == 0
    for shard in ("shard-01", "shard-02"):
        more = ("--config", f"{shard}.yaml", "--out", f"runs/{shard}")
        assert call("predict", *more, *given) == 0
    assert len(seen) == 11  # ten, and the one that was killed
    subprocess.run(["bash", "-ec", MERGE], check=True)
    whole = rows_of(tmp_path / "runs/whole/predictions.csv")
    assert rows_of(tmp_path / "predictions.csv") == whole
    assert len(whole) == 10
    for row in whole:
        name = f"photographs/{row['photograph']}_prob.png"
        (shard,) = (tmp_path / "runs").glob(f"shard-*/{name}")
        assert shard.read_bytes() == (tmp_path / "runs/whole" / name).read_bytes()
