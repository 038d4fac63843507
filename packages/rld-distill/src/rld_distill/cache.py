"""The teacher's logits, computed once and kept in one safetensors file.

Exact without random augmentation, and with it for as many epochs as views were recorded: a view's
augmentation follows from (seed, view, index), and epoch e of training then shows view e. With fewer
views than epochs the views come round again: the student sees less variety than with a live
teacher. Top-k and float16 storage are approximations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.errors import DataError, reason
from papercommons.files import atomic_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class TeacherCache:
    """Teacher logits of the training split, by view and image.

    Args:
        path: file written by `write_cache`.

    Attributes:
        about: what the file says of itself: data_hash, teacher, augment, seed, views, ...

    Raises:
        DataError: missing, broken, or no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{path}: no such file; write it with rld-distill-cache")
        try:
            with safe_open(self.path, framework="pt") as file:
                self.about: dict[str, Any] = json.loads((file.metadata() or {})["rld_distill"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self._values = tensors["values"]
            self._classes = tensors.get("classes")
            self._rest = tensors.get("rest")
            self._check_shapes()
        except (SafetensorError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
            raise DataError(f"{path}: not a file of rld-distill-cache ({reason(error)})") from None

    def _check_shapes(self) -> None:
        """Raise ValueError where the tensors do not fit together, or hold no numbers."""
        classes, shape = int(self.about["num_classes"]), self._values.shape
        parts = [self._values]
        if self._classes is not None and self._rest is not None:
            parts.append(self._rest)
            if self._classes.shape != shape or self._rest.shape != shape[:2]:
                raise ValueError("its tensors do not fit together")
            if (
                self._classes.numel()
                and not 0 <= self._classes.min() <= self._classes.max() < classes
            ):
                raise ValueError(f"holds classes outside [0, {classes - 1}]")
        elif shape[2:] != (classes,):
            raise ValueError(f"its values have shape {tuple(shape)}, not (V, N, {classes})")
        if len(shape) != 3 or 0 in shape or not all(part.isfinite().all() for part in parts):
            raise ValueError("its logits must be finite, of shape (V, N, C)")

    @property
    def views(self) -> int:
        """Number of recorded views of each image."""
        return self._values.shape[0]

    def view_of(self, epoch: int) -> int:
        """Return the view shown in `epoch` (from 0)."""
        return epoch % self.views

    def rows(self, view: int, index: Tensor) -> Tensor:
        """Return logits, float32, shape (B, C).

        Classes that a top-k file does not hold share the probability left to them equally.

        Args:
            view: in [0, views).
            index: int64, shape (B,).
        """
        values = self._values[view, index].float()
        if self._classes is None or self._rest is None:
            return values
        rest = self._rest[view, index].float()[:, None].expand(-1, self.about["num_classes"])
        return rest.scatter(1, self._classes[view, index].long(), values)

    def check(self, *, images: int, **expected: Any) -> None:
        """Check that the file belongs to this data and way of reading it.

        Args:
            images: number of training images.
            **expected: entries of `about` that must be equal.

        Raises:
            DataError: it does not; the first difference is named.
        """
        if self._values.shape[1] != images:
            raise DataError(
                f"{self.path}: holds logits of {self._values.shape[1]} images, the training split "
                f"has {images}; write it again with rld-distill-cache"
            )
        for name, value in expected.items():
            if self.about.get(name) != value:
                raise DataError(
                    f"{self.path}: made with {name.replace('_', ' ')} {self.about.get(name)}, this "
                    f"run has {value}; use the same or write it again with rld-distill-cache"
                )


def write_cache(
    path: str | Path,
    views: Sequence[Tensor],
    about: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    top_k: int | None = None,
) -> None:
    """Write teacher logits, whole or not at all.

    Args:
        path: the .safetensors file.
        views: per view the logits of all images in order, float32, shape (N, C).
        about: data_hash, teacher, augment, seed, num_classes, ...; plain types.
        dtype: float32 (exact) or float16.
        top_k: keep only the k largest logits of each image, and the mass of the rest.

    Raises:
        ValueError: top_k is outside [1, C), or float16 cannot hold a logit.
        DataError: a logit is not finite.
    """
    logits = torch.stack(list(views))
    if not torch.isfinite(logits).all():
        raise DataError("the teacher gives logits that are not finite; check its weights")
    classes = logits.shape[-1]
    about = {**about, "views": len(logits), "dtype": str(dtype), "top_k": top_k}
    if top_k is None:
        tensors = {"values": logits.to(dtype)}
    else:
        if not 1 <= top_k < classes:
            raise ValueError(f"top_k must be in [1, {classes - 1}], got {top_k}")
        values, indices = logits.topk(top_k, dim=-1)
        others = logits.scatter(-1, indices, -torch.inf).logsumexp(-1)
        equal_share = others - torch.log(torch.tensor(float(classes - top_k)))
        tensors = {
            "values": values.to(dtype),
            "classes": indices.to(torch.int32),
            "rest": equal_share.to(dtype),
        }
    if any(not torch.isfinite(t).all() for t in tensors.values()):
        raise ValueError("float16 cannot hold these logits (above 65,504); use --dtype float32")
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"rld_distill": json.dumps(about)})
