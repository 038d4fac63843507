"""The non-local block in 3-D (Wang, Girshick, Gupta, He 2018), without its N x N matrix.

For a feature map x with C channels at N positions::

    y_i = (1 / Z_i) * sum_j f(x_i, x_j) g(x_j)        z_i = BN(W_z y_i + b_z) + x_i

`f` has four forms. Each is evaluated in memory O(N C): the softmax forms by fused attention, the
dot product by associativity, concatenation by sorting.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlran.normalization import Norm, norm_layer

Form = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Return y with f = exp(theta_i . phi_j) and Z_i = sum_j f: softmax over j, no 1/sqrt(d).

    Args:
        theta: queries, float, shape (B, N, E).
        phi: keys, float, shape (B, M, E).
        g: values, float, shape (B, M, V).

    Returns:
        Shape (B, N, V).
    """
    # Fused kernels want equal widths and contiguous rows; else torch makes the N x M matrix.
    missing = theta.shape[-1] - g.shape[-1]
    wide = F.pad(g, (0, missing)) if missing > 0 else g
    query, key, value = (rows.contiguous()[:, None] for rows in (theta, phi, wide))
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return attended[:, 0, :, : g.shape[-1]]


def dot_product_attention(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Return y with f = theta_i . phi_j and Z = M, as theta (phi^T g) / M.

    Args:
        theta: queries, float, shape (B, N, E).
        phi: keys, float, shape (B, M, E).
        g: values, float, shape (B, M, V).

    Returns:
        Shape (B, N, V).
    """
    return theta @ (phi.transpose(1, 2) @ (g / g.shape[1]))


def concatenation_attention(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """Return y with f = ReLU(a_i + b_j) and Z = M; first-order gradients only.

    Sorted by b, the keys with f > 0 come first for every query, so that two running sums and one
    search per query replace the matrix.

    Args:
        a: the queries' share of w . [theta_i ; phi_j], float, shape (B, N).
        b: the keys' share, float, shape (B, M).
        g: values, float, shape (B, M, V).

    Returns:
        Shape (B, N, V).
    """
    b, order = b.sort(dim=1, descending=True)
    g = g.gather(1, order[..., None].expand_as(g))
    sums = F.pad(torch.cat([g, b[..., None] * g], 2).cumsum(1), (0, 0, 1, 0))
    seen = torch.searchsorted((-b).detach(), a.detach().contiguous())  # how many b_j > -a_i
    sum_g, sum_bg = sums.gather(1, seen[..., None].expand(-1, -1, sums.shape[2])).chunk(2, dim=2)
    return (a[..., None] * sum_g + sum_bg) / g.shape[1]


class NonLocalBlock3d(nn.Module):
    """A non-local block; a new one is the identity, bit for bit.

    Without sub-sampling it is equivariant to permutations of the positions.

    Args:
        channels: C, >= 1.
        inner_channels: width of theta, phi and g; C // 2 if None. A multiple of 8 suits fused
            kernels on CUDA.
        form: f: ``embedded_gaussian`` (the default), ``gaussian`` (theta and phi are x itself),
            ``dot_product`` or ``concatenation``.
        subsample: max-pool phi and g by (1, 2, 2): a quarter of the keys.
        norm: after W_z, scale and shift 0 at first: ``batch``, ``group``, or None; without one W_z
            is 0 at first.

    Attributes:
        theta: 1 x 1 x 1 convolution C -> inner (none for gaussian).
        phi: likewise.
        g: 1 x 1 x 1 convolution C -> inner.
        out: W_z, 1 x 1 x 1 convolution inner -> C.
        norm: the normalisation, or the identity.
        concat: w of the concatenation form, 1 x (2 inner), no bias.

    Raises:
        ValueError: unknown form, or a width below 1.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        form: Form = "embedded_gaussian",
        subsample: bool = False,
        norm: Norm | None = "batch",
    ) -> None:
        super().__init__()
        inner = max(1, channels // 2) if inner_channels is None else inner_channels
        if min(channels, inner) < 1:
            raise ValueError(f"channels and inner_channels must be >= 1, got {channels}, {inner}")
        if form not in ("embedded_gaussian", "gaussian", "dot_product", "concatenation"):
            raise ValueError(
                "form must be embedded_gaussian, gaussian, dot_product or concatenation, "
                f"got {form}"
            )
        self.form, self.subsample, self.inner_channels = form, subsample, inner
        if form != "gaussian":
            self.theta = nn.Conv3d(channels, inner, 1)
            self.phi = nn.Conv3d(channels, inner, 1)
        if form == "concatenation":
            self.concat = nn.Linear(2 * inner, 1, bias=False)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.Identity() if norm is None else norm_layer(norm)(channels)
        for parameter in (self.out if norm is None else self.norm).parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return z.

        Args:
            x: float, shape (B, C, D, H, W).

        Returns:
            The same shape.
        """
        return x + self.norm(self._w_z(self._attend(x)).unflatten(2, x.shape[2:]))

    def _attend(self, x: Tensor) -> Tensor:
        """Return y as rows (B, N, V)."""
        theta, phi, g = self._project(x)
        if self.form == "dot_product":
            return dot_product_attention(theta, phi, g)
        if self.form == "concatenation":
            return concatenation_attention(*self._shares(theta, phi), g)
        return softmax_attention(theta, phi, g)

    def _w_z(self, y: Tensor) -> Tensor:
        """Return W_z y + b_z, shape (B, C, N)."""
        weight, bias = self.out.weight.flatten(1).expand(len(y), -1, -1), self.out.bias
        assert bias is not None
        return torch.baddbmm(bias[:, None], weight, y.transpose(1, 2))

    def attention_rows(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return the weights f / Z of chosen queries, for figures; the whole map is never made.

        Args:
            x: float, shape (B, C, D, H, W).
            positions: queries as flat positions in D x H x W, int64, shape (P,).

        Returns:
            float32, shape (B, P, M); M = D H W, or D (H // 2) (W // 2) with sub-sampling.
        """
        theta, phi, _ = self._project(x)
        return self._weights(theta[:, positions], phi)

    @torch.no_grad()
    def attention_received(self, x: Tensor, *, chunk: int = 256) -> Tensor:
        """Return how much each key position is looked at: the mean of f / Z over all queries.

        Args:
            x: float, shape (B, C, D, H, W).
            chunk: queries at once; bounds the memory to B x chunk x M.

        Returns:
            float32 on the keys' grid, shape (B, D, H', W').
        """
        theta, phi, _ = self._project(x)
        received = torch.zeros(phi.shape[:2], device=x.device)
        for queries in theta.split(chunk, dim=1):
            received += self._weights(queries, phi).sum(1)
        depth, height, width = x.shape[2:]
        keys = (depth, height // 2, width // 2) if self.subsample else (depth, height, width)
        return (received / theta.shape[1]).unflatten(1, keys)

    def _weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        theta, phi = theta.float(), phi.float()
        if self.form == "concatenation":
            a, b = self._shares(theta, phi)
            return (a[:, :, None] + b[:, None]).relu() / phi.shape[1]
        scores = theta @ phi.transpose(1, 2)
        return scores / phi.shape[1] if self.form == "dot_product" else scores.softmax(2)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return theta (B, N, E), phi (B, M, E) and g (B, M, V)."""
        own = x.flatten(2).transpose(1, 2)
        theta = own if self.form == "gaussian" else _rows(self.theta, x)
        if not self.subsample:
            phi = own if self.form == "gaussian" else _rows(self.phi, x)
            return theta, phi, _rows(self.g, x)
        keys = x if self.form == "gaussian" else self.phi(x)
        phi, g = (F.max_pool3d(t, (1, 2, 2)).flatten(2) for t in (keys, self.g(x)))
        return theta, phi.transpose(1, 2), g.transpose(1, 2)

    def _shares(self, theta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        of_theta, of_phi = self.concat.weight.to(theta.dtype).squeeze(0).chunk(2)
        return theta @ of_theta, phi @ of_phi


def _rows(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Return a 1 x 1 x 1 convolution of x as rows (B, N, E), contiguous without a copy."""
    assert conv.bias is not None
    weight = conv.weight.flatten(1).t().expand(len(x), -1, -1)
    return torch.baddbmm(conv.bias, x.flatten(2).transpose(1, 2), weight)
