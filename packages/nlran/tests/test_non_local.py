import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlran.non_local import (
    NonLocalBlock3d,
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)
from torch import nn

FORMS = ["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def live_block(channels, *, seed=0, **options):
    """A block whose last layer is not zero."""
    torch.manual_seed(seed)
    block = NonLocalBlock3d(channels, **options).double().eval()
    last = block.out if options.get("norm", "batch") is None else block.norm
    nn.init.normal_(last.weight)
    nn.init.normal_(last.bias)
    return block


def naive_softmax(theta, phi, g):
    return (theta @ phi.transpose(1, 2)).softmax(2) @ g


def naive_dot_product(theta, phi, g):
    return theta @ phi.transpose(1, 2) / phi.shape[1] @ g


@pytest.mark.parametrize(
    ("fast", "naive"),
    [(softmax_attention, naive_softmax), (dot_product_attention, naive_dot_product)],
)
@pytest.mark.parametrize("value_width", [3, 5, 8])
@given(batch=st.integers(1, 2), queries=st.integers(1, 40), keys=st.integers(1, 40))
def test_fast_forms_equal_the_formula_and_its_gradients(
    fast, naive, value_width, batch, queries, keys
):
    shapes = ((batch, queries, 5), (batch, keys, 5), (batch, keys, value_width))
    inputs = [normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    ours, theirs = fast(*inputs), naive(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent = normal(*ours.shape, seed=9)
    for mine, reference in zip(
        torch.autograd.grad(ours, inputs, cotangent),
        torch.autograd.grad(theirs, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


@given(batch=st.integers(1, 2), queries=st.integers(1, 30), keys=st.integers(1, 30))
def test_concatenation_by_sorting_equals_the_formula_and_its_gradients(batch, queries, keys):
    inputs = [normal(batch, queries), normal(batch, keys, seed=1), normal(batch, keys, 4, seed=2)]
    a, b, g = (t.requires_grad_() for t in inputs)
    ours = concatenation_attention(a, b, g)
    theirs = (a[:, :, None] + b[:, None]).relu() @ g / keys
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent = normal(*ours.shape, seed=9)
    for mine, reference in zip(
        torch.autograd.grad(ours, (a, b, g), cotangent),
        torch.autograd.grad(theirs, (a, b, g), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


def test_concatenation_with_no_key_and_with_all_keys_above_zero():
    g = normal(1, 6, 2)
    zero = torch.zeros(1, 6, dtype=torch.float64)
    assert concatenation_attention(zero - 1, zero, g).abs().max() == 0
    every = concatenation_attention(zero + 1, zero, g)
    torch.testing.assert_close(every, g.mean(1, keepdim=True).expand(1, 6, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", ["batch", "group", None])
@pytest.mark.parametrize("training", [True, False])
def test_a_new_block_is_the_identity_bit_for_bit(form, norm, training):
    block = NonLocalBlock3d(8, form=form, norm=norm).train(training)
    x = normal(2, 8, 3, 4, 5, dtype=torch.float32)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 1000))
def test_equivariant_to_permutations_of_positions(form, seed):
    block = live_block(8, form=form)
    x = normal(2, 8, 3, 4, 5, seed=seed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    permuted = block(x.flatten(2)[..., order].unflatten(2, (3, 4, 5)))
    expected = block(x).flatten(2)[..., order]
    torch.testing.assert_close(permuted.flatten(2), expected, rtol=1e-10, atol=1e-10)


def test_equal_keys_give_the_mean_of_the_values():
    theta, g = normal(1, 7, 4), normal(1, 9, 3, seed=1)
    phi = normal(1, 1, 4, seed=2).expand(1, 9, 4)
    y = softmax_attention(theta, phi, g)
    torch.testing.assert_close(y, g.mean(1, keepdim=True).expand(1, 7, 3))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("subsample", [True, False])
def test_rows_and_received_weights_are_those_that_make_the_output(form, subsample):
    block = live_block(6, form=form, subsample=subsample)
    x = normal(2, 6, 3, 4, 6)
    rows = block.attention_rows(x, torch.arange(72)).double()
    g = block.g(x)
    g = nn.functional.max_pool3d(g, (1, 2, 2)) if subsample else g
    y = (rows @ g.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 4, 6))
    torch.testing.assert_close(x + block.norm(block.out(y)), block(x), rtol=1e-5, atol=1e-5)
    received = block.attention_received(x, chunk=10)
    assert received.shape == (2, 3, 2, 3) if subsample else (2, 3, 4, 6)
    torch.testing.assert_close(received.flatten(1).double(), rows.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    block = live_block(4, form=form)
    x = normal(1, 4, 2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.parametrize("form", FORMS)
def test_a_single_position(form):
    block = live_block(4, form=form)
    assert torch.isfinite(block(normal(1, 4, 1, 1, 1))).all()


def test_the_parameters_are_those_of_the_formula():
    for channels in (64, 128, 256, 512):
        count = sum(p.numel() for p in NonLocalBlock3d(channels).parameters())
        assert count == 2 * channels**2 + 4.5 * channels


@pytest.mark.parametrize("form", FORMS)
def test_memory_stays_linear_at_16384_positions(form):
    """The matrix alone would take 1 GiB; forward and backward stay under 200 MiB."""
    from papercommons.testing.timing import peak_memory

    block = NonLocalBlock3d(16, form=form)
    x = normal(1, 16, 16, 32, 32, dtype=torch.float32).requires_grad_()

    def step():
        block(x).sum().backward()

    assert peak_memory(step) < 200 * 2**20


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_near(form, device):
    block = live_block(16, form=form).float().to(device)
    x = normal(1, 16, 4, 4, 4, dtype=torch.float32).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = block(x)
    torch.testing.assert_close(half.float(), block(x), rtol=0.1, atol=0.1)


def test_compiles_without_a_break():
    for form in FORMS:
        block = live_block(8, form=form).float()
        x = normal(1, 8, 2, 4, 4, dtype=torch.float32)
        compiled = torch.compile(block, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"channels": 0}, {"channels": 4, "inner_channels": 0}, {"channels": 4, "form": "x"}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        NonLocalBlock3d(**options)
