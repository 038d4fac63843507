"""How little each patch of a picture resembles a text, by a CLIP model's patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError, reason
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from d_tiil.masks import scale_map


class ClipPatches:
    """Embeds the patches of a picture in the space of a CLIP model's texts.

    The picture is scaled to the model's square, not cropped, so that the map covers all of it.

    Args:
        patches: takes a picture, returns float (h, w, D).
    """

    def __init__(self, patches: Callable[[Image.Image], Tensor]) -> None:
        self._patches = patches

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: Any = "cpu") -> ClipPatches:
        """Return the patches of a folder's model, or of a hub id's.

        Args:
            source: as for `d_tiil.ClipModel.from_pretrained`; a vision transformer.
            device: where it runs.

        Raises:
            DataError: it cannot be read, or has no patches.
        """
        folder = Path(source)
        try:
            if (folder / "open_clip_config.json").is_file():
                return _open_clip(folder, device)
            return _transformers(source, device)
        except ImportError as error:
            raise DataError(
                f"{source}: needs open_clip; pip install 'd-tiil[open-clip]'"
            ) from error
        except DataError:
            raise
        except Exception as error:  # readers fail in many ways on what is broken
            raise DataError(f"{source}: not a readable CLIP model ({reason(error)})") from error

    @torch.no_grad()
    def likeness(self, picture: Image.Image, text: Tensor) -> Tensor:
        """Return cosines of a picture's patches and a text, float32 on the CPU, (h, w).

        Args:
            picture: RGB.
            text: its vector, (D,).
        """
        return F.normalize(self._patches(picture).float(), dim=-1).cpu() @ F.normalize(
            text.float(), dim=0
        )

    def unlikeness(self, picture: Image.Image, text: Tensor) -> np.ndarray:
        """Return a map that is 0 where a picture is most like a text and 1 where least, (h, w).

        Args:
            picture: RGB.
            text: its vector, (D,).
        """
        return scale_map(-self.likeness(picture, text)).numpy()


def _pixels(picture: Image.Image, side: int, mean: Any, std: Any) -> Tensor:
    square = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 255).movedim(-1, 0)
    levels, spread = (torch.tensor(values).float().view(3, 1, 1) for values in (mean, std))
    return ((pixels - levels) / spread)[None]


def _transformers(source: str | Path, device: Any) -> ClipPatches:
    from transformers import CLIPImageProcessor, CLIPModel

    whole: Any = CLIPModel.from_pretrained(source, use_safetensors=True)
    processor: Any = CLIPImageProcessor.from_pretrained(source)
    vision = whole.vision_model.to(device).eval()
    projection = whole.visual_projection.to(device)
    config = whole.config.vision_config
    grid = config.image_size // config.patch_size

    def patches(picture: Image.Image) -> Tensor:
        pixels = _pixels(picture, config.image_size, processor.image_mean, processor.image_std)
        states = vision(pixel_values=pixels.to(device)).last_hidden_state[0, 1:]
        projected: Tensor = projection(vision.post_layernorm(states))
        return projected.view(grid, grid, -1)

    return ClipPatches(patches)


def _open_clip(folder: Path, device: Any) -> ClipPatches:
    import open_clip

    if not (folder / "open_clip_model.safetensors").is_file():
        raise DataError(f"{folder}: no open_clip_model.safetensors")
    name = f"local-dir:{folder.resolve()}"
    model: Any = open_clip.create_model(name, device=device)
    visual = model.eval().visual
    if not isinstance(visual, open_clip.transformer.VisionTransformer) or visual.attn_pool:
        raise DataError(f"{folder}: its vision model has no patches; take a plain ViT")
    visual.output_tokens = True
    side = int(np.max(visual.image_size))

    def patches(picture: Image.Image) -> Tensor:
        pixels = _pixels(picture, side, visual.image_mean, visual.image_std)
        _, tokens = visual(pixels.to(device))
        if visual.final_ln_after_pool:
            tokens = visual.ln_post(tokens)
        projected: Tensor = tokens[0] if visual.proj is None else tokens[0] @ visual.proj
        return projected.view(*visual.grid_size, -1)

    return ClipPatches(patches)
