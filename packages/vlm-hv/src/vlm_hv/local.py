"""The backend `transformers`: a model on this machine answers `Request`s in batches."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.errors import reason
from papercommons.files import hash_files
from PIL import Image
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlm_hv.conversation import Answer, Failure, Picture, Request
from vlm_hv.loading import ONE_PICTURE, Dtype, Loaded, load_model
from vlm_hv.prompting import Turn, encode, first_tokens
from vlm_hv.scoring import answer_difference, last_logits, word_logprobs
from vlm_hv.verifier import SAVED, find_verifier, read_settings


class LocalModel:
    """Answers on this machine; a `vlm_hv.conversation.Backend`.

    Greedy requests are answered in batches; sampled ones with a seed one by one, so that an answer
    does not depend on its neighbours. `Request.choices` are scored at the first position without
    generating; a saved verifier is then asked the question it was trained on, whatever the words of
    the request, and its two answers stand for the two choices in their order; where it is
    calibrated, so are their probabilities, at even prior odds. A JSON schema is not
    enforced here: the prompt asks for it, and whoever reads the answer checks it.

    Args:
        model: folder or hub id, see `vlm_hv.loading.load_model`; or a model already loaded.
        device: auto, cpu, cuda, ...
        dtype: of the weights.
        four_bit: 4-bit weights; CUDA only.
        batch_size: most requests at a time, >= 1; halved for good where memory runs out.

    Attributes:
        trained: settings of a saved verifier (question, answers, layout, ...), None for any other
            model.
        digest: short hash of the weights, None for a model of the hub.

    Raises:
        ValueError: batch_size < 1, or see `load_model`.
        DataError: see `load_model`.
    """

    name = "transformers"

    def __init__(
        self,
        model: str | Path | Loaded,
        *,
        device: str | torch.device = "auto",
        dtype: Dtype = "auto",
        four_bit: bool = False,
        batch_size: int = 8,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if not isinstance(model, Loaded):
            model = load_model(
                find_verifier(model) or model, device=device, dtype=dtype, four_bit=four_bit
            )
        self.loaded, self.model, self.batch_size = model, model.source, batch_size
        folder = find_verifier(model.source)
        self.trained = None if folder is None else read_settings(folder)
        self.digest = _digest(folder or Path(model.source))

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Return one answer or failure per request, in their order."""
        found: dict[int, Answer | Failure] = {}
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_kind(request, place), []).append(place)
        for places in groups.values():
            start = 0
            while start < len(places):
                some = places[start : start + self.batch_size]
                try:
                    answers = self._answer([requests[place] for place in some])
                except torch.OutOfMemoryError:
                    if len(some) > 1:
                        self.batch_size = len(some) // 2
                        continue
                    answers = [Failure("out of memory with one request at a time", False)]
                found.update(zip(some, answers, strict=True))
                start += len(some)
        return [found[place] for place in range(len(requests))]

    def _answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Return the answers of one batch of the same kind (`_kind`)."""
        started = time.perf_counter()
        kind, count = self.loaded.model.config.model_type, len(requests[0].pictures)
        if count > 1 and kind in ONE_PICTURE:
            why = f"{kind} takes one picture per prompt, got {count}; use --layout concat"
            return [Failure(why, retryable=False) for _ in requests]
        try:
            if requests[0].choices is not None:
                first_tokens(self.loaded.processor.tokenizer, self._words(requests[0]))
            inputs = encode(self.loaded.processor, [self._turns(one) for one in requests])
        except Exception as error:  # templates and processors refuse in many ways
            why = f"{kind} cannot be asked this: {reason(error)}"
            return [Failure(why, retryable=False) for _ in requests]
        device = self.loaded.model.device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        with torch.inference_mode():
            answers = (self._generate if requests[0].choices is None else self._choose)(
                requests, inputs
            )
        seconds = (time.perf_counter() - started) / len(requests)
        prompts = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            Answer(prompt_tokens=tokens, seconds=seconds, model=self.model, **answer)
            for tokens, answer in zip(prompts, answers, strict=True)
        ]

    def _choose(
        self, requests: Sequence[Request], inputs: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        words = requests[0].choices or ()
        asked = self._words(requests[0])
        hashes = [picture.sha256 for request in requests for picture in request.pictures]
        numbers = {digest: number for number, digest in enumerate(dict.fromkeys(hashes))}
        logits = last_logits(
            self.loaded.model, inputs, pictures=[numbers[digest] for digest in hashes]
        )
        table = self._logprobs(logits[:, 0], asked).tolist()
        return [
            {
                **{"text": words[row.index(max(row))], "completion_tokens": 1},
                **{"finish_reason": "stop"},
                "choice_logprobs": dict(zip(words, row, strict=True)),
            }
            for row in table
        ]

    def _logprobs(self, logits: Tensor, asked: Sequence[str]) -> Tensor:
        """Return the log-probabilities of the words, shape (B, W); of a verifier as it scores."""
        tokenizer = self.loaded.processor.tokenizer
        if not self.trained or len(asked) != 2:
            return word_logprobs(logits, tokenizer, asked)
        odds = answer_difference(logits, first_tokens(tokenizer, asked))
        found = self.trained["calibration"]
        if found is not None:
            odds = found.slope * odds + found.intercept
        return torch.stack([logsigmoid(odds), logsigmoid(-odds)], dim=1)

    def _words(self, request: Request) -> tuple[str, ...]:
        """Return the words whose probability stands for the choices."""
        choices = request.choices or ()
        return self.trained["answers"] if self.trained and len(choices) == 2 else choices

    def _turns(self, request: Request) -> list[Turn]:
        """Return the turns with decoded pictures."""
        if self.trained and len(request.choices or ()) == 2:
            shown = [_decoded(picture) for picture in request.pictures]
            return [("user", [*shown, self.trained["question"]])]
        return [
            (m.role, [part if isinstance(part, str) else _decoded(part) for part in m.parts])
            for m in request.messages
        ]

    def _generate(
        self, requests: Sequence[Request], inputs: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        asked, tokenizer = requests[0], self.loaded.processor.tokenizer
        how: dict[str, Any] = {"max_new_tokens": asked.max_tokens, "do_sample": False}
        if asked.temperature > 0:
            how |= {"do_sample": True, "temperature": asked.temperature}
        device = self.loaded.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if asked.seed is not None:
                torch.manual_seed(asked.seed)
            made = self.loaded.model.generate(
                **inputs, **how, pad_token_id=tokenizer.pad_token_id, **_greedy_defaults(how)
            )
        made = made[:, inputs["input_ids"].shape[1] :].cpu()
        ends = torch.isin(made, torch.tensor(_end_tokens(self.loaded)))
        answers = []
        for row, end in zip(made, ends, strict=True):
            stopped = bool(end.any())
            tokens = row[: int(end.int().argmax())] if stopped else row
            answers.append(
                {
                    "text": tokenizer.decode(tokens, skip_special_tokens=True).strip(),
                    "completion_tokens": len(tokens) + stopped,
                    "finish_reason": "stop" if stopped else "length",
                }
            )
        return answers


def _digest(folder: Path) -> str | None:
    """Return a short hash of a saved model's weights and settings."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob(SAVED)])
    return hash_files(files) if files else None


def _kind(request: Request, place: int) -> Any:
    """Return what requests of one batch have in common; a seeded sample stays alone."""
    alone = place if request.temperature > 0 and request.seed is not None else None
    return (
        *(request.max_tokens, request.temperature, request.choices),
        *(len(request.pictures), alone),
    )


def _decoded(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.png), formats=["PNG"]).convert("RGB")


def _greedy_defaults(how: dict[str, Any]) -> dict[str, Any]:
    """Return neutral sampling numbers for greedy answers, against those saved with the model."""
    return {} if how["do_sample"] else {"temperature": None, "top_p": None, "top_k": None}


def _end_tokens(loaded: Loaded) -> list[int]:
    """Return the tokens that end an answer."""
    configured = loaded.model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    ends = [*ends, loaded.processor.tokenizer.eos_token_id]
    return sorted({int(token) for token in ends if token is not None})
