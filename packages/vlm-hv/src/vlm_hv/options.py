"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from papercommons.checks import check_at_least, check_fraction, check_positive
from papercommons.data.word_options import LabelOptions
from papercommons.errors import DataError

from vlm_hv.endpoint import OPENAI_URL, check_address, read_key
from vlm_hv.images import PictureOptions
from vlm_hv.modes import AskOptions

PACKAGE = "vlm-hv"


@dataclass(frozen=True)
class QuestionOptions:
    """The question.

    Attributes:
        mode: cot2 (paper: explanation, then decision), json (one call, findings with boxes),
            direct (yes or no), logprob (probability of yes against no); logprob for a model that
            vlm-hv-train saved, else cot2, if not given.
        prompt: forensic_v1 (the paper's protocol), paligemma_v1 (short), or a .yaml file of yours.
        subject: what the samples show, where it is not the word "and".
        swap: ask in both orders and average: removes order bias, doubles the cost; on where the
            pairs have labels.
        samples: ask so often and average (self-consistency); needs a temperature above 0.
        temperature: of the sampling; 0 is greedy.
        max_tokens: longest answer of one turn.
        parser: sensible, or compat: the rule of the authors' scripts.
    """

    mode: Literal["cot2", "json", "direct", "logprob"] | None = None
    prompt: str = "forensic_v1"
    subject: str | None = None
    swap: bool | None = None
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    parser: Literal["sensible", "compat"] = "sensible"

    def __post_init__(self) -> None:
        self.asking(swap=False, mode=self.mode or "cot2", seed=0)

    def asking(
        self, *, swap: bool, mode: Literal["cot2", "json", "direct", "logprob"], seed: int
    ) -> AskOptions:
        """Return the way to ask.

        Args:
            swap: taken where `swap` is not given.
            mode: likewise.
            seed: of the sampling.
        """
        return AskOptions(
            mode=self.mode or mode,
            swap=swap if self.swap is None else self.swap,
            samples=self.samples,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            parser=self.parser,
            seed=seed,
        )


@dataclass(frozen=True)
class ShownOptions:
    """The pictures that are sent.

    A model that vlm-hv-train saved gets the images as they are, in its own layout; what follows
    holds for all others.

    Attributes:
        min_side: enlarge until the longer side has this many pixels (512); 0 leaves small ones.
        max_side: reduce until the longer side has this many pixels (800, as the paper).
        border: white margin in pixels, added after that (32).
        resample: how to enlarge: bicubic, or nearest, which invents no grey.
        layout: two pictures, or concat: one canvas, for models that take one picture.
    """

    min_side: int | None = None
    max_side: int | None = None
    border: int | None = None
    resample: Literal["bicubic", "nearest"] | None = None
    layout: Literal["two", "concat"] | None = None

    def __post_init__(self) -> None:
        self.pictures()

    def pictures(self, **defaults: Any) -> PictureOptions:
        """Return sizes and layout.

        Args:
            **defaults: of `PictureOptions`, for what is not given.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        return PictureOptions(**(defaults | given))


@dataclass(frozen=True)
class ModelOptions:
    """Who is asked, and how fast.

    Attributes:
        backend: transformers runs --model here; openai asks any OpenAI-compatible server.
        base_url: of that server, up to and with /v1.
        api_key_env: environment variable that holds the key (OPENAI_API_KEY; none for a server on
            this machine).
        yes_upload: the images may leave this machine.
        allow_insecure: they may do so unencrypted.
        concurrency: requests side by side.
        rpm: most requests per minute.
        timeout: seconds without a sign of the server.
        retries: how often a request is repeated after 429, 5xx, a timeout or a broken answer.
        structured: how a server is told of the JSON schema: schema, object (JSON only) or none.
        token_field: name of the longest answer in the request; some servers want
            max_completion_tokens.
        cache: folder of answers: nothing is asked twice.
        batch_size: requests at a time, for transformers.
        accelerator: auto, cpu or gpu, for transformers.
        dtype: number format of the weights, for transformers; auto is as saved on CUDA, else
            float32.
        four_bit: weights in 4 bits, for transformers; CUDA only.
    """

    backend: Literal["transformers", "openai"] = "transformers"
    base_url: str | None = None
    api_key_env: str | None = None
    yes_upload: bool = False
    allow_insecure: bool = False
    concurrency: int = 4
    rpm: float | None = None
    timeout: float = 120.0
    retries: int = 5
    structured: Literal["schema", "object", "none"] = "schema"
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    cache: str | None = None
    batch_size: int = 8
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    four_bit: bool = False

    @property
    def url(self) -> str:
        """Address of the server."""
        return OPENAI_URL if self.base_url is None else self.base_url

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size, concurrency=self.concurrency)
        check_at_least(0, retries=self.retries)
        check_positive(timeout=self.timeout, rpm=self.rpm)
        if self.cache is not None and Path(self.cache).is_file():
            raise DataError(f"{self.cache}: --cache must be a folder, this is a file")
        if self.backend == "transformers" and (self.base_url or self.api_key_env):
            raise ValueError("--base-url and --api-key-env are for servers: add --backend openai")

    def check(self, model: str) -> None:
        """Check, before anything is read, that `model` may be asked.

        Raises:
            ValueError: the address is none, or images may not be sent there.
            DataError: no key, or a folder that is not there.
        """
        if not model.strip():
            raise ValueError("--model is empty; give a folder, a hub id, or the server's id")
        if self.backend == "openai":
            check_address(self.url, yes_upload=self.yes_upload, allow_insecure=self.allow_insecure)
            read_key(self.api_key_env, self.url)
        else:
            check_folder(model)


@dataclass(frozen=True)
class PairOptions(LabelOptions):
    """The labels.

    Attributes:
        max_pairs: most training pairs, drawn; the preset's if not given.
    """

    max_pairs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(2, max_pairs=self.max_pairs)


@dataclass(frozen=True)
class RecipeOptions:
    """What is trained, and how.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores) or paper; auto is
            paper where there is a CUDA device, else quick.
        tune: lora adds a small adapter to the language model and freezes the rest; full trains
            every weight; full with --tiny, else lora, if not given.
        lora_r: rank of the adapter.
        lora_alpha: its scale is lora_alpha / lora_r.
        lora_dropout: before the adapter.
        adapt_projector: adapt the layers between vision tower and language model too.
        four_bit: the frozen weights in 4 bits; CUDA only.
        layout: two pictures in one prompt, or concat: one canvas with both.
        question: asked of each pair; the model family's own if not given.
        epochs: passes over the training pairs.
        batch_size: pairs per step and device.
        lr: peak learning rate; 2e-4 for lora, 1e-3 for full, 3e-3 with --tiny if not given.
        weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    tune: Literal["lora", "full"] | None = None
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    adapt_projector: bool = False
    four_bit: bool = False
    layout: Literal["two", "concat"] = "two"
    question: str = ""
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float = 0.0
    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        check_at_least(1, lora_r=self.lora_r, lora_alpha=self.lora_alpha)
        check_positive(lr=self.lr)
        check_at_least(0, weight_decay=self.weight_decay)
        check_fraction("[0, 1)", warmup=self.warmup, lora_dropout=self.lora_dropout)


@dataclass(frozen=True)
class TinyOptions:
    """A tiny model.

    Attributes:
        tiny: train a PaliGemma that is built here with random weights, instead of --model.
        width: of its two transformers, a multiple of 16.
        layers: of either.
        size: side in pixels to which words are resized.
        patch_size: side of a patch, a divisor of that.
        tower_steps: of teaching its vision tower first to put words of one writer together, which
            stays frozen then; with 0 it stays random and is trained with the rest.
    """

    tiny: bool = False
    width: int = 64
    layers: int = 2
    size: int = 64
    patch_size: int = 16
    tower_steps: int = 400

    def __post_init__(self) -> None:
        check_at_least(0, tower_steps=self.tower_steps)
        check_at_least(1, layers=self.layers)
        if self.width < 16 or self.width % 16:
            raise ValueError(f"--width must be a multiple of 16, got {self.width}")
        if self.patch_size < 1 or self.size < 1 or self.size % self.patch_size:
            raise ValueError(
                f"--patch-size must divide --size, got {self.patch_size} and {self.size}"
            )


def check_data(data: str) -> None:
    """Raise DataError if there is no folder at `data`."""
    if not Path(data).is_dir():
        raise DataError(f"{data}: no such folder; --data takes the folder of the images")


def check_folder(model: str) -> None:
    """Raise DataError if `model` can be neither a folder nor a hub id."""
    if not Path(model).is_dir() and (model.count("/") != 1 or model.startswith((".", "/"))):
        raise DataError(
            f"{model}: no such folder, and no hub id (OWNER/NAME); give one of the two, or "
            "--backend openai for a server's model"
        )
