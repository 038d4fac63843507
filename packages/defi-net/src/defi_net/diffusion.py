"""Any inpainting pipeline that diffusers can load from a folder, as an engine."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError, reason
from papercommons.files import refuse_code

from defi_net.engines import EngineOptions, Inpainted

_OPTIONAL = ("text_encoder", "tokenizer")  # parts that a pipeline may be saved without


def read_index(folder: str) -> dict[str, Any]:
    """Return what a pipeline's folder says of it: its ``_class_name``, and its parts by name.

    Args:
        folder: as `save_pretrained` writes it, with model_index.json.

    Raises:
        DataError: no such folder, no pipeline in it, or code.
    """
    index = Path(folder) / "model_index.json"
    if not folder or not index.is_file():
        raise DataError(
            f"{folder or 'diffusers'}: no diffusers pipeline (model_index.json) there; give the "
            "engine as diffusers:FOLDER"
        )
    refuse_code(folder)
    try:
        parts: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        return {**parts, "_class_name": str(parts["_class_name"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{index}: not readable; it must name the pipeline's _class_name") from None


class DiffusersEngine:
    """Inpaints with a diffusers pipeline; the whole picture comes out of it.

    Pictures are padded by reflection to the multiple of pixels that the pipeline works in. A
    pipeline without a text encoder gets zeros for a prompt, and no guidance. Weights are read from
    safetensors alone, and nothing is downloaded.

    Args:
        folder: of the pipeline.
        options: see `EngineOptions`.

    Raises:
        DataError: it cannot be loaded, or it does not inpaint.
    """

    def __init__(self, folder: str, options: EngineOptions) -> None:
        import diffusers
        from papercommons.checkpoint import bounded_folder

        index = read_index(folder)
        name = index["_class_name"]
        kind = getattr(diffusers, name, None)
        if kind is None or "mask_image" not in inspect.signature(kind.__call__).parameters:
            raise DataError(
                f"{folder}: a {name} does not inpaint; give an inpainting pipeline, such as a "
                "StableDiffusionInpaintPipeline"
            )
        diffusers.utils.logging.disable_progress_bar()
        parts = inspect.signature(kind.__init__).parameters
        absent = {
            part: None
            for part in parts
            if part.startswith(_OPTIONAL) and index.get(part) in (None, [None, None])
        }
        try:
            with bounded_folder(folder):
                self.pipeline = kind.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, **absent
                ).to(options.device)
        except DataError:
            raise
        except Exception as error:  # readers fail in many ways on what is broken
            raise DataError(f"{folder}: cannot be loaded as a {name} ({reason(error)})") from None
        self.pipeline.set_progress_bar_config(disable=True)
        self.options = options
        self.accepted = inspect.signature(kind.__call__).parameters

    def __call__(self, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Inpainted:
        """Return the whole picture that the pipeline makes.

        Args:
            photo: uint8, shape (H, W, 3).
            mask: bool, shape (H, W).
            rng: seeds the pipeline's noise.

        Raises:
            DataError: the pipeline's safety checker refused the picture.
        """
        import torch
        from PIL import Image

        height, width = mask.shape
        unit = int(getattr(self.pipeline, "vae_scale_factor", 8))
        edges = [(0, -height % unit), (0, -width % unit)]
        padded = np.pad(photo, [*edges, (0, 0)], mode="symmetric")
        wanted = {
            "image": Image.fromarray(padded),
            "mask_image": Image.fromarray(np.pad(mask, edges).astype(np.uint8) * 255),
            "height": padded.shape[0],
            "width": padded.shape[1],
            "num_inference_steps": self.options.steps,
            "strength": self.options.strength,
            "generator": torch.Generator().manual_seed(int(rng.integers(2**63))),
            "output_type": "np",
            **self._prompt(),
        }
        made = self.pipeline(**{k: v for k, v in wanted.items() if k in self.accepted})
        if any(getattr(made, "nsfw_content_detected", None) or []):
            raise DataError(
                "the pipeline's safety checker refused what it painted; change --prompt, or leave "
                "the photograph out"
            )
        filled = np.clip(np.rint(255 * np.asarray(made.images[0])), 0, 255).astype(np.uint8)
        return Inpainted(filled[:height, :width], f"steps={self.options.steps}")

    def _prompt(self) -> dict[str, Any]:
        if getattr(self.pipeline, "text_encoder", None) is not None:
            return {"prompt": self.options.prompt, "guidance_scale": self.options.guidance}
        import torch

        network = self.pipeline.unet
        zeros = torch.zeros(
            1, 4, network.config.cross_attention_dim, device=network.device, dtype=network.dtype
        )
        return {"prompt_embeds": zeros, "negative_prompt_embeds": zeros, "guidance_scale": 1.0}
