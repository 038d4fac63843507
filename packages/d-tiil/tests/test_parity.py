"""Against the reference's own values."""

from __future__ import annotations

import json

import pytest
import torch
from d_tiil.alignment import align_embedding
from d_tiil.maps import trajectory_maps
from d_tiil.masks import resize_mask, scale_map, threshold_map, to_bytes
from d_tiil.noise import NoisePairs
from d_tiil.phrases import phrases_from_tags
from d_tiil.regions import bounding_box, largest_region
from d_tiil.settings import AlignmentSettings

pytest.importorskip("diffusers")


def denoiser(unet):
    return lambda latents, timesteps, embeddings: unet(latents, timesteps, embeddings).sample


def test_maps_and_masks_of_trajectories(unet, arrays):
    given = arrays("noise_difference_mask")
    maps = trajectory_maps(
        denoiser(unet),
        given["z0"],
        given["emb_1"],
        given["emb_2"],
        given["map_noise"],
        given["lms_timesteps"].long(),
        given["lms_sigmas"][:-1],
        empty=given["emb_uncond"],
        guidance=7.0,
        order=4,
        start=5,
    )
    torch.testing.assert_close(maps, given["maps"], rtol=0, atol=1e-4)
    values = to_bytes(scale_map(maps.mean(0)))
    assert (values.int() - given["map_mean_uint8"].int()).abs().max() <= 1
    for name, mask in given.items():
        if name.startswith("bmask_"):
            found = threshold_map(values, float(name.removeprefix("bmask_")), blur=1.0)
            assert (found != (mask > 0)).sum() <= 2


def test_alignment_with_one_pair_per_step(unet, arrays):
    given = arrays("embedding_alignment")
    done = align_embedding(
        denoiser(unet),
        given["z0"],
        given["emb_init"],
        alpha_bars=given["alphas_cumprod"],
        settings=AlignmentSettings(steps=12, lr=float(given["lr"]), batch=1, patience=0),
        pairs=NoisePairs(given["timesteps"], given["noise"][:, 0]),
    )
    torch.testing.assert_close(done.embedding, given["emb_final"], rtol=0, atol=1e-6)
    torch.testing.assert_close(done.losses.double(), given["losses"], rtol=1e-5, atol=1e-6)
    assert (done.step, done.stopped, done.checks) == (12, False, ())


@pytest.mark.parametrize("case", range(4))
def test_largest_region_and_its_box(arrays, case):
    given = arrays("largest_region")
    large = resize_mask(given[f"{case}_mask"] > 0, (256, 256))
    region = largest_region(large, grow=2, fill=True)
    assert (region != (given[f"{case}_largest_mask"] > 0)).sum() <= 2
    assert list(bounding_box(region)) == given[f"{case}_bbox_xyxy"].tolist()


def test_phrases_from_tags(data):
    for case in json.loads((data / "phrases.json").read_text()):
        tokens = [(token["text"], token["pos"], token["is_stop"]) for token in case["tokens"]]
        phrases = phrases_from_tags(tokens, case["caption"])
        assert [phrase.text for phrase in phrases] == case["phrases"]
        assert all(case["caption"][p.start : p.end] == p.text for p in phrases)
