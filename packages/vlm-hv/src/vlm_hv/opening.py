"""From the options of a command to whom is asked, in which words and how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vlm_hv import prompts
from vlm_hv.conversation import Backend
from vlm_hv.endpoint import Endpoint
from vlm_hv.images import PictureOptions
from vlm_hv.modes import AskOptions
from vlm_hv.options import ModelOptions, QuestionOptions, ShownOptions
from vlm_hv.prompts import Prompts


@dataclass(frozen=True)
class Asking:
    """All that a run needs beside its pairs.

    Attributes:
        backend: whom to ask.
        prompts: the words.
        ask: the way to ask.
        pictures: sizes and layout.
        batch_size: requests per call of the backend.
        workers: calls at a time.
        device: what it runs on, in words.
        notes: what the user should know of it.
    """

    backend: Backend
    prompts: Prompts
    ask: AskOptions
    pictures: PictureOptions
    batch_size: int
    workers: int
    device: str
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_asking(
    model: str,
    question: QuestionOptions,
    shown: ShownOptions,
    who: ModelOptions,
    *,
    swap: bool,
    seed: int,
) -> Iterator[Asking]:
    """Give whom and how to ask, and close the connections at the end.

    Args:
        model: folder, hub id, or the server's id.
        question: the question.
        shown: the pictures.
        who: the backend.
        swap: whether both orders are asked where the user does not say.
        seed: of the sampling.

    Raises:
        ValueError: options that do not go together, or see `Endpoint` and `LocalModel`.
        DataError: the prompts, the model or a key cannot be used.
    """
    words = prompts.load(question.prompt)
    if question.subject is not None:
        words = words.about(question.subject)
    if who.backend == "transformers":
        yield _local(model, words, question, shown, who, swap=swap, seed=seed)
        return
    ask = question.asking(swap=swap, mode="cot2", seed=seed)
    with Endpoint(
        model,
        base_url=who.url,
        api_key_env=who.api_key_env,
        concurrency=who.concurrency,
        rpm=who.rpm,
        timeout=who.timeout,
        retries=who.retries,
        structured=who.structured,
        token_field=who.token_field,
        yes_upload=who.yes_upload,
        allow_insecure=who.allow_insecure,
    ) as backend:
        device = f"a server at {backend.base_url}"
        yield Asking(backend, words, ask, shown.pictures(), 1, who.concurrency, device)


def _local(
    model: str,
    words: Prompts,
    question: QuestionOptions,
    shown: ShownOptions,
    who: ModelOptions,
    *,
    swap: bool,
    seed: int,
) -> Asking:
    import torch
    from papercommons.report import describe_device

    from vlm_hv.loading import check_layout
    from vlm_hv.local import LocalModel

    device = "cuda" if who.accelerator == "gpu" else who.accelerator
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--accelerator {who.accelerator}: there is no CUDA device here")
    backend = LocalModel(
        model,
        device=device,
        dtype=who.dtype,
        four_bit=who.four_bit,
        batch_size=who.batch_size,
    )
    trained, notes = backend.trained, []
    ask = question.asking(swap=swap, mode="logprob" if trained else "cot2", seed=seed)
    pictures = shown.pictures()
    if trained:
        pictures = shown.pictures(**_as_trained(trained["layout"]))
        if pictures.layout != trained["layout"]:
            raise ValueError(
                f"--layout {pictures.layout}: {model} was trained with {trained['layout']}; leave "
                "it out"
            )
        if ask.mode == "logprob":
            notes.append(f"asked the question it was trained on: {trained['question']!r}")
        else:
            notes.append(
                f"IT WAS TRAINED FOR --mode logprob; its answers to {ask.mode} are untested"
            )
    check_layout(backend.loaded.model, pictures.layout)
    place = describe_device(backend.loaded.model.device)
    return Asking(backend, words, ask, pictures, who.batch_size, 1, place, notes)


def _as_trained(layout: str) -> dict[str, object]:
    """Return the pictures that `PairData` shows: the images as they are."""
    return {"min_side": 0, "border": 0, "layout": layout}
