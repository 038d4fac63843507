from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from papercommons.checkpoint import (
    bounded_folder,
    build_saved,
    load_weights,
    read_config,
    read_state_dict,
    save_model,
)
from papercommons.errors import DataError
from safetensors.torch import load_file, save_file
from torch import nn


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Wrapped(nn.Module):
    """All its weights lie in an attribute called as wrappers are."""

    def __init__(self, seed=0):
        super().__init__()
        self.model = network(seed)


HEAD = {"head": torch.ones(1)}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("part", [None, "student"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state},
        lambda state: {"net": state},
        lambda state: {"state_dict": {"model": state}},
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "model."),
        lambda state: prefixed(state, "module._orig_mod.model."),
        lambda state: {"state_dict": prefixed(state, "student."), "loops": {}},
        lambda state: {
            "state_dict": prefixed(state, "student._orig_mod.") | {"head": torch.ones(1)}
        },
    ],
)
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrap, part):
    state = network().state_dict()
    wrapped = wrap(state)
    torch.save(wrapped, tmp_path / "a.pt")
    read = read_state_dict(tmp_path / "a.pt", part=part)
    students = [n for n in wrapped.get("state_dict", ()) if n.startswith("student.")]
    if part is None and students:
        assert all(name in read for name in students)
    else:
        assert equal(read, state)


def test_names_that_share_no_prefix_stay(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "a.pth")
    assert equal(read_state_dict(tmp_path / "a.pth"), state)


def test_a_part_picks_its_weights(tmp_path):
    state = prefixed(network(0).state_dict(), "student.") | prefixed(
        network(1).state_dict(), "teacher."
    )
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert equal(read_state_dict(tmp_path / "a.ckpt", part="teacher"), network(1).state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS"])
def test_safetensors(tmp_path, suffix):
    save_file(network().state_dict(), tmp_path / f"a{suffix}")
    assert equal(read_state_dict(tmp_path / f"a{suffix}"), network().state_dict())


def test_round_trip_is_exact(tmp_path):
    saved = network(1).half()
    config = {"model": "é", "mean": [0.5], "size": 32}
    assert save_model(saved, tmp_path / "m", config) == tmp_path / "m"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert read_config(tmp_path / "m") == config
    loaded = network(2).half()
    load_weights(loaded, read_state_dict(tmp_path / "m"), source="m")
    assert equal(loaded.state_dict(), saved.state_dict())
    assert load_file(tmp_path / "m" / "model.safetensors").keys() == saved.state_dict().keys()


def test_tied_and_strided_weights_can_be_saved(tmp_path):
    saved = network(1)
    saved[0].weight = nn.Parameter(torch.randn(3, 4).t())
    saved.append(saved[2])
    save_model(saved, tmp_path, {})
    assert equal(read_state_dict(tmp_path), saved.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "_orig_mod.model."])
def test_a_module_whose_names_look_wrapped(tmp_path, prefix):
    saved = Wrapped(1)
    state = prefixed(saved.model.state_dict(), prefix)
    torch.save(state, tmp_path / "a.pt")
    for weights in (state, read_state_dict(tmp_path / "a.pt")):
        loaded = Wrapped(2)
        load_weights(loaded, weights, source="a.pt")
        assert equal(loaded.state_dict(), saved.state_dict())


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def save_pickle(value, path):
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("save", [torch.save, save_pickle])
def test_pickles_are_refused_and_not_run(tmp_path, save):
    state = network().state_dict() | {"x": Malicious(str(tmp_path / "trap"))}
    save(state, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt: not read: .* could run code .* \.safetensors"):
        read_state_dict(tmp_path / "a.pt")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"no weights", b"\xff" * 8 + b"{}", "half"]
)
def test_broken_files(tmp_path, name, content):
    path = tmp_path / name
    if content == "half":
        save = save_file if name.endswith("safetensors") else torch.save
        save(network().state_dict(), path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not ") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [{}, [torch.ones(1)], torch.ones(1), {"epoch": 3}, {"state_dict": {"a": 1}}]
)
def test_files_without_weights(tmp_path, value):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds no weights; expected a state dict"):
        read_state_dict(tmp_path / "a.pt")


def test_a_file_that_holds_itself(tmp_path):
    value = {}
    value["model"] = value
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds no weights"):
        read_state_dict(tmp_path / "a.pt")


def test_missing_files(tmp_path):
    for path in (tmp_path / "a.pt", tmp_path):
        with pytest.raises(DataError, match="no such file; give a checkpoint"):
            read_state_dict(path)


def test_what_does_not_fit_is_named_five_at_a_time():
    state = network().state_dict()
    few = {name: value for name, value in state.items() if name == "0.weight"}
    with pytest.raises(DataError, match=r"^x\.pt: does not fit Sequential: missing 8 \(") as caught:
        load_weights(network(), few, source="x.pt")
    names = "0.bias, 1.weight, 1.bias, 1.running_mean, 1.running_var, ..."
    assert f"missing 8 ({names}); check the model's name" in str(caught.value)
    others = {f"head.{number}": torch.ones(1) for number in range(7)}
    with pytest.raises(DataError, match=r"unexpected 7 \(head\.0, .*head\.4, \.\.\.\)"):
        load_weights(network(), state | others, source="x.pt")
    with pytest.raises(
        DataError, match=r"other shape 1 \(2\.weight \(5, 4\) instead of \(2, 4\)\)"
    ):
        load_weights(network(), state | {"2.weight": torch.ones(5, 4)}, source="x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value):
    state = network().state_dict()
    with pytest.raises(DataError, match=r"^x\.pt: 2\.weight holds values that are NaN or infinite"):
        load_weights(network(), state | {"2.weight": torch.full((2, 4), value)}, source="x.pt")


def test_weights_of_another_kind_and_broken_statistics_are_refused():
    state = network().state_dict()
    for kind in (torch.int8, torch.complex64):
        weight = torch.ones(2, 4, dtype=kind)
        with pytest.raises(
            DataError, match=r"other type 1 \(2\.weight torch.* instead of torch.fl"
        ):
            load_weights(network(), state | {"2.weight": weight}, source="x.pt")
    broken = {"1.running_var": torch.full((4,), float("nan"))}
    with pytest.raises(DataError, match=r"1\.running_var holds values that are NaN"):
        load_weights(network(), state | broken, source="x.pt")
    large = {"2.bias": torch.full((2,), 1e300, dtype=torch.float64)}  # infinite in float32
    with pytest.raises(DataError, match=r"2\.bias holds values that are NaN or infinite"):
        load_weights(network(), state | large, source="x.pt")


def chain(layers=1, width=4):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))


def test_a_saved_network_is_built_again(tmp_path):
    saved = chain(2)
    save_model(saved, tmp_path, {})
    assert equal(build_saved(lambda: chain(2), tmp_path).state_dict(), saved.state_dict())


def test_a_network_that_reads_values_as_it_is_built(tmp_path):
    def make(width=4):
        return chain(int(torch.linspace(1, 2, 2)[1].item()), width)  # as rates of drop path are

    save_model(make(), tmp_path, {})
    assert len(build_saved(make, tmp_path)) == 2
    with pytest.raises(DataError, match="far larger than its file of weights"):
        build_saved(lambda: make(10**4), tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 10**9}, "far larger than its file of weights"),
        ({"width": 10**8}, "far larger than its file of weights"),
        ({"width": 5}, "does not fit Sequential"),
        ({"width": 2**40}, "config.json: "),
        ({"width": -1}, "config.json: "),
        ({"width": "4"}, "config.json: "),
        ({"layers": [1]}, "config.json: "),
    ],
)
def test_a_config_that_promises_another_network(tmp_path, sizes, message):
    save_model(chain(), tmp_path, {})
    with pytest.raises(DataError, match=message) as caught:
        build_saved(lambda: chain(**sizes), tmp_path)
    assert "\n" not in str(caught.value)
    chain(layers=50, width=1000)  # the bound is gone


def build_inside(folder, **sizes):
    with bounded_folder(folder), torch.device("meta"):
        chain(**sizes)


def test_what_libraries_build_from_a_folder_is_bounded(tmp_path):
    save_model(chain(), tmp_path / "unet", {})
    build_inside(tmp_path, layers=3)
    for large in ({"layers": 10**9}, {"width": 10**5}):
        with pytest.raises(DataError, match="far larger"):
            build_inside(tmp_path, **large)
    build_inside("owner/name", width=10**5)
    (tmp_path / "unet" / "config.json").write_text('{"layers_per_block": 1000000}')
    with pytest.raises(DataError, match=r"layers_per_block must be at most 10,000, is 1000000"):
        build_inside(tmp_path)


def test_what_does_not_fit_changes_nothing():
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(DataError):
        load_weights(module, network(1).state_dict() | {"x": torch.ones(1)}, source="x")
    assert equal(module.state_dict(), before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json: not readable JSON \(Expecting"),
        (b"", r"config\.json: not readable JSON"),
        (b"\xff", r"config\.json: not readable JSON \('utf-8'"),
        (b"[" * 100_000, r"config\.json: not readable JSON"),
        (b"[1]", r"config\.json: expected a JSON object"),
        (None, r"no saved model: config\.json is missing"),
    ],
)
def test_broken_configs(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"package": "b"}, "config.json: entry package: expected b, got 'a'"),
        ({"entries": ("size", "model", "net")}, "config.json: no entry model, net"),
    ],
)
def test_what_a_config_must_say(tmp_path, wanted, message):
    save_model(nn.Linear(2, 2), tmp_path, {"package": "a", "size": 3})
    assert read_config(tmp_path, package="a", entries=("size",))["size"] == 3
    with pytest.raises(DataError, match=message):
        read_config(tmp_path, **wanted)


def test_config_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        save_model(network(), tmp_path, {"mean": float("nan")})
    save_model(network(), tmp_path, {"mean": 1.0})
    assert json.loads((tmp_path / "config.json").read_text()) == {"mean": 1.0}
