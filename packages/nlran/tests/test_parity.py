"""Against the reference implementations in shared/parity/nlran (float32, eval mode)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nlran.attention import AttentionModule3d, CBAM3d
from nlran.non_local import NonLocalBlock3d

HERE = Path(__file__).parent / "data"
NON_LOCAL = {
    "embedded_gaussian": {},
    "embedded_gaussian_subsample": {"subsample": True},
    "embedded_gaussian_nobn_inter3": {"norm": None},
    "dot_product": {"form": "dot_product"},
    "concatenation": {"form": "concatenation"},
}
CLOSE = {"rtol": 1e-5, "atol": 5e-6}
GRADIENT = {"rtol": 1e-4, "atol": 3e-5}  # through up to 27 convolutions in float32


def read(path):
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w:")}
    return arrays, weights


def load(module, weights, rename):
    weights = {rename(name): value for name, value in weights.items()}
    absent, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in absent)
    return module.eval()


def gradient(output, x, cotangent):
    return torch.autograd.grad((output * cotangent).sum(), x)[0]


def non_local_name(name):
    for theirs, ours in (("g.0.", "g."), ("phi.0.", "phi."), ("W.0.", "out."), ("W.1.", "norm.")):
        name = name.replace(theirs, ours)
    return name.replace("W.", "out.").replace("concat_project.0.", "concat.")


@pytest.mark.parametrize("case", NON_LOCAL)
def test_non_local_block(case):
    arrays, weights = read(HERE / f"nonlocal_{case}.npz")
    inner = weights["theta.weight"].shape[0]
    block = NonLocalBlock3d(arrays["x"].shape[1], inner, **NON_LOCAL[case])
    if "concat_project.0.weight" in weights:
        weights["concat_project.0.weight"] = weights["concat_project.0.weight"].flatten(1)
    load(block, weights, non_local_name)
    x = arrays["x"].requires_grad_()
    z = block(x)
    torch.testing.assert_close(z, arrays["z"], **CLOSE)
    torch.testing.assert_close(gradient(z, x, arrays["grad_out"]), arrays["grad_x"], **CLOSE)
    rows = block.attention_rows(x, torch.arange(arrays["attention"].shape[1]))
    torch.testing.assert_close(rows, arrays["attention"], **CLOSE)
    received = block.attention_received(x, chunk=7)
    torch.testing.assert_close(received.flatten(1), arrays["attention"].mean(1), **CLOSE)


UNITS = {
    1: {"softmax1_blocks.0": "bottom.0", "softmax1_blocks.1": "bottom.1"},
    2: {
        "softmax1_blocks": "down.0",
        "skip1_connection_residual_block": "skip.0",
        "softmax2_blocks.0": "bottom.0",
        "softmax2_blocks.1": "bottom.1",
        "softmax3_blocks": "up.0",
    },
    3: {
        "softmax1_blocks": "down.0",
        "skip1_connection_residual_block": "skip.0",
        "softmax2_blocks": "down.1",
        "skip2_connection_residual_block": "skip.1",
        "softmax3_blocks.0": "bottom.0",
        "softmax3_blocks.1": "bottom.1",
        "softmax4_blocks": "up.1",
        "softmax5_blocks": "up.0",
    },
}
HEAD = {1: "softmax2_blocks", 2: "softmax4_blocks", 3: "softmax6_blocks"}


def check_attention_module(path, depth):
    arrays, weights = read(path)
    names = UNITS[depth] | {"first_residual_blocks": "first", "last_blocks": "last"}
    names |= {"trunk_branches.0": "trunk.0", "trunk_branches.1": "trunk.1"}
    names |= {f"{HEAD[depth]}.{i}": f"head.{i}" for i in range(6)}

    def rename(name):
        theirs = max((old for old in names if name.startswith(old + ".")), key=len)
        return names[theirs] + name.removeprefix(theirs)

    module = load(AttentionModule3d(arrays["x"].shape[1], depth), weights, rename)
    x = arrays["x"].requires_grad_()
    mask, trunk = module.branches(x)
    torch.testing.assert_close(mask, arrays["mask"], **CLOSE)
    torch.testing.assert_close(trunk, arrays["trunk"], **CLOSE)
    y = module(x)
    torch.testing.assert_close(y, arrays["y"], **CLOSE)
    torch.testing.assert_close(gradient(y, x, arrays["grad_out"]), arrays["grad_x"], **GRADIENT)


@pytest.mark.parametrize("depth", [1, 2])
def test_attention_module(depth):
    check_attention_module(HERE / f"attention_module_depth{depth}.npz", depth)


def test_attention_module_of_depth_three(shared_files):
    check_attention_module(shared_files / "parity/nlran/attention_module_depth3.npz", 3)


def test_cbam():
    arrays, weights = read(HERE / "cbam3d.npz")
    names = {"ChannelGate.mlp.1": "mlp.0", "ChannelGate.mlp.3": "mlp.2"}
    names |= {"SpatialGate.spatial.conv": "conv", "SpatialGate.spatial.bn": "norm"}

    def rename(name):
        theirs = next(old for old in names if name.startswith(old))
        return names[theirs] + name.removeprefix(theirs)

    gate = CBAM3d(arrays["x"].shape[1], reduction=int(arrays["reduction"]))
    load(gate, weights, rename)
    torch.testing.assert_close(gate.channel_gate(arrays["x"]), arrays["channel_out"], **CLOSE)
    torch.testing.assert_close(gate(arrays["x"]), arrays["y"], **CLOSE)


def test_every_parity_file_is_used(shared_files):
    used = {f"nonlocal_{case}" for case in NON_LOCAL} | {"cbam3d"}
    used |= {f"attention_module_depth{depth}" for depth in (1, 2, 3)}
    assert {path.stem for path in (shared_files / "parity/nlran").glob("*.npz")} == used
