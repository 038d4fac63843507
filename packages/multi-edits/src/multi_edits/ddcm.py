"""The inversion-free step: one image's known clean latent guides another's (paper eq. 4)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LEAST_ALPHA_BAR = 2.0**-24  # schedules with zero terminal SNR reach 0

Prediction = Literal["epsilon", "v_prediction"]


class DDCMStep(NamedTuple):
    """What one step gives; all of the shape of the latents, float32.

    Attributes:
        edit: the edited latent at the next, smaller timestep.
        reference: the reference's latent there.
        x0: the edited latent's clean estimate now.
    """

    edit: Tensor
    reference: Tensor
    x0: Tensor


def ddcm_step(
    edit: Tensor,
    reference: Tensor,
    eps_edit: Tensor,
    eps_reference: Tensor,
    x0_reference: Tensor,
    *,
    alpha_bar: float,
    alpha_bar_next: float,
    noise: Tensor,
    eta: float = 1.0,
) -> DDCMStep:
    """Return one denoising step of an edited latent beside a reference whose clean latent is known.

    Paper eq. 4 in its difference form, exact where both latents and predictions are equal::

        x0 = x0_r + ((x - x_r) - sqrt(1 - a) (eps - eps_r)) / sqrt(a)
        x' = sqrt(a') x0 + sqrt(1 - a' - s^2) (eps - eps_r + eps_cons) + s n,  s^2 = eta (1 - a')

    with eps_cons = (x_r - sqrt(a) x0_r) / sqrt(1 - a); the reference's x' has x0_r in place of x0.

    Args:
        edit: noisy edited latents x, any float dtype, (B, C, H, W) or what broadcasts.
        reference: noisy reference latents x_r.
        eps_edit: predicted noise eps of the edited latents.
        eps_reference: predicted noise eps_r of the reference.
        x0_reference: clean reference latents x0_r.
        alpha_bar: a, the product of alphas at this timestep, in (0, 1).
        alpha_bar_next: a' at the next timestep, in (0, 1]; at the last step that of this one.
        noise: standard normal n, shared by both, and by all branches.
        eta: share of fresh noise, in [0, 1]; paper: 1, where the middle term is 0.

    Raises:
        ValueError: an alpha_bar or eta is outside its range.
    """
    if not (0 < alpha_bar < 1 and 0 < alpha_bar_next <= 1 and 0 <= eta <= 1):
        raise ValueError(
            "alpha_bar must be in (0, 1), alpha_bar_next in (0, 1] and eta in [0, 1], "
            f"got {alpha_bar}, {alpha_bar_next} and {eta}"
        )
    x, x_ref, x0_ref = edit.float(), reference.float(), x0_reference.float()
    change = eps_edit.float() - eps_reference.float()
    signal, spread = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    x0 = x0_ref + ((x - x_ref) - spread * change) / signal
    renewed = math.sqrt(eta * (1 - alpha_bar_next)) * noise.float()
    if eta < 1:
        consistent = (x_ref - signal * x0_ref) / spread
        renewed = renewed + math.sqrt((1 - alpha_bar_next) * (1 - eta)) * (change + consistent)
    signal_next = math.sqrt(alpha_bar_next)
    return DDCMStep(signal_next * x0 + renewed, signal_next * x0_ref + renewed, x0)


def to_epsilon(
    prediction: Tensor, latents: Tensor, alpha_bar: float, kind: Prediction = "epsilon"
) -> Tensor:
    """Return the noise that a network's output stands for, float32.

    Args:
        prediction: the network's output, any float dtype, (B, C, H, W).
        latents: what it was given, of the same shape.
        alpha_bar: the product of alphas at this timestep, in (0, 1).
        kind: what the network predicts; v = sqrt(a) eps - sqrt(1 - a) x0.

    Raises:
        ValueError: the kind is neither epsilon nor v_prediction.
    """
    if kind == "epsilon":
        return prediction.float()
    if kind == "v_prediction":
        signal, spread = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        return signal * prediction.float() + spread * latents.float()
    raise ValueError(f"kind must be epsilon or v_prediction, got {kind}")


def lcm_timesteps(steps: int, *, original_steps: int = 50, train_steps: int = 1000) -> list[int]:
    """Return the timesteps of a latent consistency model, the noisiest first.

    They are spread over the grid of `original_steps` that the model was distilled on, from its
    noisiest step; 4 of 50 are 999, 759, 499, 259.

    Args:
        steps: how many, in [1, original_steps].
        original_steps: length of the grid, in [1, train_steps].
        train_steps: timesteps of the training.

    Raises:
        ValueError: a number is outside its range.
    """
    if not 1 <= steps <= original_steps <= train_steps:
        raise ValueError(
            f"steps must be in 1..{original_steps} (the grid of the model) and that at most "
            f"{train_steps}, got {steps}"
        )
    stride = train_steps // original_steps
    grid = torch.arange(original_steps, 0, -1) * stride - 1
    return grid[torch.arange(steps) * original_steps // steps].tolist()


def trailing_timesteps(steps: int, *, train_steps: int = 1000) -> list[int]:
    """Return evenly spread timesteps that begin with the very noisiest, as pure noise needs.

    Args:
        steps: how many, in [1, train_steps].
        train_steps: timesteps of the training.

    Raises:
        ValueError: steps is outside its range.

    Example:
        >>> trailing_timesteps(4)
        [999, 749, 499, 249]
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must be in 1..{train_steps}, got {steps}")
    return [round(train_steps * (steps - k) / steps) - 1 for k in range(steps)]
