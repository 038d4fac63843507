"""`AVData` of prepared folders, by their paths."""

from __future__ import annotations

from cmdfd.data import AVData, Window
from cmdfd.prepared import open_prepared


class PreparedData(AVData):
    """The splits train, val and test of a prepared folder.

    Args:
        data: folder of cmdfd-prepare; clips without a split are for training.
        frames_per_batch: see `AVData`.
        max_frames: likewise.
        eval_frames: likewise.
        augmented: likewise.
        window: likewise.
        seed: likewise.
        num_workers: likewise.

    Raises:
        ValueError: see `AVData`.
        DataError: the folder is missing or not as described.
    """

    def __init__(
        self,
        data: str,
        *,
        frames_per_batch: int = 2000,
        max_frames: int = 250,
        eval_frames: int = 1000,
        augmented: bool = True,
        window: Window = "random",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        clips = open_prepared(data)
        super().__init__(
            clips.select([entry for entry in clips.entries if entry.split in ("train", "")]),
            val=clips.of_split("val"),
            test=clips.of_split("test"),
            frames_per_batch=frames_per_batch,
            max_frames=max_frames,
            eval_frames=eval_frames,
            augmented=augmented,
            window=window,
            seed=seed,
            num_workers=num_workers,
        )
