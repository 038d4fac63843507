from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from papercommons.errors import DataError
from vlm_hv import prompts


def test_every_prompt_file_loads() -> None:
    assert prompts.names() == ["forensic_v1", "paligemma_v1"]
    for name in prompts.names():
        assert "{subject}" not in repr(prompts.load(name))


def test_decision_question_says_what_yes_and_no_mean() -> None:
    """The authors' newer script does not."""
    words = prompts.load("forensic_v1")
    assert "Yes if" in words.decide
    assert "No if" in words.decide
    assert "Unknown if" in words.decide


def test_published_files_never_change() -> None:
    known = {
        "forensic_v1": "40c107a868c9cff2",
        "paligemma_v1": "0b23cf254a887080",
    }
    assert {name: prompts.load(name).sha256[:16] for name in known} == known


def test_subject_is_put_in() -> None:
    words = prompts.load("forensic_v1").about('the word "the"')
    assert 'both show the word "the"' in words.explain
    assert '"and"' not in words.explain + words.direct + words.one_turn_json


def test_checklist_is_the_attribute_table(shared_files: Path) -> None:
    table = shared_files / "data" / "cedar-and" / "features15_codes.csv"
    if not table.is_file():
        pytest.skip(f"{table} is absent")
    with table.open(newline="") as file:
        codes = [(r["feature"], int(r["code"]), r["meaning"]) for r in csv.DictReader(file)]
    features = prompts.load("forensic_v1").features
    assert [(f.name, code, text) for f in features for code, text in f.answers.items()] == codes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b", "expected the keys"),
        ("system: x\nsytem: y", "unknown key 'sytem'; did you mean system"),
        ("subject: x", "system must be a text"),
        ("subject: [", "not readable as YAML"),
        ("subject: 2024-99-99", "not readable as YAML"),
        ("subject: " + "[" * 300, "not readable as YAML"),
        ("#" * 1_000_001, "larger than 1,000,000 bytes"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
    ],
)
def test_own_file_that_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        prompts.load(str(path))


def test_own_file(tmp_path: Path) -> None:
    source = Path(str(prompts.__file__)).with_name("paligemma_v1.yaml").read_text()
    path = tmp_path / "own.yaml"
    path.write_text(source.replace("answer en same writer?", "answer en one hand?"))
    assert prompts.load(str(path)).direct == "answer en one hand?"
    with pytest.raises(DataError, match=r"no prompts 'forensic_v2'.*did you mean forensic_v1"):
        prompts.load("forensic_v2")
    with pytest.raises(DataError, match="cannot be read"):
        prompts.load("absent.yaml")


def test_import_is_light() -> None:
    code = "import sys, vlm_hv, vlm_hv.prompts, vlm_hv.running, vlm_hv.endpoint; "
    code += "vlm_hv.parse_decision('x'); "
    code += "sys.exit(' '.join({'torch', 'httpx', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
