"""Scores of pairs of embeddings, symmetric by construction; torch alone.

Every head gives one score per pair, higher where one writer is likelier: head(a, b) = head(b, a).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PairHead(nn.Module):
    """The paper's pair head on the absolute difference of projections (section 3.1).

    u = |g(a) - g(b)| with g linear; a small MLP gives the logit of "same writer".

    Args:
        dim: size of the embeddings.
        hidden: size of the projection.
        product: also give the MLP g(a) * g(b).
        signed: the published script's signed difference; the score then depends on the order.
    """

    def __init__(
        self, dim: int, *, hidden: int = 64, product: bool = False, signed: bool = False
    ) -> None:
        super().__init__()
        self.product, self.signed = product, signed
        self.projection = nn.Linear(dim, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden * (2 if product else 1), hidden // 2),
            nn.ReLU(),
            nn.Linear(hidden // 2, 1),
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the logits, shape (N,).

        Args:
            a: embeddings, float, shape (N, dim).
            b: likewise.
        """
        a, b = self.projection(a), self.projection(b)
        difference = a - b if self.signed else (a - b).abs()
        if self.product:
            difference = torch.cat([difference, a * b], dim=1)
        logits: Tensor = self.mlp(difference)
        return logits.squeeze(1)


class CosineHead(nn.Module):
    """The cosine of centred embeddings.

    The mean of the training images is taken off first: what all words share says nothing about the
    writer. No label is needed, unless `whiten` is set.

    Args:
        dim: size of the embeddings.
        whiten: also divide by how the words of one writer vary (within-class covariance
            normalisation): what changes from word to word of one hand counts less. Our choice.
    """

    mean: Tensor
    transform: Tensor

    def __init__(self, dim: int, *, whiten: bool = False) -> None:
        super().__init__()
        self.whiten = whiten
        self.register_buffer("mean", torch.zeros(dim))
        if whiten:
            self.register_buffer("transform", torch.eye(dim))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the cosines, in [-1, 1], shape (N,); see `PairHead.forward`."""
        return F.cosine_similarity(self._centre(a), self._centre(b), dim=1)

    def _centre(self, embeddings: Tensor) -> Tensor:
        centred = embeddings - self.mean
        return F.normalize(centred) @ self.transform if self.whiten else centred

    @torch.no_grad()
    def fit(self, embeddings: Tensor, writers: Tensor | None = None) -> None:
        """Take the mean of training embeddings and, where `whiten` is set, their covariance.

        Args:
            embeddings: float32, shape (N, dim).
            writers: class number of each embedding's writer, int64, shape (N,), where `whiten`.
        """
        self.mean.copy_(embeddings.mean(0))
        if not self.whiten:
            return
        assert writers is not None
        unit = F.normalize(embeddings - self.mean).double()
        counts = torch.bincount(writers)
        sums = unit.new_zeros(len(counts), unit.shape[1]).index_add_(0, writers, unit)
        within = unit - (sums / counts.clamp(min=1)[:, None])[writers]
        covariance = within.T @ within / len(unit)
        ridge = SHRINKAGE * covariance.diagonal().mean()
        covariance += ridge * torch.eye(len(covariance), dtype=torch.double)
        inverse = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        self.transform.copy_(inverse * covariance.diagonal().mean().sqrt())


class LogisticHead(nn.Module):
    """Logistic regression on the standardised absolute difference (section 7, "LR").

    Args:
        dim: size of the embeddings.
        penalty: inverse strength C of scikit-learn's L2 penalty, > 0.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, dim: int, *, penalty: float = 0.01) -> None:
        super().__init__()
        self.penalty = penalty
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("weight", torch.zeros(dim))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the logits, shape (N,); see `PairHead.forward`."""
        return ((a - b).abs() - self.mean) / self.std @ self.weight + self.bias

    @torch.no_grad()
    def fit(self, a: Tensor, b: Tensor, same: Tensor) -> None:
        """Fit mean, deviation and weights.

        Args:
            a: embeddings of the left images, float, shape (N, dim).
            b: of the right ones.
            same: 1 for one writer, else 0, shape (N,); both occur.
        """
        from sklearn.linear_model import LogisticRegression

        difference = (a - b).abs()
        self.mean.copy_(difference.mean(0))
        self.std.copy_(difference.std(0, correction=0).clamp(min=1e-6))
        standard = ((difference - self.mean) / self.std).cpu().numpy()
        model = LogisticRegression(C=self.penalty, max_iter=1000).fit(standard, same.cpu().numpy())
        self.weight.copy_(torch.from_numpy(model.coef_[0]))
        self.bias.copy_(torch.tensor(model.intercept_[0]))


SHRINKAGE = 0.5
"""Share of the mean variance added to the within-writer covariance before it is inverted."""

HEADS = {"pair": PairHead, "cosine": CosineHead, "logistic": LogisticHead}
