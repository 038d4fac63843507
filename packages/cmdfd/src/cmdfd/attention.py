"""Attention from one stream to another, with the official code's residual.

Specification section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CrossModalAttention(nn.Module):
    """One Transformer layer in which ``tar`` asks ``src``, and the answer is added to ``src``.

    The residual is the stream of keys and values, as in the official code, not that of the
    queries; so both must have the same length.

    Args:
        dim: D, a multiple of heads.
        heads: of the attention. Paper: 8.
        dropout: of the attention and of both branches. Paper: 0.1.
    """

    def __init__(self, dim: int, *, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src: Tensor, tar: Tensor) -> Tensor:
        """Return the stream ``src`` with what ``tar`` asked of it.

        Args:
            src: keys, values and residual, float, shape (B, T, D).
            tar: queries, shape (B, T, D).

        Returns:
            float, shape (B, T, D).
        """
        answer = self.self_attn(tar, src, src, need_weights=False)[0]
        y = self.norm1(src + self.dropout(answer))
        hidden = self.dropout(F.relu(self.linear1(y)))
        return self.norm2(y + self.dropout(self.linear2(hidden)))
