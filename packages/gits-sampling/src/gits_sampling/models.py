"""Diffusion models whose denoiser is closed form, and a denoiser's fingerprint (section 3.2).

A denoiser is any callable ``D(x, sigma) -> x0``: the mean of the clean sample given the noisy one,
x = x0 + sigma * noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``D(x, sigma)``: x float (B, ...), sigma a float64 scalar or (B,), > 0; returns x's shape."""


class EmpiricalDenoiser(nn.Module):
    """The exact denoiser of a finite data set, one mean-shift step of bandwidth sigma.

    ``D(x; t) = sum_i softmax_i(-|x - y_i|^2 / (2 t^2)) y_i`` (section 3.2, identity 4). Evaluated
    in the dtype of its buffers: float64 holds from sigma 1e-3 up, float32 from about 0.05.

    Args:
        data: the samples y, float, shape (M, ...), M >= 1, finite; kept as float64.
        chunk: samples at once; bounds the memory to B x chunk.

    Attributes:
        data: float64, shape (M, ...).

    Raises:
        ValueError: no samples, values that are not finite, or chunk < 1.
    """

    data: Tensor

    def __init__(self, data: Tensor, *, chunk: int = 4096) -> None:
        super().__init__()
        _check_finite("data", data)
        if data.ndim < 2 or not data.numel():
            raise ValueError(f"data must be (M, ...) with M >= 1, got {tuple(data.shape)}")
        if chunk < 1:
            raise ValueError(f"chunk must be >= 1, got {chunk}")
        self.chunk = chunk
        self.register_buffer("data", data.detach().double())

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return D(x; sigma).

        Args:
            x: noisy samples, float, shape (B, ...).
            sigma: noise level, > 0, scalar or (B,).

        Returns:
            Shape and dtype of x.

        Raises:
            ValueError: the trailing shape is not that of the data, or sigma's shape does not fit.
        """
        rows, variance = _rows(x, sigma, self.data)
        # Softmax over the chunks in turn: weights relative to the largest exponent so far.
        largest = rows.new_full((len(rows), 1), -math.inf)
        total, mean = rows.new_zeros(len(rows), 1), torch.zeros_like(rows)
        for samples in self.data.flatten(1).split(self.chunk):
            # |x|^2 is the same for all samples: only what tells them apart is computed.
            exponent = (rows @ samples.T - samples.square().sum(1) / 2) / variance
            before, largest = largest, largest.maximum(exponent.detach().amax(1, keepdim=True))
            shrink, weight = (before - largest).exp(), (exponent - largest).exp()
            total = total * shrink + weight.sum(1, keepdim=True)
            mean = mean * shrink + weight @ samples
        return (mean / total).reshape(x.shape).to(x.dtype)


class GaussianMixtureDenoiser(nn.Module):
    """The exact denoiser of a mixture of Gaussians N(m_k, C_k) with weights w_k.

    ``D(x; t) = sum_k p_k(x) (m_k + C_k (C_k + t^2 I)^-1 (x - m_k))``, p_k proportional to
    ``w_k N(x; m_k, C_k + t^2 I)`` (section 3.2, identity 5; with isotropic C_k, the model of the
    parity set). Evaluated in the dtype of its buffers, float64.

    Args:
        means: m, float, shape (K, ...); the trailing shape has d values.
        covariances: variances of isotropic components, shape (K,), >= 0; or full matrices,
            shape (K, d, d), symmetric, positive semi-definite; or ``(U, L)``: orthonormal columns
            U (K, d, r) and their variances L (K, r), >= 0, with no variance outside them.
        weights: w, shape (K,), > 0, divided by their sum; equal if None.
        chunk: values of one (rows, K, d) block at once; bounds the memory.

    Attributes:
        means: float64, shape (K, ...).
        basis: U, shape (K, d, r); r = 0 for isotropic components.
        variances: L, shape (K, r).
        rest: variance outside U, shape (K,).
        log_weights: shape (K,).

    Raises:
        ValueError: shapes that do not match, negative variances, weights <= 0, values that are
            not finite, an asymmetric matrix, or columns of U that are not orthonormal.
    """

    means: Tensor
    basis: Tensor
    variances: Tensor
    rest: Tensor
    log_weights: Tensor

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor | tuple[Tensor, Tensor],
        weights: Tensor | None = None,
        *,
        chunk: int = 2**24,
    ) -> None:
        super().__init__()
        _check_finite("means", means)
        if means.ndim < 2 or not means.numel():
            raise ValueError(f"means must be (K, ...) with K >= 1, got {tuple(means.shape)}")
        if chunk < 1:
            raise ValueError(f"chunk must be >= 1, got {chunk}")
        count, dimension = means.flatten(1).shape
        basis, variances, rest = _spectrum(covariances, count, dimension)
        weights = torch.ones(count) if weights is None else weights
        if weights.shape != (count,) or not ((weights > 0) & weights.isfinite()).all():
            raise ValueError(f"weights must be {count} finite values > 0, got {weights.tolist()}")
        weights = weights.detach().double()
        self.chunk = chunk
        self.register_buffer("means", means.detach().double())
        self.register_buffer("basis", basis)
        self.register_buffer("variances", variances)
        self.register_buffer("rest", rest)
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return D(x; sigma).

        Args:
            x: noisy samples, float, shape (B, ...).
            sigma: noise level, > 0, scalar or (B,).

        Returns:
            Shape and dtype of x.

        Raises:
            ValueError: the trailing shape is not that of the means, or sigma's shape does not fit.
        """
        rows, variance = _rows(x, sigma, self.means)
        size = max(1, self.chunk // self.means.numel())
        blocks = zip(rows.split(size), variance.expand(len(rows), 1).split(size), strict=True)
        denoised = torch.cat([self._denoise(part, level) for part, level in blocks])
        return denoised.reshape(x.shape).to(x.dtype)

    def _denoise(self, rows: Tensor, variance: Tensor) -> Tensor:
        """Return D of rows (B, d) at squared noise levels (B, 1)."""
        means = self.means.flatten(1)
        offset = rows[:, None] - means  # (B, K, d)
        inside = torch.einsum("bkd,kdr->bkr", offset, self.basis)
        of_basis = self.variances / (self.variances + variance[..., None])  # (B, K, r)
        of_rest = self.rest / (self.rest + variance)  # (B, K)
        shift = torch.einsum("bkr,kdr->bkd", (of_basis - of_rest[..., None]) * inside, self.basis)
        component = means + shift + of_rest[..., None] * offset
        p = self._log_density(offset, inside, variance).softmax(1)
        return torch.einsum("bk,bkd->bd", p, component)

    def _log_density(self, offset: Tensor, inside: Tensor, variance: Tensor) -> Tensor:
        """Return log w_k N(x; m_k, C_k + t^2 I) up to a constant, shape (B, K)."""
        spread = self.variances + variance[..., None]
        log = self.log_weights - (inside.square() / spread + spread.log()).sum(2) / 2
        missing = self.basis.shape[1] - self.basis.shape[2]
        if not missing:
            return log
        outside = offset - torch.einsum("bkr,kdr->bkd", inside, self.basis)
        spread = self.rest + variance
        return log - (outside.square().sum(2) / spread + missing * spread.log()) / 2

    def solution(self, x: Tensor, sigma_start: float, sigma: float) -> Tensor:
        """Return the exact solution of the probability-flow ODE, for one component.

        ``x(t) = m + U diag(sqrt((L + t^2) / (L + t_0^2))) U^T (x(t_0) - m)`` (identity 5).

        Args:
            x: state at sigma_start, float, shape (B, ...).
            sigma_start: t_0, > 0.
            sigma: t, >= 0.

        Returns:
            Shape and dtype of x.

        Raises:
            ValueError: more than one component, a noise level out of range, or another trailing
                shape.
        """
        if len(self.means) != 1:
            raise ValueError(
                f"only one Gaussian has an exact solution, got {len(self.means)} components"
            )
        if not (0 < sigma_start < math.inf and 0 <= sigma < math.inf):
            raise ValueError(f"need sigma_start > 0 and sigma >= 0, got {sigma_start} and {sigma}")
        rows, _ = _rows(x, sigma_start, self.means)
        offset, basis = rows - self.means.flatten(1), self.basis[0]

        def factor(variance: Tensor) -> Tensor:
            return ((variance + sigma**2) / (variance + sigma_start**2)).sqrt()

        of_rest = factor(self.rest)
        shift = ((factor(self.variances) - of_rest) * (offset @ basis)) @ basis.T
        result = self.means.flatten(1) + shift + of_rest * offset
        return result.reshape(x.shape).to(x.dtype)


def digits_empirical() -> EmpiricalDenoiser:
    """Return model A of section 7.2: the denoiser of scikit-learn's 1797 digits, x = v/8 - 1.

    Returns:
        Trailing shape (1, 8, 8).
    """
    return EmpiricalDenoiser(_digits()[0])


def digits_gauss10() -> GaussianMixtureDenoiser:
    """Return model B of section 7.2: a Gaussian with full covariance for each of the ten digits.

    Weights are the class frequencies; covariances divide by n - 1.

    Returns:
        Trailing shape (1, 8, 8).
    """
    images, labels = _digits()
    classes = [images[labels == digit] for digit in range(10)]
    return GaussianMixtureDenoiser(
        torch.stack([images.mean(0) for images in classes]),
        torch.stack([images.flatten(1).T.cov() for images in classes]),
        torch.tensor([float(len(images)) for images in classes]),
    )


@torch.no_grad()
def fingerprint(
    denoiser: Denoiser,
    shape: Sequence[int],
    sigmas: Sequence[float] | Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> str:
    """Return a short hash of a denoiser's outputs on fixed inputs, to tell models apart.

    Outputs enter by their size and their share along a fixed direction, both to three digits, so
    that rounding rarely shows; nor do changes below about 0.1 %. Middle noise levels tell most:
    at the largest all models of a data set agree, at the smallest D(x) is x.

    Args:
        denoiser: the model, called with one sample.
        shape: trailing shape of a sample.
        sigmas: noise levels, > 0, at least one.
        dtype: of the input.
        device: of the input.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: no noise level, one that is not positive, or outputs that are of another shape
            or not finite.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten().cpu()
    if not len(levels) or not ((levels > 0) & levels.isfinite()).all():
        raise ValueError(f"sigmas must be finite values > 0, got {levels.tolist()}")
    generator = torch.Generator().manual_seed(0)
    noise, probe = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    words = [str(tuple(shape))]
    for level in levels:
        x = (level * noise).to(device, dtype)
        output = denoiser(x, level.to(device)).double().cpu()
        if output.shape != noise.shape:
            raise ValueError(
                f"the denoiser must keep the shape {tuple(x.shape)}, got {tuple(output.shape)}"
            )
        if not output.isfinite().all():
            raise ValueError(f"the denoiser's output is not finite at sigma {level.item():g}")
        size = output.norm().item()
        share = (output * probe).sum().item() / (size or 1.0)
        words.append(f"{level.item():.6g} {size:.2e} {round(share, 3) + 0.0:.3f}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _digits() -> tuple[Tensor, Tensor]:
    """Return the digits, float64 (1797, 1, 8, 8) in [-1, 1], and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images)[:, None] / 8 - 1, torch.from_numpy(digits.target)


def _rows(x: Tensor, sigma: Tensor | float, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return x as rows (B, d) in the data's dtype, and sigma^2 as (1, 1) or (B, 1)."""
    if x.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"x must be (B, {', '.join(map(str, data.shape[1:]))}), got {tuple(x.shape)}"
        )
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, len(x))):
        raise ValueError(f"sigma must be a scalar or ({len(x)},), got {tuple(sigma.shape)}")
    variance = sigma.square().to(data.device, data.dtype).reshape(-1, 1)
    return x.to(data.dtype).flatten(1), variance


def _spectrum(
    covariances: Tensor | tuple[Tensor, Tensor], count: int, dimension: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (K, d, r), L (K, r) and the variance outside U (K,), float64."""
    if isinstance(covariances, Tensor):
        _check_finite("covariances", covariances)
        given = covariances.detach().double()
        if given.shape == (count,):
            if (given < 0).any():
                raise ValueError(f"variances must be >= 0, got {given.min().item():g}")
            return given.new_zeros(count, dimension, 0), given.new_zeros(count, 0), given
        if given.shape != (count, dimension, dimension):
            raise ValueError(
                f"covariances must be ({count},), ({count}, {dimension}, {dimension}) or (U, L), "
                f"got {tuple(given.shape)}"
            )
        tolerance = 1e-6 * max(given.abs().max().item(), 1e-300)
        if (given - given.mT).abs().max() > tolerance:
            raise ValueError("covariances must be symmetric")
        values, basis = torch.linalg.eigh(given)
        if (values < -tolerance).any():
            raise ValueError(
                f"covariances must be positive semi-definite, got eigenvalue {values.min():g}"
            )
        return basis, values.clamp(min=0), given.new_zeros(count)
    basis, values = (part.detach().double() for part in covariances)
    rank = basis.shape[-1]
    if basis.shape != (count, dimension, rank) or values.shape != (count, rank):
        raise ValueError(
            f"(U, L) must be ({count}, {dimension}, r) and ({count}, r), "
            f"got {tuple(basis.shape)} and {tuple(values.shape)}"
        )
    _check_finite("L", values)
    if (values < 0).any():
        raise ValueError(f"variances must be >= 0, got {values.min().item():g}")
    identity = torch.eye(rank, dtype=basis.dtype, device=basis.device)
    if not torch.allclose(basis.mT @ basis, identity, atol=1e-5):
        raise ValueError("the columns of U must be orthonormal")
    return basis, values, values.new_zeros(count)


def _check_finite(name: str, values: Tensor) -> None:
    if not values.is_floating_point() or not values.isfinite().all():
        raise ValueError(f"{name} must be finite floating-point values")
