"""The network and its parts against the authors' modules on the same weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from defi_net.attention import ReverseEdgeAttention
from defi_net.fusion import SpatialAdaptiveFusion
from defi_net.model import DeFINet
from defi_net.official import our_names
from defi_net.pyramid import BottomUp, DenseFeaturePyramid, TopDown
from PIL import Image

CHANNELS, K = (4, 6, 8, 10), 8
PARTS = {  # the authors' name of a whole one, ours, inputs
    "td": ("gfpn.td_fusion.", "neck.top_down.", lambda: TopDown(CHANNELS, K)),
    "bu": ("gfpn.bu_fusion.", "neck.bottom_up.", lambda: BottomUp(K)),
    "dfpl": ("gfpn.", "neck.", lambda: DenseFeaturePyramid(CHANNELS, K)),
    "ream": ("ream.", "head.ream.", lambda: ReverseEdgeAttention(K)),
    "saff": ("dff.", "head.saff.", lambda: SpatialAdaptiveFusion(K)),
}


def close(ours, theirs, share=1e-6):
    """1e-5 on values of order 1 to 10, in proportion above: `share` of the largest."""
    bound = max(1e-5, share * theirs.abs().max().item())
    torch.testing.assert_close(ours, theirs, atol=bound, rtol=0)


def part_with_weights(name, vectors):
    theirs, ours, build = PARTS[name]
    start = f"w/{name}/"
    weights = our_names(
        {theirs + k.removeprefix(start): v for k, v in vectors.items() if k.startswith(start)}
    )
    part = build()
    result = part.load_state_dict(
        {k.removeprefix(ours): v for k, v in weights.items()}, strict=False
    )
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    return part


def outputs_of(name, part, vectors):
    pyramid = [vectors[f"in/pyr{i}"] for i in range(1, 5)]
    features = [vectors[f"in/feat{i}"] for i in range(1, 5)]
    if name == "ream":
        return part(*features[:3])
    if name == "saff":
        return [part(features[0], features[3])]
    return part(features if name == "bu" else pyramid)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_part(parity, name, mode):
    vectors = parity("modules")
    part = part_with_weights(name, vectors).train(mode == "train")
    outputs = outputs_of(name, part, vectors)
    assert len(outputs) == sum(key.startswith(f"out/{name}/{mode}/") for key in vectors)
    for i, output in enumerate(outputs):
        close(output, vectors[f"out/{name}/{mode}/{i}"])


@torch.no_grad()
def test_weights_of_the_fusion(parity):
    vectors = parity("modules")
    part = part_with_weights("saff", vectors).eval()
    close(part.weights(vectors["in/feat4"]), vectors["out/saff_weights/eval"])


@pytest.fixture
def narrow(parity):
    vectors = parity("network")
    blocks = int(vectors["meta/blocks_per_branch"])
    model = DeFINet(
        width=int(vectors["meta/dfpl_out"]),
        backbone_options={
            "planes": int(vectors["meta/stage1_bottleneck_planes"]),
            "bottlenecks": blocks,
            "blocks": blocks,
            "channels": vectors["meta/stage_channels"].tolist(),
        },
    )
    weights = our_names({k[2:]: v for k, v in vectors.items() if k.startswith("w/")})
    model.load_state_dict({**model.state_dict(), **weights})
    assert weights.keys() <= model.state_dict().keys()
    # channels last sums in another order: equal in float64, as tested below
    return model.eval().to(memory_format=torch.contiguous_format), vectors


@pytest.mark.parametrize("case", [0, 1])
@torch.no_grad()
def test_whole_network(narrow, case):
    model, vectors = narrow
    if f"in/{case}" not in vectors:
        pytest.skip(f"case {case} is among the larger fixtures only")
    images = vectors[f"in/{case}"]
    edge, mask = model(images)
    near = partial(close, share=2e-6)  # float64 is 1.3e-6 away from the reference's float32
    near(edge, vectors[f"edge_logits/{case}"])
    near(mask, vectors[f"seg_logits/{case}"])
    steps = {"hr": model.backbone(images)}
    steps["dfpl"] = model.neck(steps["hr"])
    for name, maps in steps.items():
        for i, ours in enumerate(maps):
            if f"{name}/{case}/{i}" in vectors:
                near(ours, vectors[f"{name}/{case}/{i}"])
    near(model.head.ream(*steps["dfpl"][:3])[0], vectors[f"lowmid/{case}"])


@torch.no_grad()
def test_channels_last_changes_nothing(narrow):
    model, images = narrow[0].double(), narrow[1]["in/1"].double()
    before = model(images)
    for ours, theirs in zip(
        model.to(memory_format=torch.channels_last)(images), before, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("which", ["train", "test"])
def test_normalization_is_the_published_one(parity, which):
    vectors = parity("preprocess")
    side = vectors[f"x_{which}"].shape[-1]
    image = Image.fromarray(vectors["image"].numpy()).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    images = pixels.view(1, side, side, 3).permute(0, 3, 1, 2) / 255
    model = DeFINet("hrnet_tiny", 4, normalization=f"official-{which}")
    torch.testing.assert_close(
        model.normalize(images)[0], vectors[f"x_{which}"], atol=1e-6, rtol=1e-6
    )
