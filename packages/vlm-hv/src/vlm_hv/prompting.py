"""From pictures and words to a model's input tensors, for every family by one way.

Chat models get their own template. PaliGemma and other models without one get the pictures first
and then the words on lines; PaliGemma's processor adds the begin token and the line end. Answers
to learn are appended behind the prompt, so the loss sees them alone (section 3.2).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlm_hv.images import concat
from vlm_hv.loading import is_paligemma

Layout = Literal["two", "concat"]
Pictures = Sequence[Any] | np.ndarray
Turn = tuple[str, Sequence["str | Image.Image"]]  # role, parts

# PaliGemma's processor makes an array of a tensor; not inside a context, which threads would share
warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")

LAYOUTS = ("two", "concat")
PALIGEMMA_QUESTION = "answer en same writer?"
CHAT_QUESTION = (
    "Here are two handwritten samples, the known one first and then the questioned one. Did the "
    "same person write both? Answer with one word, yes or no."
)


def encode(processor: Any, conversations: Sequence[Sequence[Turn]]) -> dict[str, Tensor]:
    """Return the input tensors of some conversations, padded on the left.

    Args:
        processor: of the model.
        conversations: turns of (role, parts); parts are words and RGB pictures in order. All have
            equally many pictures.

    Returns:
        input_ids and attention_mask, int64, shape (B, L), and what else the model takes.

    Raises:
        ValueError: the model's template or processor refuses the conversation.
    """
    chat = getattr(processor, "chat_template", None) is not None
    texts = [(_chat_text if chat else _plain_text)(processor, turns) for turns in conversations]
    pictures = [
        [part for _, parts in turns for part in parts if not isinstance(part, str)]
        for turns in conversations
    ]
    begin = processor.tokenizer.bos_token
    inputs = processor(
        images=pictures if any(pictures) else None,
        text=texts,
        padding=True,
        return_tensors="pt",
        add_special_tokens=not (chat and begin and texts[0].startswith(begin)),
    )
    return {name: value for name, value in inputs.items() if name != "labels"}


def _chat_text(processor: Any, turns: Sequence[Turn]) -> str:
    messages = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in parts
            ],
        }
        for role, parts in turns
    ]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _plain_text(processor: Any, turns: Sequence[Turn]) -> str:
    parts = [part for _, parts in turns for part in parts]
    words = [part for part in parts if isinstance(part, str)]
    return str(processor.image_token) * (len(parts) - len(words)) + "\n".join(words)


def append_answers(
    inputs: dict[str, Tensor], answers: Sequence[Sequence[int]], *, pad: int, token_type: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return inputs with an answer behind each prompt, and what to learn of it.

    Args:
        inputs: of `encode`, padded on the left.
        answers: tokens of each answer, with the end token, B of them.
        pad: token behind shorter answers.
        token_type: of the answers' tokens: 1 for PaliGemma, whose suffix is causal, else 0.

    Returns:
        inputs of length L + A, and labels, int64, shape (B, A), -100 where an answer has ended.
    """
    width = max(map(len, answers))
    ids = torch.tensor([[*tokens, *[pad] * (width - len(tokens))] for tokens in answers])
    there = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in answers])
    behind = {
        "input_ids": ids,
        "attention_mask": there,
        "token_type_ids": torch.full_like(ids, token_type),
        "mm_token_type_ids": torch.zeros_like(ids),
    }
    longer = {
        name: torch.cat([value, behind[name].to(value.dtype)], dim=1) if name in behind else value
        for name, value in inputs.items()
    }
    return longer, ids.masked_fill(there == 0, -100)


@dataclass(frozen=True)
class PairPrompt:
    """How a pair of pictures becomes a question with a one-word answer.

    Attributes:
        processor: of the model.
        model_type: as its configuration calls it.
        question: in words; empty takes PaliGemma's short one or the chat one.
        answers: for one writer and for two; their first tokens must differ.
        layout: two pictures, or one canvas with both (`vlm_hv.images.concat`).

    Raises:
        ValueError: another layout, or answers that begin alike.
    """

    processor: Any
    model_type: str
    question: str = ""
    answers: tuple[str, str] = ("yes", "no")
    layout: Layout = "two"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        default = PALIGEMMA_QUESTION if is_paligemma(self.model_type) else CHAT_QUESTION
        object.__setattr__(self, "question", self.question or default)
        first_tokens(self.processor.tokenizer, self.answers)

    def encode(self, left: Pictures, right: Pictures) -> dict[str, Tensor]:
        """Return the input tensors of pairs, see `encode`.

        Args:
            left: known samples: PIL pictures, or uint8 arrays of shape (H, W) or (H, W, 3).
            right: questioned samples.

        Raises:
            ValueError: not equally many, none, or the processor refuses them.
        """
        if len(left) != len(right) or not len(left):
            raise ValueError(f"pairs need equally many pictures, got {len(left)} and {len(right)}")
        pairs = zip(map(as_rgb, left), map(as_rgb, right), strict=True)
        shown = [[concat(*pair)] if self.layout == "concat" else [*pair] for pair in pairs]
        return encode(self.processor, [[("user", [*some, self.question])] for some in shown])

    def encode_answered(
        self, left: Pictures, right: Pictures, same: Sequence[int]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the input tensors of pairs with their answers, and labels, see `append_answers`.

        Args:
            left: see `encode`.
            right: likewise.
            same: 1 for one writer, else 0.
        """
        tokenizer = self.processor.tokenizer
        tokens = [
            [*tokenizer(word, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            for word in self.answers
        ]
        return append_answers(
            self.encode(left, right),
            [tokens[0 if one else 1] for one in same],
            pad=tokenizer.pad_token_id,
            token_type=int(is_paligemma(self.model_type)),
        )


def first_tokens(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Return the first token of each word, which must differ: the score compares their logits.

    Args:
        tokenizer: of the model.
        words: possible answers, at least two.

    Raises:
        ValueError: fewer than two words, one without tokens, or two that begin with one token.
    """
    tokens = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    if len(words) < 2 or not all(tokens):
        raise ValueError(f"answers must be two words or more, none empty, got {list(words)}")
    first = [int(some[0]) for some in tokens]
    if len(set(first)) < len(first):
        raise ValueError(
            f"answers {', '.join(words)} begin with the same token for this model, so one look at "
            "the first token cannot tell them apart; choose other words"
        )
    return first


def as_rgb(picture: Any) -> Image.Image:
    """Return an RGB picture.

    Args:
        picture: of PIL, or a uint8 array of shape (H, W) or (H, W, 3).

    Raises:
        ValueError: anything else.
    """
    if isinstance(picture, Image.Image):
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    array = np.asarray(picture)
    if array.dtype != np.uint8 or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    ):
        raise ValueError(
            f"a picture must be uint8 (H, W) or (H, W, 3), got {array.dtype} {array.shape}"
        )
    return Image.fromarray(array).convert("RGB")
