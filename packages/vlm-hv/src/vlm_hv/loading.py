"""Vision-language models from a folder or the hub, with what cannot work refused in plain words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from papercommons.checkpoint import bounded_folder
from papercommons.cli import show_progress
from papercommons.errors import DataError, missing_library, reason
from papercommons.model_folders import check_model_folder

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# take one picture per prompt
ONE_PICTURE = frozenset(
    {"blip", "blip-2", "fuyu", "git", "instructblip", "kosmos-2", "kosmos-2.5", "got_ocr2"}
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that answers with text to pictures and text.

    Attributes:
        model: of transformers, in evaluation mode.
        processor: of the same model; pads on the left.
        source: the folder or hub id it came from.
    """

    model: Any
    processor: Any
    source: str


def load_model(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: Dtype = "auto",
    four_bit: bool = False,
) -> Loaded:
    """Load a model and its processor; no code from the source runs, weights are safetensors only.

    Args:
        source: folder of a saved model, folder of a LoRA adapter (its base model is loaded too), or
            a hub id such as ``google/paligemma-3b-pt-224``.
        device: auto is cuda where there is one, else cpu.
        dtype: of the weights; auto is as saved on CUDA, and float32 on the CPU.
        four_bit: weights in 4 bits (bitsandbytes); CUDA only.

    Raises:
        ValueError: 4 bits without CUDA.
        DataError: missing, broken, incomplete, text-only, or of a kind that takes no prompt with
            pictures in it.
    """
    place = choose_device(device)
    if four_bit and place.type != "cuda":
        raise ValueError(f"4-bit weights need a CUDA device, got {place}; leave out --four-bit")
    folder = _check_source(source)
    adapter = folder if folder is not None and (folder / "adapter_config.json").is_file() else None
    base = str(source) if adapter is None else _base_of(adapter)
    config = _configuration(base)
    quieten()
    model = _weights(base, _options(place, dtype, four_bit))
    if adapter is not None:
        _add_adapter(model, adapter)
    if not four_bit:
        model.to(place)
    holder = adapter is not None and (adapter / "processor_config.json").is_file()
    processor = _processor(str(adapter) if holder else base, config.model_type)
    return Loaded(model.eval(), processor, str(source))


def quieten() -> None:
    """Keep the library's bars of loading and saving off where no bars are wanted."""
    from transformers.utils.logging import disable_progress_bar

    if not show_progress():
        disable_progress_bar()


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device of that name; auto is cuda where there is one, else cpu."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def check_layout(model: Any, layout: str) -> None:
    """Raise DataError if a model cannot take two pictures per prompt and `layout` is two.

    Args:
        model: of transformers.
        layout: two (a picture each) or concat (one canvas with both).
    """
    kind = model.config.model_type
    if layout == "two" and kind in ONE_PICTURE:
        raise DataError(f"{kind} takes one picture per prompt; pass --layout concat")


def is_paligemma(model_type: str) -> bool:
    """Return whether prompts are PaliGemma's: no chat, images first, suffix apart."""
    return model_type == "paligemma"


def _check_source(source: str | Path) -> Path | None:
    """Return the folder that `source` is, or None for a hub id."""
    folder = Path(source)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise DataError(
                f"{source}: no model in this folder: config.json is missing; give the folder that "
                "save_pretrained wrote, or a hub id such as google/paligemma-3b-pt-224"
            )
        return folder
    if not _HUB_ID.fullmatch(str(source)):
        raise DataError(
            f"{source}: no such folder, and no hub id (OWNER/NAME); give one of the two"
        )
    return None


def _base_of(adapter: Path) -> str:
    """Return the base model that a LoRA adapter names."""
    path = adapter / "adapter_config.json"
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: names no base model ({reason(error)})") from error
    if not isinstance(base, str) or not base:
        raise DataError(f"{path}: base_model_name_or_path is empty; write the base model's there")
    try:
        inside = _check_source(base)
    except DataError as error:
        raise DataError(f"{path}: its base model is not there: {error}") from None
    if inside is not None and (inside / "adapter_config.json").is_file():
        raise DataError(f"{path}: its base model {base} is an adapter too; merge them first")
    return base


def _configuration(base: str) -> Any:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    check_model_folder(base)
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # of many kinds: no network, gated, broken JSON, unknown model
        raise DataError(f"{base}: no readable model ({reason(error)})") from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise DataError(
            f"{base}: {config.model_type} takes no pictures (a text-only model, or none that "
            "answers with text); give a vision-language model"
        )
    if config.is_encoder_decoder:
        raise DataError(
            f"{base}: {config.model_type} has an encoder and a decoder, which is not supported; "
            "give a model that continues its prompt, such as PaliGemma or Qwen2-VL"
        )
    return config


def _options(device: torch.device, dtype: Dtype, four_bit: bool) -> dict[str, Any]:
    """Return how to load: number format, and bitsandbytes' 4 bits."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto" and dtype not in known:
        raise ValueError(f"dtype must be auto, {', '.join(known)}, got {dtype!r}")
    default: Any = "auto" if device.type == "cuda" else torch.float32
    options: dict[str, Any] = {"dtype": known.get(dtype, default)}
    if not four_bit:
        return options
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError:
        raise missing_library("a model in 4 bits", "bitsandbytes", "vlm-hv[quantized]") from None
    options["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    return options | {"device_map": {"": device}}


def _weights(base: str, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    load: Any = AutoModelForImageTextToText.from_pretrained
    try:
        with bounded_folder(base):
            model, found = load(
                base,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except DataError:
        raise
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(f"{base}: the weights cannot be read ({reason(error)})") from error
    if missing := sorted(found["missing_keys"]):
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{base}: {len(missing)} weights are missing ({shown}) and would be random; give the "
            "complete model"
        )
    return model


def _add_adapter(model: Any, adapter: Path) -> None:
    if not (adapter / "adapter_model.safetensors").is_file():
        raise DataError(f"{adapter}: adapter_model.safetensors is missing; save the adapter again")
    try:
        import peft  # noqa: F401
    except ImportError:
        raise missing_library(f"{adapter}: a LoRA adapter", "peft", "vlm-hv[local]") from None
    try:
        model.load_adapter(str(adapter))
    except Exception as error:
        raise DataError(f"{adapter}: the adapter does not load ({reason(error)})") from error


def _processor(source: str, model_type: str) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise DataError(f"{source}: no readable processor ({reason(error)})") from error
    usable = getattr(processor, "chat_template", None) or getattr(processor, "image_token", None)
    if not hasattr(processor, "image_processor") or not usable:
        raise DataError(
            f"{source}: the processor of {model_type} cannot put pictures into a prompt (no image "
            "processor, chat template or image token)"
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor
