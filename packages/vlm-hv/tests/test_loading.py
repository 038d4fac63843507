from __future__ import annotations

import json
import shutil

import pytest
import torch
from papercommons.errors import DataError
from safetensors.torch import load_file, save_file
from vlm_hv.loading import ONE_PICTURE, check_layout, choose_device, load_model
from vlm_hv.tiny import tiny_paligemma


@pytest.fixture(scope="module")
def saved(save_tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loading") / "model"
    return save_tiny(*tiny_paligemma(size=16, width=16, layers=1), folder)


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def rewrite(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))


def test_weights_are_float32_on_the_cpu_and_as_asked(saved):
    assert load_model(saved, device="cpu").model.dtype == torch.float32
    assert load_model(saved, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype must be auto, float32"):
        load_model(saved, device="cpu", dtype="int3")


def test_automatic_device_is_cuda_where_there_is_one():
    assert choose_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("text_config", {"num_hidden_layers": 10**6}),
        ("text_config", {"vocab_size": 10**9}),
        ("text_config", {"intermediate_size": 10**7}),
        ("vision_config", {"image_size": 10**6}),
        ("vision_config", {"hidden_size": 10**6}),
    ],
)
def test_a_folder_that_promises_a_huge_model(saved, tmp_path, part, change):
    shutil.copytree(saved, tmp_path / "hostile")
    path = tmp_path / "hostile" / "config.json"
    config = json.loads(path.read_text())
    config[part] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"must be at most 10,000|far larger than its file"):
        load_model(tmp_path / "hostile", device="cpu")


def test_a_text_only_model_is_refused(tmp_path):
    from transformers import GemmaConfig, GemmaForCausalLM

    config = GemmaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8
    )
    GemmaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"gemma takes no pictures .*give a vision-language model"):
        load_model(tmp_path, device="cpu")


def test_an_encoder_and_decoder_is_refused(tmp_path):
    from transformers import Pix2StructConfig

    Pix2StructConfig().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="pix2struct has an encoder and a decoder"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("source", ["no/such/folder", "./nothing", "name-alone", "../x", ""])
def test_what_is_neither_folder_nor_hub_id_is_refused_at_once(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such folder, and no hub id|config.json is missing"):
        load_model(source, device="cpu")


def test_a_hub_id_that_cannot_be_had_is_named(monkeypatch):
    import transformers

    def fail(*_, **__):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(
        DataError, match=r"^google/x: no readable model \(You are trying .* repo\.\)$"
    ):
        load_model("google/x", device="cpu")


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"config\.json is missing; give the folder"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no-such-kind"}', "{}"])
def test_a_broken_configuration_is_refused(content, copy):
    (copy / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"no readable model|config\.json: not "):
        load_model(copy, device="cpu")


def test_truncated_weights_are_refused(copy):
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="the weights cannot be read"):
        load_model(copy, device="cpu")


def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    weights.pop(name)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights are missing \(.*q_proj.*would be random"):
        load_model(copy, device="cpu")


def test_pickled_weights_are_never_read(copy):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="the weights cannot be read"):
        load_model(copy, device="cpu")


def test_code_beside_the_model_is_never_run(copy):
    (copy / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()\nclass C: pass\n")
    rewrite(copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C"})
    with pytest.raises(DataError, match="no readable model"):
        load_model(copy, device="cpu")


def test_a_model_without_its_processor_is_refused(copy):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(DataError, match="no readable processor"):
        load_model(copy, device="cpu")


def test_four_bits_need_cuda(saved):
    with pytest.raises(ValueError, match="4-bit weights need a CUDA device, got cpu"):
        load_model(saved, device="cpu", four_bit=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "names no base model"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path is empty"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is empty"),
        ({"base_model_name_or_path": "/no/where"}, r"its base model is not there: /no/where"),
    ],
)
def test_an_adapter_without_its_base_is_refused(settings, message, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=message):
        load_model(tmp_path, device="cpu")


def test_an_adapter_without_weights_is_refused(saved, tmp_path):
    text = json.dumps({"base_model_name_or_path": str(saved), "peft_type": "LORA"})
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(DataError, match=r"adapter_model\.safetensors is missing"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("kind", sorted(ONE_PICTURE))
def test_one_picture_models_take_one_canvas(kind):
    class Model:
        class config:
            model_type = kind

    check_layout(Model, "concat")
    with pytest.raises(
        DataError, match=f"^{kind} takes one picture per prompt; pass --layout concat"
    ):
        check_layout(Model, "two")


def test_names_of_one_picture_models_are_those_of_the_library():
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as NAMES,
    )

    assert set(NAMES) >= ONE_PICTURE
