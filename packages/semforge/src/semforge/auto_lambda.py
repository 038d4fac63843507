"""Auto-lambda: loss weights that serve the primary task (specification 3.5; Liu et al. 2022).

After one virtual step of the network, theta' = theta - a (m + sum_k lambda_k grad L_k + wd theta),
the weights go down the gradient of the primary loss P on held-out data:
dP(theta')/dlambda_k = -a <grad L_k(theta), grad P(theta')>.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam, Optimizer

Form = Literal["exact", "finite"]
Objective = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


class Update(NamedTuple):
    """What a step of the weights leaves for the step of the network.

    Attributes:
        total: the weighted training loss under the new weights, a scalar for ``backward``.
        losses: the training losses, detached, shape (K,).
    """

    total: Tensor
    losses: Tensor


class AutoLambda(nn.Module):
    """Weights of K losses, learnt with a gradient through one step of the network.

    Nothing of the network is changed here: the virtual step and the perturbed networks are other
    tensors, buffers (running means) of batch normalisation included. All passes over the training
    batch draw the same random numbers, so dropout has one mask.

    The exact form takes K backward passes and keeps K gradients; the finite form perturbs the
    network along grad P and takes two forward passes instead. In both, the training batch's
    ordinary forward pass is shared. Under float16 autocast all of it runs in float32.

    Args:
        tasks: K, number of losses.
        primary: number of the loss that counts on held-out data.
        lr: rate of Adam on the weights.
        init: their first value.
        minimum: the weights are held at or above it; None lets them go negative, as in the paper.
        every: batches from one step of the weights to the next, for `due`.
        form: ``exact``, or ``finite`` for the paper's central difference.

    Attributes:
        weights: lambda, float32, shape (K,).
        optimizer: Adam of the weights.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        tasks: int = 3,
        *,
        primary: int = 0,
        lr: float = 1e-3,
        init: float = 1.0,
        minimum: float | None = None,
        every: int = 1,
        form: Form = "exact",
    ) -> None:
        super().__init__()
        if tasks < 2:
            raise ValueError(f"Auto-lambda weighs two losses or more, got {tasks}")
        if not 0 <= primary < tasks:
            raise ValueError(f"primary must be in [0, {tasks}), got {primary}")
        if lr <= 0 or every < 1:
            raise ValueError(f"lr must be > 0 and every >= 1, got {lr} and {every}")
        if form not in ("exact", "finite"):
            raise ValueError(f"form must be exact or finite, got {form}")
        if minimum is not None and init < minimum:
            raise ValueError(f"init must be >= minimum, got {init} < {minimum}")
        self.primary, self.minimum, self.every, self.form = primary, minimum, every, form
        self.weights = nn.Parameter(torch.full((tasks,), float(init)), requires_grad=False)
        self.optimizer = Adam([self.weights], lr=lr)

    def due(self, batch_idx: int) -> bool:
        """Return whether the weights move with this batch, numbered from 0."""
        return batch_idx % self.every == 0

    def weighted(self, losses: Tensor) -> Tensor:
        """Return sum_k lambda_k L_k, a scalar; losses (K,)."""
        return (self.weights.to(losses.dtype) * losses).sum()

    def update(
        self,
        net: nn.Module,
        objective: Objective,
        train: Batch,
        meta: Batch,
        optimizer: Optimizer,
    ) -> Update:
        """Move the weights one step, and return the training loss under the new ones.

        Gradients in ``net.parameters()`` are left alone; call ``total.backward()`` and step the
        network's optimizer next.

        Args:
            net: maps inputs to scores.
            objective: maps scores and targets to the K losses.
            train: inputs and targets of the training batch.
            meta: inputs and targets that were held out.
            optimizer: of `net`: its rates, weight decay and momentum (where it has one) make the
                virtual step.

        Raises:
            ValueError: the objective gives another number of losses.
        """
        parameters = {n: p for n, p in net.named_parameters() if p.requires_grad}
        rates, rate = _relative_rates(parameters, optimizer)
        of_tasks: list[list[Tensor]] = []
        with _without_float16(train[0].device):
            randomness = _Randomness(train[0].device)
            losses = objective(net(train[0]), train[1])
            if losses.shape != self.weights.shape:
                raise ValueError(f"expected {len(self.weights)} losses, got {tuple(losses.shape)}")
            if self.form == "exact":
                of_tasks = [_gradients(loss, parameters) for loss in losses]
                losses = losses.detach()  # lets go of the activations
                moved = virtual_step(parameters, self._mix(of_tasks), optimizer)
            else:
                gradient = _gradients(self.weighted(losses), parameters)
                moved = virtual_step(parameters, gradient, optimizer)
                del gradient  # as large as the network, as is the next
            direction = self._meta_gradient(net, objective, meta, moved, rates)
            del moved
            if self.form == "exact":
                slopes = torch.stack([_dot(task, direction) for task in of_tasks])
            else:
                slopes = _central_difference(
                    net, objective, train, parameters, direction, randomness
                )
        self._move(-rate * slopes)
        if self.form == "finite":
            return Update(self.weighted(losses), losses.detach())
        linear = _dot(parameters.values(), self._mix(of_tasks))  # its gradient is the mixture
        return Update(linear - linear.detach() + self.weighted(losses), losses)

    def _meta_gradient(
        self,
        net: nn.Module,
        objective: Objective,
        meta: Batch,
        moved: Mapping[str, Tensor],
        rates: Sequence[float],
    ) -> list[Tensor]:
        primary = objective(_call(net, moved, meta[0]), meta[1])[self.primary]
        return [r * g for r, g in zip(rates, _gradients(primary, moved), strict=True)]

    def _mix(self, of_tasks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        weights = self.weights.unbind()
        return [
            sum((w * g for w, g in zip(weights, gradients, strict=True)), torch.zeros(()))
            for gradients in zip(*of_tasks, strict=True)
        ]

    def _move(self, gradient: Tensor) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(gradient)
            gradient = gradient / torch.distributed.get_world_size()
        self.weights.grad = gradient.to(self.weights.dtype)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.minimum is not None:
            with torch.no_grad():
                self.weights.clamp_(min=self.minimum)


def virtual_step(
    parameters: Mapping[str, Tensor], gradient: Iterable[Tensor], optimizer: Optimizer
) -> dict[str, Tensor]:
    """Return theta' = theta - a (m + gradient + wd theta), new leaves that require gradients.

    Args:
        parameters: theta by name.
        gradient: of each.
        optimizer: gives a, wd and, where it has a momentum (SGD), m = momentum * buffer; for others
            such as Adam m is 0, as in the paper's code. Parameters it lacks stay.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    moved = {}
    with torch.no_grad():
        for (name, p), g in zip(parameters.items(), gradient, strict=True):
            group = groups.get(id(p), {"lr": 0.0})
            step = g + group.get("weight_decay", 0.0) * p
            buffer = optimizer.state[p].get("momentum_buffer") if p in optimizer.state else None
            if buffer is not None:
                step = step + group["momentum"] * buffer
            moved[name] = (p - group["lr"] * step).requires_grad_()
    return moved


def _relative_rates(
    parameters: Mapping[str, Tensor], optimizer: Optimizer
) -> tuple[list[float], float]:
    """Return each parameter's rate as a share of the largest, and the largest."""
    of = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    rates = [of.get(id(p), 0.0) for p in parameters.values()]
    largest = max(rates, default=0.0)
    return [rate / largest if largest else 0.0 for rate in rates], largest


def _central_difference(
    net: nn.Module,
    objective: Objective,
    train: Batch,
    parameters: Mapping[str, Tensor],
    direction: Sequence[Tensor],
    randomness: _Randomness,
) -> Tensor:
    """Return the slopes of the K losses along `direction`, which is not scaled to length 1."""
    eps = 0.01 / (_dot(direction, direction).sqrt() + 1e-6)
    losses = []
    with torch.no_grad():
        for sign in (1, -1):
            moved = {
                name: p + sign * eps * d
                for (name, p), d in zip(parameters.items(), direction, strict=True)
            }
            with randomness.again():
                losses.append(objective(_call(net, moved, train[0]), train[1]))
    return (losses[0] - losses[1]) / (2 * eps)


class _Randomness:
    """The state of the generators now, to draw the same numbers again."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.devices)]

    @contextmanager
    def again(self) -> Iterator[None]:
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.states[0])
            for device, state in zip(self.devices, self.states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def _call(net: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return what `net` gives with other parameters; its buffers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    return functional_call(net, {**buffers, **parameters}, (inputs,))


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    inputs = tuple(parameters.values())
    return list(
        torch.autograd.grad(
            loss, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _dot(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


@contextmanager
def _without_float16(device: torch.device) -> Iterator[None]:
    """Switch autocast off where it is float16, whose small gradients vanish unscaled."""
    half = torch.is_autocast_enabled(device.type)
    half = half and torch.get_autocast_dtype(device.type) == torch.float16
    with torch.autocast(device.type, enabled=False) if half else nullcontext():
        yield
