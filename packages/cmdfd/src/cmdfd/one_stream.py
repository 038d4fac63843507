"""The detector with one of its streams alone: a baseline that cannot compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from cmdfd.model import CMDFDNet, CMDFDOutput

Stream = Literal["visual", "audio"]


class OneStreamNet(CMDFDNet):
    """The detector with one of its encoders alone; both of its streams come from that one.

    Attention and back-end are as large as the detector's. Train it by `CMDFDModule` without a
    teacher: what it says of correlation has no meaning.

    Args:
        stream: ``visual`` never hears the sound, ``audio`` never sees the picture.
        **sizes: see `CMDFDNet`.

    Raises:
        ValueError: another stream, or see `CMDFDNet`.

    Example:
        >>> import torch
        >>> sizes = {"dim": 32, "visual_width": 8, "audio_layers": (1, 1, 1, 1), "heads": 4}
        >>> net = OneStreamNet("visual", **sizes)
        >>> net(torch.zeros(1, 20, 13), torch.zeros(1, 5, 16, 16)).logits.shape
        torch.Size([1, 5, 2])
    """

    def __init__(self, stream: Stream, **sizes: Any) -> None:
        if stream not in ("visual", "audio"):
            raise ValueError(f"stream must be visual or audio, got {stream!r}")
        super().__init__(**sizes)
        self.stream = stream
        self.config["stream"] = stream
        unused = ["audioEncoder"]
        if stream == "audio":
            unused = ["visualFrontend", "visualTCN", "visualConv1D"]
        for name in unused:
            delattr(self, name)

    def forward(self, mfcc: Tensor, frames: Tensor) -> CMDFDOutput:
        """Return what one stream says of each frame, see `CMDFDNet.forward`.

        Args:
            mfcc: of the voice, float, shape (B, 4T, 13).
            frames: grey face crops, 0 to 255, shape (B, T, H, W).
        """
        x = self.embed_visual(frames) if self.stream == "visual" else self.embed_audio(mfcc)
        audio, visual = self.crossA2V(src=x, tar=x), self.crossV2A(src=x, tar=x)
        features = self.back_end(audio, visual)
        return CMDFDOutput(self.lossAV(features), audio, visual, features)


def build_net(config: Mapping[str, Any]) -> CMDFDNet:
    """Return a new network of a saved one's ``config``.

    Args:
        config: see `CMDFDNet` and `OneStreamNet`.

    Raises:
        TypeError: an entry that no network has.
        ValueError: a value out of range.
    """
    return OneStreamNet(**config) if "stream" in config else CMDFDNet(**config)
