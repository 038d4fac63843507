"""What a run may cost: a ceiling in tokens or money that no request may pass; needs no torch."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from vlm_hv.conversation import Answer, Request

_CHARACTERS = 3  # of text per token, at least
_TILE, _PER_TILE, _PER_PICTURE, _PIXELS = 512, 170, 85, 750


@dataclass(frozen=True)
class BudgetOptions:
    """What the run may cost.

    Attributes:
        max_cost: ceiling, in the unit of the prices; needs both.
        price_in: of a million tokens of questions.
        price_out: of a million tokens of answers.
        max_tokens_total: ceiling in tokens, questions and answers.
    """

    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    max_tokens_total: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_cost", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be finite and >= 0, got {value}")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("--price-in and --price-out belong together; give both")
        if self.max_cost is not None and self.price_in is None:
            raise ValueError(
                "--max-cost needs --price-in and --price-out (per million tokens); without prices "
                "--max-tokens-total bounds the run"
            )
        if self.max_tokens_total is not None and self.max_tokens_total < 1:
            raise ValueError(f"--max-tokens-total must be >= 1, got {self.max_tokens_total}")


def guess_prompt_tokens(request: Request) -> int:
    """Return roughly how many tokens a question has, rather too many than too few.

    A picture counts 85 and 170 per tile of 512 x 512 pixels, or a token per 750 pixels, whichever
    is more; text a token per three characters.

    Args:
        request: what is asked.
    """
    characters = sum(len(message.text) + 20 for message in request.messages)
    tokens = math.ceil(characters / _CHARACTERS)
    for picture in request.pictures:
        width, height = struct.unpack(">II", picture.png[16:24].ljust(8, b"\0"))
        tiles = math.ceil(width / _TILE) * math.ceil(height / _TILE)
        tokens += max(_PER_PICTURE + _PER_TILE * tiles, math.ceil(width * height / _PIXELS))
    return tokens


class Budget:
    """Counts what was spent and what is under way, and says whether one more request fits.

    A request under way counts with the most that it can cost: its longest answer, and the guessed
    length of the question, scaled by the largest error that the guess has shown so far.

    Args:
        options: ceilings and prices.
    """

    def __init__(self, options: BudgetOptions) -> None:
        self.options = options
        self.prompt_tokens = self.completion_tokens = self.guessed = 0
        self._scale = 1.0
        self._under_way: list[tuple[int, int]] = []

    @property
    def cost(self) -> float | None:
        """Spent so far, in the unit of the prices; None without prices."""
        return self.price(self.prompt_tokens, self.completion_tokens)

    @classmethod
    def unlimited(cls) -> Budget:
        """Return a budget that only counts."""
        return cls(BudgetOptions())

    def price(self, prompt: float, completion: float) -> float | None:
        """Return what so many tokens cost, in the unit of the prices; None without prices."""
        if self.options.price_in is None or self.options.price_out is None:
            return None
        return (prompt * self.options.price_in + completion * self.options.price_out) / 1e6

    def _most(self, request: Request) -> tuple[int, int]:
        return math.ceil(guess_prompt_tokens(request) * self._scale), request.max_tokens

    def fits(self, request: Request) -> bool:
        """Return whether the request stays below the ceilings with all that is under way."""
        reserved = [*self._under_way, self._most(request)]
        prompt = self.prompt_tokens + sum(tokens for tokens, _ in reserved)
        completion = self.completion_tokens + sum(tokens for _, tokens in reserved)
        limit, cost = self.options.max_tokens_total, self.price(prompt, completion)
        if limit is not None and prompt + completion > limit:
            return False
        return self.options.max_cost is None or cost is None or cost <= self.options.max_cost

    def begin(self, request: Request) -> tuple[int, int]:
        """Reserve what the request may cost; give the reservation to `end`."""
        self._under_way.append(self._most(request))
        return self._under_way[-1]

    def end(self, reserved: tuple[int, int], request: Request, answer: Answer | None) -> None:
        """Settle a request.

        Args:
            reserved: from `begin`.
            request: that was under way.
            answer: None if it failed: servers do not charge for that as a rule.
        """
        self._under_way.remove(reserved)
        if answer is None:
            return
        guess = guess_prompt_tokens(request)
        if answer.prompt_tokens is None:
            self.guessed += 1
        else:
            self._scale = max(self._scale, answer.prompt_tokens / guess)
        self.prompt_tokens += guess if answer.prompt_tokens is None else answer.prompt_tokens
        spoken = math.ceil(len(answer.text) / _CHARACTERS)
        known = answer.completion_tokens
        self.completion_tokens += spoken if known is None else known
