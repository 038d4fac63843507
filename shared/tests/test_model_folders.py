from __future__ import annotations

import json

import pytest
from papercommons.errors import DataError
from papercommons.model_folders import check_config, check_model_folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers_per_block": 10**6}, "layers_per_block must be at most 10,000, is 1000000"),
        ({"text_config": {"num_hidden_layers": 1e9}}, "num_hidden_layers must be at most"),
        ({"parts": [{"depth": 10**9}]}, "depth must be at most"),
        ({"transformer_layers_per_block": [1, 10**6]}, "is .1, 1000000."),
        ({"sample_size": [64, 10**6]}, "sample_size must be at most"),
        ({"num_labels": float("nan")}, "num_labels must be at most"),
        ([1], "not a configuration"),
        ("[" * 10**6, "not readable JSON"),
        ("{", "not readable JSON"),
    ],
)
def test_what_no_model_has_is_refused(tmp_path, config, message):
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(DataError, match=message) as caught:
        check_model_folder(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [10**9, 0, -1, True, "x", None])
def test_steps_of_a_scheduler(tmp_path, steps):
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"num_train_timesteps": steps}))
    with pytest.raises(DataError, match=r"num_train_timesteps must be in \[1, 100,000\]"):
        check_model_folder(tmp_path)


def test_what_models_have_passes(tmp_path):
    path = tmp_path / "config.json"
    held = {"num_hidden_layers": 96, "vocab_size": 10**6, "rope_theta": 1e10, "sample_size": None}
    path.write_text(json.dumps(held | {"num_train_timesteps": None, "mlp_only_layers": []}))
    check_config(path)
    (tmp_path / "merges.txt").write_text("a b")
    check_model_folder(tmp_path)
    check_model_folder("owner/name")


def test_pictures_that_a_processor_makes(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}))
    check_model_folder(tmp_path)
    path.write_text(json.dumps({"size": {"height": 10**6, "width": 224}}))
    with pytest.raises(DataError, match="height must be at most 10,000"):
        check_model_folder(tmp_path)


def test_a_vocabulary_without_end_is_refused(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    with (tmp_path / "tokenizer" / "vocab.json").open("wb") as file:
        file.truncate(100_000_001)  # takes no room on the disk
    with pytest.raises(DataError, match=r"vocab\.json: larger than 100,000,000 bytes"):
        check_model_folder(tmp_path)
