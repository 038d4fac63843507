import json

import pytest
import torch
from papercommons.errors import DataError
from rld_distill.cache import TeacherCache, write_cache
from safetensors.torch import save_file

ABOUT = {"num_classes": 7, "data_hash": "h", "augment": "crop", "seed": 0}


@pytest.fixture
def logits():
    return torch.randn(2, 20, 7, generator=torch.Generator().manual_seed(0)) * 3


def test_whole_logits_come_back_exactly_and_views_come_round(tmp_path, logits):
    write_cache(tmp_path / "c.safetensors", list(logits), ABOUT)
    cache = TeacherCache(tmp_path / "c.safetensors")
    chosen = torch.tensor([4, 0, 19])
    assert cache.views == 2
    assert [cache.view_of(epoch) for epoch in range(4)] == [0, 1, 0, 1]
    assert torch.equal(cache.rows(1, chosen), logits[1, chosen])


def test_top_k_keeps_the_largest_and_the_mass_of_the_rest(tmp_path, logits):
    write_cache(tmp_path / "c.safetensors", list(logits), ABOUT, top_k=3)
    got = TeacherCache(tmp_path / "c.safetensors").rows(0, torch.arange(20))
    top = logits[0].topk(3)
    assert torch.equal(got.gather(1, top.indices), top.values)
    torch.testing.assert_close(got.logsumexp(1), logits[0].logsumexp(1))
    wanted = logits[0].softmax(1).gather(1, top.indices)
    torch.testing.assert_close(got.softmax(1).gather(1, top.indices), wanted)


def test_float16_rounds_and_refuses_what_it_cannot_hold(tmp_path, logits):
    path = tmp_path / "c.safetensors"
    write_cache(path, list(logits), ABOUT, dtype=torch.float16)
    got = TeacherCache(path).rows(0, torch.arange(20))
    torch.testing.assert_close(got, logits[0], atol=0, rtol=1e-3)
    with pytest.raises(ValueError, match="float16 cannot hold"):
        write_cache(path, [torch.full((2, 7), 1e5)], ABOUT, dtype=torch.float16)
    torch.testing.assert_close(TeacherCache(path).rows(0, torch.arange(20)), got)


def test_files_that_do_not_belong_are_refused(tmp_path, logits):
    path = tmp_path / "c.safetensors"
    write_cache(path, list(logits), ABOUT)
    cache = TeacherCache(path)
    cache.check(images=20, data_hash="h", seed=0)
    with pytest.raises(DataError, match="holds logits of 20 images, the training split has 21"):
        cache.check(images=21)
    with pytest.raises(DataError, match="made with data hash h, this run has other"):
        cache.check(images=20, data_hash="other")
    with pytest.raises(DataError, match="no such file"):
        TeacherCache(tmp_path / "none.safetensors")
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a file of rld-distill-cache"):
        TeacherCache(path)


def test_bad_logits_and_top_k_are_refused(tmp_path, logits):
    with pytest.raises(DataError, match="not finite"):
        write_cache(tmp_path / "c", [torch.full((2, 7), torch.nan)], ABOUT)
    with pytest.raises(ValueError, match=r"top_k must be in \[1, 6\], got 7"):
        write_cache(tmp_path / "c", list(logits), ABOUT, top_k=7)


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({"values": torch.zeros(2, 20)}, {"num_classes": 7}),
        ({"values": torch.zeros(2, 20, 6)}, {"num_classes": 7}),
        ({"values": torch.zeros(0, 20, 7)}, {"num_classes": 7}),
        ({"values": torch.full((2, 20, 7), torch.nan)}, {"num_classes": 7}),
        ({"values": torch.zeros(2, 20, 7)}, {}),
        ({"values": torch.zeros(2, 20, 7)}, []),
        (
            {
                "values": torch.zeros(2, 20, 3),
                "classes": torch.full((2, 20, 3), 9),
                "rest": torch.zeros(2, 20),
            },
            {"num_classes": 7},
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, tensors, about):
    path = tmp_path / "c.safetensors"
    save_file(tensors, path, metadata={"rld_distill": json.dumps(about)})
    with pytest.raises(DataError, match="not a file of rld-distill-cache"):
        TeacherCache(path)
