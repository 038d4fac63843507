import json

import numpy as np
import pytest
from nlran.auditing import audit_scans
from papercommons.errors import DataError
from PIL import Image


def write_set(root, *, blackened=0.0, patients=12, scans=1):
    """Scans without any difference but the share of Normal ones with a black background."""
    random = np.random.default_rng(0)
    for name in ("NCP", "CP", "Normal"):
        for patient in range(patients):
            for scan in range(scans):
                array = random.integers(-900, 300, (6, 16, 16)).astype(np.int16)
                array[0, 0, 0] = -1024
                if name == "Normal" and patient < blackened * patients:
                    array[:, :6] = -1024
                path = root / name / f"{name}{patient}" / f"{scan}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
    return str(root)


@pytest.mark.parametrize("planted", [True, False])
def test_the_warning_follows_a_planted_shortcut(tmp_path, planted):
    """The same scans with and without: two thirds of the Normal ones get a black background."""
    result = audit_scans(write_set(tmp_path, blackened=2 / 3 if planted else 0))
    warnings = [note for note in result.notes if note.startswith("SHORTCUT")]
    assert len(warnings) == planted
    assert all("by background share" in warning for warning in warnings)
    low, high = result.metrics["macro_auc_low"], result.metrics["macro_auc_high"]
    assert low > 0.5 if planted else low < 0.5 < high


def test_the_background_is_told_by_class(tmp_path):
    result = audit_scans(write_set(tmp_path, blackened=1.0, scans=2))
    row = next(row for row in result.rows if row["feature"] == "background share")
    assert row["Normal"].startswith("0.37")
    assert row["NCP"].startswith("0.0006")
    assert row["AUC"] > 0.7
    assert (result.metrics["scans"], result.metrics["patients"]) == (72, 36)


def test_file_formats_give_classes_away(tmp_path):
    write_set(tmp_path, patients=6)
    for patient in range(6):
        folder = tmp_path / "CP" / f"CP{patient}"
        (folder / "0.npy").unlink()
        for number in range(6):
            grey = np.random.default_rng((patient, number)).integers(0, 255, (16, 16))
            Image.fromarray(grey.astype(np.uint8)).save(folder / f"{number}.jpg")
    result = audit_scans(str(tmp_path))
    rows = {row["feature"]: row for row in result.rows}
    assert rows["format"]["CP"] == ".jpg 100%"
    assert rows["values"]["CP"] == "uint8 100%"
    assert rows["values"]["NCP"] == "HU 100%"
    assert rows["values"]["AUC"] > 0.7
    assert rows["stored as"]["CP"] == "L 100%"
    assert rows["stored as"]["NCP"] == "int16 100%"


def test_bit_depth_gives_classes_away(tmp_path):
    write_set(tmp_path, patients=6)
    for file in (tmp_path / "Normal").rglob("*.npy"):
        np.save(file, np.load(file).astype(np.float32))
    result = audit_scans(str(tmp_path))
    row = next(row for row in result.rows if row["feature"] == "stored as")
    assert (row["Normal"], row["CP"]) == ("float32 100%", "int16 100%")
    assert row["AUC"] > 0.7
    assert any(note.startswith("SHORTCUT") and "stored as" in note for note in result.notes)


def test_too_few_patients_are_said_plainly(tmp_path):
    result = audit_scans(write_set(tmp_path, patients=3))
    assert result.metrics["macro_auc"] is None
    assert any("too few patients to judge: NCP has 3" in note for note in result.notes)


def test_patients_are_not_torn_by_the_folds(tmp_path):
    """Each patient has a height of its own: whoever has seen the patient knows the class."""
    random = np.random.default_rng(0)
    for number, height in enumerate(random.permutation(30) + 8):
        name = ("NCP", "CP")[number % 2]
        for scan in range(4):
            array = random.integers(-900, 300, (6, height, 16)).astype(np.int16)
            array[0, 0, 0] = -1024
            path = tmp_path / name / f"{name}{number}" / f"{scan}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    result = audit_scans(str(tmp_path))
    assert result.metrics["macro_auc_low"] < 0.6


def test_copies_and_shared_patients_are_reported_not_refused(tmp_path):
    write_set(tmp_path, patients=5)
    (tmp_path / "CP" / "CP1" / "0.npy").write_bytes((tmp_path / "NCP/NCP0/0.npy").read_bytes())
    result = audit_scans(str(tmp_path))
    assert result.metrics["copies"] == 1
    assert any("1 patients in several classes" in note for note in result.notes)
    assert any("CP/CP1/0.npy = NCP/NCP0/0.npy" in note for note in result.notes)


def test_corrupt_scans(tmp_path):
    write_set(tmp_path, patients=3)
    (tmp_path / "CP" / "CP1" / "0.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"CP/CP1/0\.npy: not readable .*--skip-bad"):
        audit_scans(str(tmp_path))
    result = audit_scans(str(tmp_path), skip_bad=True)
    assert result.metrics["left_out"] == 1
    assert any("1 scan left out, the first CP/CP1/0.npy" in note for note in result.notes)


def test_report_is_written(tmp_path):
    data = write_set(tmp_path / "ct", blackened=1.0, patients=5)
    result = audit_scans(data, out=str(tmp_path / "out"), limit=5, seed=3)
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert saved["metrics"] == json.loads(json.dumps(result.to_dict()["metrics"]))
    assert (saved["seed"], saved["settings"]["limit"]) == (3, 5)
    assert len(saved["data_hash"]) == 16
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "not a medical device" in page
    with pytest.raises(DataError, match="not empty"):
        audit_scans(data, out=str(tmp_path / "out"))
    again = audit_scans(data, out=str(tmp_path / "out"), limit=5, seed=3, overwrite=True)
    assert again.metrics == result.metrics
