from __future__ import annotations

import pytest
import torch
from cmdfd.attention import CrossModalAttention
from cmdfd.model import CMDFDNet
from cmdfd.visual import VisualFrontend, normalised
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def official(names, rule_weights):
    """The full network with the reference weights, joined in time as the official code does."""
    listed = names("student")
    weights = rule_weights(listed["model"], listed["phase_offset"])
    head = rule_weights(listed["head_lossAV"], listed["phase_offset"])
    weights |= {f"lossAV.{name}": value for name, value in head.items()}
    net = CMDFDNet(legacy_concat=True).eval()
    own = net.state_dict()
    net.load_state_dict({k: own[k] if v is None else v for k, v in weights.items()})
    return net


def test_weights_have_the_official_names_and_shapes(official, names):
    listed = names("student")
    expected = {name: tuple(shape) for _, name, shape, _ in listed["model"]}
    expected |= {f"lossAV.{name}": tuple(shape) for _, name, shape, _ in listed["head_lossAV"]}
    assert {name: tuple(value.shape) for name, value in official.state_dict().items()} == expected
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in official.named_children()}
    del counts["lossAV"]
    assert counts == listed["param_count_by_child"]
    assert sum(counts.values()) == listed["param_count"]


@torch.no_grad()
def test_every_stage_gives_the_reference_values(official, parity):
    example = parity("student_forward")
    mfcc, frames = example["audio_mfcc"], example["video_gray"]

    def close(found, name):
        torch.testing.assert_close(found, example[name], rtol=0, atol=1e-4)

    close(official.embed_audio(mfcc), "audio_frontend")
    close(official.visualFrontend(normalised(frames)), "visual_frontend_resnet")
    close(official.embed_visual(frames), "visual_embed")
    out = official(mfcc, frames)
    close(out.audio, "audio_cross")
    close(out.visual, "visual_cross")
    close(out.features, "av_backend")
    close(out.logits, "frame_logits")
    close(out.logits.mean(1), "clip_logits")
    apart = VisualFrontend().eval()
    apart.load_state_dict(official.visualFrontend.state_dict())
    close(apart(normalised(frames)), "visual_frontend_resnet_per_clip")


def clips(seed, count, frames, size=16):
    chance = torch.Generator().manual_seed(seed)
    mfcc = 5 * torch.randn(count, 4 * frames, 13, generator=chance)
    pictures = torch.randint(0, 256, (count, frames, size, size), generator=chance)
    return mfcc, pictures.to(torch.uint8)


@given(frames=st.integers(1, 30), size=st.integers(8, 33))
def test_there_are_as_many_frames_out_as_in(tiny_once, frames, size):
    with torch.no_grad():
        out = tiny_once(*clips(frames, 1, frames, size))
    assert out.logits.shape == (1, frames, 2)
    assert out.audio.shape == out.visual.shape == (1, frames, 32)
    assert out.features.shape == (1, frames, 64)
    assert all(torch.isfinite(part).all() for part in out)


@pytest.fixture(scope="module")
def tiny_once():
    torch.manual_seed(0)
    return CMDFDNet(32, 4, (1, 1, 1, 1), tcn_layers=1, heads=4).eval()


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(tiny):
    mfcc, frames = clips(0, 3, 7)
    alone = torch.cat([tiny(m[None], f[None]).logits for m, f in zip(mfcc, frames, strict=True)])
    torch.testing.assert_close(tiny(mfcc, frames).logits, alone, rtol=1e-5, atol=1e-5)
    joined = CMDFDNet(**{**tiny.config, "legacy_concat": True}).eval()
    joined.load_state_dict(tiny.state_dict())
    assert (joined(mfcc, frames).logits - alone).abs().max() > 1e-4
    one = joined(mfcc[:1], frames[:1]).logits
    torch.testing.assert_close(one, alone[:1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_bytes_and_floats_are_the_same(tiny):
    mfcc, frames = clips(0, 1, 5)
    assert torch.equal(tiny(mfcc, frames).logits, tiny(mfcc, frames.float()).logits)


def test_the_answer_is_added_to_the_source():
    layer = CrossModalAttention(8, heads=2).eval()
    torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
    src, tar = torch.randn(2, 1, 3, 8)
    assert torch.equal(layer(src, tar), layer(src, torch.zeros_like(tar)))
    assert not torch.equal(layer(src, tar), layer(tar, src))


def test_every_weight_in_use_learns(tiny):
    tiny.train()(*clips(0, 2, 6)).logits.square().sum().backward()
    unused = [n for n, p in tiny.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    fixed = [n for n, p in tiny.named_parameters() if not p.requires_grad]
    assert fixed == ["visualFrontend.resnet.layer1.downsample.weight"]


def test_its_state_comes_back(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "net.pt")
    again = CMDFDNet(**tiny.config).eval()
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    inputs = clips(1, 2, 5)
    with torch.no_grad():
        assert torch.equal(again(*inputs).logits, tiny(*inputs).logits)


@pytest.mark.slow
def test_it_compiles_without_breaks(tiny):
    inputs = clips(0, 1, 5)
    with torch.no_grad():
        compiled = torch.compile(tiny, backend="eager", fullgraph=True)(*inputs)
        torch.testing.assert_close(compiled.logits, tiny(*inputs).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 30}, "dim must be a multiple of heads"),
        ({"dim": 20}, "dim must be a multiple of 8"),
        ({"audio_layers": (1, 1)}, "four numbers"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"visual_width": 0}, r"visual_width must be in \[1, 256\]"),
        ({"dim": 1 << 20}, r"dim must be in \[1, 1024\]"),
    ],
)
def test_wrong_sizes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        CMDFDNet(**{"dim": 32, "visual_width": 4, "heads": 4, **change})


def test_wrong_inputs_are_told(tiny):
    mfcc, frames = clips(0, 1, 5)
    with pytest.raises(ValueError, match="4 rows for each of the 5 frames, got 19"):
        tiny(mfcc[:, 1:], frames)
    with pytest.raises(ValueError, match=r"frames \(B, T, H, W\)"):
        tiny(mfcc, frames[0])
