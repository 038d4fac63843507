"""One record of a benchmark edited, by the method or by a baseline."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from multi_edits.baselines import edit_with_img2img, edit_with_leditspp
from multi_edits.benchmark import Record
from multi_edits.edited_image import EditRequest, describe, edit_image
from multi_edits.edits import edits_to_json
from multi_edits.options import BaselineOptions, GroupOptions, Method, MethodOptions
from multi_edits.saved import save_edit


@dataclass(frozen=True)
class Editor:
    """How records are edited.

    Attributes:
        method: the paper's, or a baseline.
        editing: of the paper's.
        grouping: likewise.
        baseline: of the baselines.
        seed: of the noise, the same for every record, so that each can be made again alone.
        resize: fit images to the model; results have the records' own sizes.
    """

    method: Method
    editing: MethodOptions
    grouping: GroupOptions
    baseline: BaselineOptions
    seed: int
    resize: bool

    def settings(self) -> dict[str, Any]:
        """Return what decides the results, as plain types."""
        parts = (self.editing, self.grouping, self.baseline)
        options = {name: value for part in parts for name, value in asdict(part).items()}
        return {"method": self.method, "seed": self.seed, **options}

    def edit(
        self, pipe: Any, record: Record, image: Image.Image, folder: Path | None
    ) -> tuple[Image.Image, dict[str, Any]]:
        """Return the edited image, of the record's own size, and the facts of how it was made.

        Args:
            pipe: the model.
            record: what is edited.
            image: its image, RGB.
            folder: gets branches, masks and maps, where the method has them; None for nothing.

        Raises:
            DataError: the image, a prompt or an edit does not fit the model.
        """
        if self.method == "multi-edits":
            request = EditRequest(record.source, record.edits)
            done = edit_image(
                pipe,
                image,
                request,
                self.editing,
                self.grouping,
                seed=self.seed,
                resize=self.resize,
            )
            if folder is not None:
                save_edit(folder, done)
            return fit_size(done.output.image, image.size), describe(done)
        started = time.perf_counter()
        steps = self.baseline.steps(self.method)
        same: dict[str, Any] = {"steps": steps, "seed": self.seed, "resize": self.resize}
        if self.method == "ledits++":
            output = edit_with_leditspp(
                pipe, image, record.edits, settings=self.baseline.ledits(), **same
            )
        else:
            output = edit_with_img2img(
                pipe, image, record.target, settings=self.baseline.img2img(), **same
            )
        facts = {
            "seconds": time.perf_counter() - started,
            "network_rows": output.rows,
            "edits": edits_to_json(record.edits),
        }
        return fit_size(output.image, image.size), facts


def fit_size(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image at another size, smoothly; itself if it has that size.

    Args:
        image: any mode.
        size: width and height.
    """
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
