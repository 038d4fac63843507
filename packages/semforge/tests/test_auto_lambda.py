from __future__ import annotations

import copy

import pytest
import torch
from semforge.auto_lambda import AutoLambda, virtual_step
from semforge.graph import LabelGraph
from semforge.heads import GraphHead
from semforge.losses import task_losses
from torch import nn
from torch.optim import SGD, Adam

FORMS = pytest.mark.parametrize("form", ["exact", "finite"])


def gradient_of(auto, *arguments):
    """Return the gradient that the weights step with, and the update."""
    seen = []
    handle = auto.optimizer.register_step_pre_hook(
        lambda *_: seen.append(auto.weights.grad.clone())
    )
    update = auto.update(*arguments)
    handle.remove()
    return seen[0], update


def squares(outputs, targets):
    """Three losses that depend on the outputs in different ways."""
    errors = (outputs - targets).square().mean(0)
    return torch.stack([errors[0], errors[1:].mean(), errors.sum()])


def make(*layers, dtype=torch.double):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), *layers, nn.Linear(8, 3)).to(dtype)
    train, meta = (
        (torch.randn(6, 5, dtype=dtype), torch.randn(6, 3, dtype=dtype)) for _ in range(2)
    )
    return net, train, meta


@FORMS
def test_parity_with_the_paper_s_code(parity, form):
    data, head = parity("auto_lambda"), GraphHead(LabelGraph.ffsc())
    net = nn.Linear(7, 12)
    net.load_state_dict({name: data[name] for name in ("weight", "bias")})
    train, meta = (
        (data[f"{s}_x"], torch.where(data[f"{s}_mask"] == 1, data[f"{s}_y"], 2))
        for s in ("train", "val")
    )
    auto = AutoLambda(form=form)
    optimizer = Adam(net.parameters(), lr=float(data["lr"]))
    gradient, update = gradient_of(
        auto, net, lambda f, y: task_losses(head, f, y), train, meta, optimizer
    )
    torch.testing.assert_close(
        update.losses.double(), data["train_level_losses"], rtol=0, atol=1e-6
    )
    exact = data["exact_lambda_grad"]
    atol = 1e-9 if form == "exact" else 1e-7
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-6, atol=atol)
    official = data["ref_lambda_grad_finite_difference"]
    torch.testing.assert_close(gradient[1], official[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(gradient, official, rtol=3e-3, atol=0)
    after = data["lambda_after_adam_lr1e_3"]
    torch.testing.assert_close(auto.weights.data, after, rtol=0, atol=1e-6)
    with torch.no_grad():
        lr = float(data["lr"])
        net.zero_grad()
    task_losses(head, net(train[0]), train[1]).sum().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= lr * p.grad
        primary = task_losses(head, net(meta[0]), meta[1])[0]
    expected = data["val_primary_loss_after_virtual_step"]
    torch.testing.assert_close(primary.double(), expected, rtol=0, atol=1e-6)


def plain_gradient(net, train, meta, lr, decay, momentum, buffers, weights):
    """Differentiate through the virtual step, as the formula reads."""
    leaves = weights.double().clone().requires_grad_()
    parameters = dict(net.named_parameters())
    losses = squares(torch.func.functional_call(net, parameters, (train[0],)), train[1])
    slopes = torch.autograd.grad(
        (leaves * losses).sum(), list(parameters.values()), create_graph=True
    )
    moved = {
        name: p - lr * (g + decay * p + momentum * b)
        for (name, p), g, b in zip(parameters.items(), slopes, buffers, strict=True)
    }
    primary = squares(torch.func.functional_call(net, moved, (meta[0],)), meta[1])[1]
    return torch.autograd.grad(primary, leaves)[0]


@FORMS
@pytest.mark.parametrize("steps", [0, 2])
def test_like_double_backward_through_the_step(form, steps):
    net, train, meta = make()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        squares(net(train[0]), train[1]).sum().backward()
        optimizer.step()
    buffers = [
        optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)) for p in net.parameters()
    ]
    auto = AutoLambda(primary=1, form=form, init=0.7)
    plain = plain_gradient(net, train, meta, 0.1, 0.01, 0.9, buffers, auto.weights)
    gradient, _ = gradient_of(auto, net, squares, train, meta, optimizer)
    rtol = 1e-6 if form == "exact" else 1e-3
    torch.testing.assert_close(gradient.double(), plain, rtol=rtol, atol=1e-8)


@FORMS
def test_each_group_has_its_own_rate(form):
    net, train, meta = make()
    groups = [{"params": net[0].parameters(), "lr": 0.2}, {"params": net[2].parameters()}]
    gradient, _ = gradient_of(
        AutoLambda(form=form), net, squares, train, meta, SGD(groups, lr=0.05)
    )
    expected = torch.zeros(3)
    for part, lr in ((net[0], 0.2), (net[2], 0.05)):
        # the slope is a sum over the parameters, all of them at the same virtual place
        inner = list(part.parameters())
        losses = squares(net(train[0]), train[1])
        moved = virtual_step(
            dict(net.named_parameters()),
            torch.autograd.grad(losses.sum(), list(net.parameters()), retain_graph=True),
            SGD(groups, lr=0.05),
        )
        primary = squares(torch.func.functional_call(net, moved, (meta[0],)), meta[1])[0]
        names = [n for n, p in net.named_parameters() if any(p is q for q in inner)]
        meta_slopes = torch.autograd.grad(primary, [moved[n] for n in names])
        for k, loss in enumerate(losses):
            slopes = torch.autograd.grad(loss, inner, retain_graph=True)
            dot = sum((a * b).sum() for a, b in zip(slopes, meta_slopes, strict=True))
            expected[k] -= lr * dot.item()
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-7)


@FORMS
def test_the_network_s_step_uses_the_new_weights(form):
    net, train, meta = make()
    auto = AutoLambda(lr=0.1, form=form)
    update = auto.update(net, squares, train, meta, Adam(net.parameters()))
    assert not torch.equal(auto.weights, torch.ones(3))
    update.total.backward()
    slopes = [p.grad.clone() for p in net.parameters()]
    total = auto.weighted(squares(net(train[0]), train[1]))
    torch.testing.assert_close(update.total.detach(), total.detach())
    expected = torch.autograd.grad(total, list(net.parameters()))
    torch.testing.assert_close(slopes, list(expected))


@FORMS
def test_nothing_of_the_network_is_changed(form):
    net, train, meta = make(nn.BatchNorm1d(8), nn.Dropout(0.5))
    plain = copy.deepcopy(net)
    state = torch.get_rng_state()
    plain(train[0])  # batch normalisation sees the training batch once
    torch.set_rng_state(state)
    AutoLambda(form=form).update(net, squares, train, meta, Adam(net.parameters()))
    for name, value in net.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    assert all(p.grad is None for p in net.parameters())


def test_both_sides_of_the_difference_draw_the_same_numbers():
    """With dropout, the two forms differ by the curvature alone, not by the noise of two masks."""
    net, train, meta = make(nn.Dropout(0.5))
    gradients = []
    for form in ("exact", "finite"):
        torch.manual_seed(1)
        optimizer = SGD(net.parameters(), lr=0.1)
        gradients += [gradient_of(AutoLambda(form=form), net, squares, train, meta, optimizer)[0]]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


@FORMS
def test_the_generator_moves_on_as_if_one_pass_had_been_made(form):
    net, train, meta = make(nn.Dropout(0.5))
    torch.manual_seed(1)
    net(train[0]), net(meta[0])
    expected = torch.rand(3)
    torch.manual_seed(1)
    AutoLambda(form=form).update(net, squares, train, meta, SGD(net.parameters(), lr=0.1))
    assert torch.equal(torch.rand(3), expected)


def test_frozen_parameters_and_those_no_loss_sees():
    net, train, meta = make()
    net[0].requires_grad_(False)
    net.register_parameter("spare", nn.Parameter(torch.ones(2)))
    for form in ("exact", "finite"):
        update = AutoLambda(form=form).update(
            net, squares, train, meta, SGD(net[2].parameters(), lr=0.1)
        )
        update.total.backward()
        assert net[0].weight.grad is None
        assert net[2].weight.grad is not None


def test_weights_are_held_at_their_minimum():
    net, train, meta = make()
    auto = AutoLambda(lr=5.0, minimum=0.0)
    auto.update(net, squares, train, meta, SGD(net.parameters(), lr=0.1))
    assert (auto.weights >= 0).all()
    assert (auto.weights == 0).any()


def test_it_learns_to_ignore_a_loss_that_harms():
    """Loss 1 pulls away from what the primary loss wants: its weight falls, the ally's does not."""
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    wanted = nn.Linear(4, 1)

    def objective(outputs, targets):
        error = (outputs - targets).square().mean()
        return torch.stack([error, (outputs + targets).square().mean(), 0.5 * error])

    auto = AutoLambda(lr=0.02, minimum=0.0)
    optimizer = SGD(net.parameters(), lr=0.05)
    for _ in range(100):
        train, meta = ((x, wanted(x).detach()) for x in (torch.randn(16, 4), torch.randn(16, 4)))
        update = auto.update(net, objective, train, meta, optimizer)
        optimizer.zero_grad()
        update.total.backward()
        optimizer.step()
    assert auto.weights[1] < 0.3
    assert auto.weights[2] > 1


@FORMS
def test_float16_autocast_is_left_out(form):
    net, train, meta = make(dtype=torch.float32)
    expected, _ = gradient_of(
        AutoLambda(form=form), net, squares, train, meta, SGD(net.parameters(), lr=0.1)
    )
    with torch.autocast("cpu", dtype=torch.float16):
        gradient, update = gradient_of(
            AutoLambda(form=form), net, squares, train, meta, SGD(net.parameters(), lr=0.1)
        )
    assert torch.equal(gradient, expected)
    assert update.losses.dtype == torch.float32


def test_every_and_weighted():
    auto = AutoLambda(2, every=3, init=0.5)
    assert [auto.due(i) for i in range(5)] == [True, False, False, True, False]
    assert auto.weighted(torch.tensor([1.0, 3.0])).item() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 1}, "two losses or more, got 1"),
        ({"primary": 3}, r"primary must be in \[0, 3\), got 3"),
        ({"lr": 0}, "lr must be > 0"),
        ({"every": 0}, "every >= 1"),
        ({"form": "fast"}, "exact or finite, got fast"),
        ({"init": 0.1, "minimum": 0.2}, "init must be >= minimum"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        AutoLambda(**options)


def test_another_number_of_losses():
    net, train, meta = make()
    with pytest.raises(ValueError, match=r"expected 2 losses, got \(3,\)"):
        AutoLambda(2).update(net, squares, train, meta, SGD(net.parameters(), lr=0.1))
