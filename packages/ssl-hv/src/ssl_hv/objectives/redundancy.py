"""Redundancy of dimensions: the sum that Barlow Twins and VICReg drive to zero."""

from __future__ import annotations

from torch import Tensor


def off_diagonal_energy(a: Tensor, b: Tensor) -> Tensor:
    """Return ``sum_{i != j} (a^T b)_ij^2``.

    Where rows are few, through ``||a^T b||^2 = <a a^T, b b^T>``: two (N, N) matrices in place of
    the (D, D) one. There the sum cannot vanish for standardised rows, so that taking the diagonal
    away loses no digits.

    Args:
        a: float, shape (N, D).
        b: float, shape (N, D); may be `a` itself.

    Returns:
        Scalar >= 0.
    """
    rows, dim = a.shape
    if 2 * rows > dim:
        products = a.T @ b
        return products.square().sum() - products.diagonal().square().sum()
    gram_a = a @ a.T
    gram_b = gram_a if b is a else b @ b.T
    diagonal = (a * b).sum(0)
    return (gram_a * gram_b).sum() - diagonal.square().sum()
