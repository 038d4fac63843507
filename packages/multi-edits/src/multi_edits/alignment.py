"""Which token of one prompt stands for which of another, and how attention moves along."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from multi_edits.words import TokenizedPrompt

LEFT, UP, DIAGONAL, ORIGIN = 1, 2, 3, 4


def alignment_table(
    source: Sequence[Hashable], target: Sequence[Hashable]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return scores and moves of a global alignment (match 1, mismatch -1, gap 0).

    Needleman-Wunsch; ties are resolved left (a target token without partner), up, diagonal.

    Args:
        source: ids of tokens, or words, S of them.
        target: likewise, T of them.

    Returns:
        Two tables of S + 1 rows and T + 1 columns: best scores, and the moves that reach them
        (1 left, 2 up, 3 diagonal, 4 origin).
    """
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    moves = [[ORIGIN] + [LEFT] * len(target)]
    for s, source_id in enumerate(source, 1):
        row = [UP]
        for t, target_id in enumerate(target, 1):
            left, up = score[s][t - 1], score[s - 1][t]
            diagonal = score[s - 1][t - 1] + (1 if source_id == target_id else -1)
            best = max(left, up, diagonal)
            score[s][t] = best
            row.append(LEFT if best == left else UP if best == up else DIAGONAL)
        moves.append(row)
    return score, moves


def align(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[int]:
    """Return for every target id the index of its partner in the source, -1 without one.

    Args:
        source: ids of tokens, or words.
        target: likewise.

    Example:
        >>> align([0, 5, 6, 1], [0, 6, 7, 1])
        [0, 2, -1, 3]
    """
    moves = alignment_table(source, target)[1]
    partner = [-1] * len(target)
    s, t = len(source), len(target)
    while s > 0 or t > 0:
        move = moves[s][t]
        if move == DIAGONAL:
            s, t = s - 1, t - 1
            partner[t] = s
        elif move == LEFT:
            t -= 1
        else:
            s -= 1
    return partner


def link_similar(
    partner: Sequence[int],
    source_states: Tensor,
    target_states: Tensor,
    *,
    compat: bool = False,
) -> list[int]:
    """Return the partners with one more link in each run of unmatched target tokens.

    In a run, the pair of a target token and a source token left out at that place with the highest
    cosine similarity of their encoder states is linked (spec 3.5).

    Args:
        partner: from `align`.
        source_states: encoder states of the source prompt, float, (L, D).
        target_states: of the target prompt, (L, D).
        compat: compare as the published code does, which reads the target's states at the source
            token's position and the other way round.
    """
    linked = list(partner)
    first, second = (source_states, target_states) if compat else (target_states, source_states)
    similarity = F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).T
    t = 0
    while t < len(partner):
        end = t
        while end < len(partner) and partner[end] < 0:
            end += 1
        if end > t:
            low = partner[t - 1] + 1 if t else 0
            high = partner[end] if end < len(partner) else low
            if high > low:
                place = int(similarity[t:end, low:high].argmax())
                linked[t + place // (high - low)] = low + place % (high - low)
        t = end + 1
    return linked


@dataclass(frozen=True)
class AttentionMix:
    """How a branch's cross-attention is made from that of the branch before and from its own.

    ``A = A_before @ matrix + A_own * own``.

    Attributes:
        matrix: float32, (L, L), rows for tokens of the prompt before, columns for this prompt's.
        own: float32, (L,), in [0, 1].
        replace: whether all of it comes from the branch before.
    """

    matrix: Tensor
    own: Tensor
    replace: bool = False

    def __call__(self, before: Tensor, own: Tensor) -> Tensor:
        """Return the mixed probabilities; both arguments are float, (..., L)."""
        mixed = before @ self.matrix.to(before)
        return mixed if self.replace else mixed + own * self.own.to(own)


def refine_mix(partner: Sequence[int], length: int) -> AttentionMix:
    """Return the mix that keeps linked tokens' attention and leaves new tokens their own.

    Args:
        partner: for each target token the linked source token or -1, special tokens included.
        length: L, tokens with padding, which keeps its own positions.

    Returns:
        ``A[:, j] = a_j A_before[:, partner(j)] + (1 - a_j) A_own[:, j]`` with a_j in {0, 1}.
    """
    matrix = torch.zeros(length, length)
    index = torch.tensor([*partner, *range(len(partner), length)])
    known = (index >= 0).nonzero().squeeze(1)
    matrix[index[known], known] = 1.0
    return AttentionMix(matrix, (index < 0).float())


def replace_mix(source: TokenizedPrompt, target: TokenizedPrompt) -> AttentionMix:
    """Return the mix that gives each word the attention of the word at its place before.

    Words of equally many tokens correspond token by token; else every token of the new word gets
    an equal share of all tokens of the old one.

    Args:
        source: the prompt before.
        target: this prompt.

    Raises:
        ValueError: the prompts have different numbers of words.
    """
    if len(source.words) != len(target.words):
        raise ValueError(
            f"word-by-word replacement needs equally many words, got {len(source.words)} and "
            f"{len(target.words)}"
        )
    matrix = torch.zeros(target.length, target.length)
    for (s0, s1), (t0, t1) in zip(source.spans, target.spans, strict=True):
        if s1 - s0 == t1 - t0:
            matrix[range(s0, s1), range(t0, t1)] = 1.0
        else:
            matrix[s0:s1, t0:t1] = 1 / (t1 - t0)
    words_end = target.spans[-1][1] if target.spans else 1
    start = target.spans[0][0] if target.spans else 1
    rest = [*range(start), *range(words_end, target.length)]
    matrix[rest, rest] = 1.0
    return AttentionMix(matrix, torch.zeros(target.length), replace=True)
