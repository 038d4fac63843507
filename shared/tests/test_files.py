from __future__ import annotations

import json
import os
import stat

import pytest
import yaml
from papercommons.errors import DataError
from papercommons.files import (
    atomic_path,
    check_file_out,
    check_out,
    find_saved,
    is_first_process,
    prepare_out,
    write_json,
    write_text,
)

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def _no_ranks(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that began."""
    out = tmp_path / "run"
    prepare_out(str(out), {"lr": 0.1, "method": "rld"})
    (out / "last.ckpt").write_text("weights")
    (out / "export").mkdir()
    (out / "export" / "model").write_text("x")
    return out


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("ranks", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "0", "SLURM_PROCID": "3"}, True),
    ],
)
def test_first_process(ranks, first, monkeypatch):
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


def test_atomic_path_takes_the_place_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "new" / "a.tar.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".gz"
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"
    assert names(path.parent) == ["a.tar.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="no umask")
def test_files_get_the_usual_rights(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_text_is_utf8_with_its_line_ends(tmp_path):
    write_text(tmp_path / "a", "é\n\r\n")
    assert (tmp_path / "a").read_bytes() == "é\n\r\n".encode()


def test_json_is_strict_and_keeps_odd_names(tmp_path):
    value = {"name": "é", "path": os.fsdecode(b"\xff.png")}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_settings_are_noted_and_are_a_config(tmp_path):
    settings = {"out": "é", "lr": 1e-5, "betas": (0.9, 0.99), "none": None, "trainer": {"a": 1}}
    folder = prepare_out(str(tmp_path / "a" / "b"), settings)
    assert folder == tmp_path / "a" / "b"
    noted = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert noted == {"out": "é", "lr": 1e-5, "betas": [0.9, 0.99], "trainer": {"a": 1}}
    assert list(noted) == [name for name in settings if name != "none"]


def test_an_empty_folder_is_fine(tmp_path):
    assert prepare_out(str(tmp_path), {}) == tmp_path
    assert names(tmp_path) == ["config.yaml"]


def test_a_run_is_not_written_over_unasked(begun):
    with pytest.raises(DataError, match="folder is not empty; pass --overwrite"):
        prepare_out(str(begun), {"lr": 0.2})
    assert "lr: 0.1" in (begun / "config.yaml").read_text()
    assert names(begun) == ["config.yaml", "export", "last.ckpt"]


def test_overwrite_empties_the_folder(begun):
    prepare_out(str(begun), {"lr": 0.2}, overwrite=True)
    assert names(begun) == ["config.yaml"]
    assert "lr: 0.2" in (begun / "config.yaml").read_text()


def test_overwrite_keeps_the_cache(begun):
    (begun / "cache").mkdir()
    (begun / "cache" / "kept").touch()
    prepare_out(str(begun), {"lr": 0.2}, overwrite=True)
    assert names(begun) == ["cache", "config.yaml"]
    assert names(begun / "cache") == ["kept"]


def test_a_cache_beside_settings_of_another_program_is_no_run(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "config.yaml").write_text("lr: 0.1")
    with pytest.raises(DataError, match="holds no run"):
        prepare_out(str(tmp_path), {}, overwrite=True)


def test_overwrite_of_a_folder_that_does_not_exist(tmp_path):
    assert names(prepare_out(str(tmp_path / "new"), {}, overwrite=True)) == ["config.yaml"]


@pytest.mark.parametrize("config", [None, "lr: 0.1\n", "", "# Settings of another program\n"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_only_a_run_is_overwritten(tmp_path, config, overwrite):
    (tmp_path / "thesis.tex").write_text("precious")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(DataError, match=r"holds no run .* choose another --out"):
        prepare_out(str(tmp_path), {}, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_overwrite_follows_no_links(begun, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_text("x")
    (begun / "data").symlink_to(precious)
    link = tmp_path / "link"
    link.symlink_to(begun)
    prepare_out(str(link), {"lr": 1}, overwrite=True)
    assert names(begun) == ["config.yaml"]
    assert link.is_symlink()
    assert names(precious) == ["a"]


def test_a_folder_emptied_by_half_is_still_a_run(begun, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", fail)
    with pytest.raises(PermissionError):
        prepare_out(str(begun), {}, overwrite=True)
    monkeypatch.undo()
    assert names(prepare_out(str(begun), {}, overwrite=True)) == ["config.yaml"]


def test_settings_that_cannot_be_noted_delete_nothing(begun):
    with pytest.raises(yaml.YAMLError):
        prepare_out(str(begun), {"lr": object()}, overwrite=True)
    assert names(begun) == ["config.yaml", "export", "last.ckpt"]


def test_resume_keeps_the_files(begun):
    prepare_out(str(begun), {"lr": 0.1, "method": "rld"}, resume="last")
    assert names(begun) == ["config.yaml", "export", "last.ckpt"]


def test_resume_sees_tuples_and_none_as_yaml_does(tmp_path):
    prepare_out(str(tmp_path), {"betas": (0.9, 0.99), "cache": None})
    prepare_out(str(tmp_path), {"betas": (0.9, 0.99)}, resume="last")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.2, "method": "rld"}, "lr was 0.1 and is now 0.2"),
        ({"lr": 0.1}, "method was 'rld' and is now None"),
        ({"lr": 0.1, "method": "rld", "cache": "f"}, "cache was None and is now 'f'"),
    ],
)
def test_resume_with_other_settings_is_refused(begun, settings, message):
    before = (begun / "config.yaml").read_text()
    with pytest.raises(DataError, match=f"cannot resume: {message}; give the same value"):
        prepare_out(str(begun), settings, resume="last")
    assert (begun / "config.yaml").read_text() == before


def test_settings_that_may_change(begun):
    settings = {"lr": 0.1, "method": "kd", "devices": 2}
    prepare_out(str(begun), settings, resume="last", may_change=("method", "devices"))
    assert yaml.safe_load((begun / "config.yaml").read_text()) == settings


@pytest.mark.parametrize("text", ["{", "- 1", "\x00"])
def test_resume_with_a_broken_config(begun, text):
    mark = (begun / "config.yaml").read_text().splitlines()[0]
    (begun / "config.yaml").write_text(f"{mark}\n{text}")
    with pytest.raises(DataError, match=r"config\.yaml: not readable, so the run cannot"):
        prepare_out(str(begun), {"lr": 0.1}, resume="last")


def test_nothing_to_resume(tmp_path):
    (tmp_path / "config.yaml").write_text("lr: 1")
    for out in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="nothing to resume: no run began there; leave out"):
            check_out(str(out), resume="last")


def test_resume_and_overwrite_exclude_each_other(begun):
    with pytest.raises(DataError, match="--resume and --overwrite exclude each other"):
        check_out(str(begun), resume="last", overwrite=True)


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="--out must be a folder, this is a file"):
        check_out(str(tmp_path / "file"))


def test_other_processes_do_nothing(begun, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    check_out(str(begun))
    assert prepare_out(str(begun), {"lr": 9}, overwrite=True) == begun
    assert names(begun) == ["config.yaml", "export", "last.ckpt"]
    assert "lr: 0.1" in (begun / "config.yaml").read_text()


def test_a_saved_network_is_found_in_its_folder_and_in_its_run(tmp_path):
    with pytest.raises(DataError, match="no saved network"):
        find_saved(tmp_path)
    (tmp_path / "export").mkdir()
    write_json(tmp_path / "export" / "config.json", {})
    assert find_saved(tmp_path) == find_saved(tmp_path / "export") == tmp_path / "export"


def test_a_run_that_never_began_may_be_written_over(tmp_path):
    folder = prepare_out(str(tmp_path / "a"), {"x": 1})
    (folder / "cache").mkdir()
    (folder / "cache" / "kept").touch()
    (folder / "config.yaml").rename(tmp_path / "config.yaml")
    check_out(str(folder))
    (tmp_path / "config.yaml").rename(folder / "config.yaml")
    prepare_out(str(folder), {"x": 2})
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"x": 2}
    assert (folder / "cache" / "kept").exists()
    (folder / "last.ckpt").touch()
    with pytest.raises(DataError, match="folder is not empty; pass --overwrite, or another"):
        check_out(str(folder))
    with pytest.raises(DataError, match="pass --resume last, --overwrite"):
        check_out(str(folder), go_on="--resume last")
    with pytest.raises(DataError, match=r"would delete .*last\.ckpt, which this command needs"):
        check_out(str(folder), overwrite=True, keep=[folder / "last.ckpt"])


def test_emptying_a_run_never_takes_what_the_command_reads(tmp_path, monkeypatch):
    folder = prepare_out(str(tmp_path / "run"), {})
    for name in ("export", "cache"):
        (folder / name).mkdir()
    monkeypatch.chdir(folder)
    for needed in (folder, folder / "export", "export", "./export/../config.yaml"):
        with pytest.raises(DataError, match=r"would delete .*, which this command needs"):
            check_out(str(folder), overwrite=True, keep=[needed])
        check_out(str(folder), resume=True, keep=[needed])
    safe = [tmp_path, folder / "cache", folder / "absent", "owner/model", None]
    check_out(str(folder), overwrite=True, keep=safe)


def test_resume_is_a_switch_or_a_checkpoint(begun):
    settings = {"lr": 0.1, "method": "rld"}
    for resume in (True, "last", "last.ckpt"):
        check_out(str(begun), resume=resume)
        prepare_out(str(begun), settings, resume=resume)
    for resume in (False, None):
        with pytest.raises(DataError, match="pass --resume, --overwrite, or another --out"):
            check_out(str(begun), resume=resume, go_on="--resume")
        with pytest.raises(DataError, match="folder is not empty"):
            prepare_out(str(begun), settings, resume=resume)


def test_a_file_is_replaced_only_if_asked_and_not_needed(tmp_path):
    file = tmp_path / "pairs.csv"
    check_file_out(str(file), keep=[tmp_path, file])
    file.touch()
    with pytest.raises(DataError, match=r"the file exists; pass --overwrite, or another --out"):
        check_file_out(str(file))
    check_file_out(str(file), overwrite=True, keep=[tmp_path / "other", "digits", None])
    for needed in (file, tmp_path):
        with pytest.raises(DataError, match="--overwrite would replace what this command reads"):
            check_file_out(str(file), overwrite=True, keep=[needed])


def test_what_a_run_reads_is_compared_and_is_no_option(tmp_path):
    out = tmp_path / "run"
    settings = {"lr": 0.1, "weights": {"clip": "ab", "dino": None}, "truth": None}
    inputs = ["weights", "truth"]
    prepare_out(str(out), settings, inputs=inputs)
    assert yaml.safe_load((out / "config.yaml").read_text()) == {"lr": 0.1}
    prepare_out(str(out), settings, resume="last", inputs=inputs)
    assert yaml.safe_load((out / "config.yaml").read_text()) == {"lr": 0.1}
    for changed in ({"weights": {"clip": "cd", "dino": None}}, {"truth": "x"}, {"weights": None}):
        with pytest.raises(DataError, match=f"cannot resume: {next(iter(changed))} was"):
            prepare_out(str(out), settings | changed, resume="last", inputs=inputs)
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace('{"weights"', "{weights"))
    with pytest.raises(DataError, match="not readable, so the run cannot be resumed"):
        prepare_out(str(out), settings, resume="last", inputs=inputs)
