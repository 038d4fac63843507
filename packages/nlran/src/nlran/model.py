"""NL-RAN: a 3-D residual attention network with non-local blocks, and its ablations.

Which layers, widths and positions the paper used is not known; see the documentation's list of our
choices. The parents are the residual attention network and the non-local network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nlran.attention import AttentionModule3d, CBAM3d, ResidualUnit3d
from nlran.features import Features, Place
from nlran.non_local import Form, NonLocalBlock3d
from nlran.normalization import Norm, norm_layer

Attention = Literal["residual", "cbam", "none"]


class NLRAN(nn.Module):
    """A stem, stages of a residual unit and attention modules, and a linear classifier.

    Stage s (from 1) is a `ResidualUnit3d` (stride 2 from the second on), one `AttentionModule3d`
    per entry of ``depths[s - 1]``, and a `NonLocalBlock3d` if s is in `non_local_after`. The last
    stage is `last_units` residual units.

    Args:
        num_classes: >= 1.
        widths: channels of each stage, multiples of 4.
        depths: for each stage but the last, the mask depth of each of its attention modules.
        last_units: residual units of the last stage, >= 1.
        stem_kernel: of the first convolution, odd.
        stem_stride: of the first convolution, one number or (D, H, W); (1, 2, 2) for thick slices.
        stem_pool: max-pool 3 stride 2 after the stem.
        attention: ``residual`` modules; ``cbam``: their trunks under CBAM gates; ``none``: their
            trunks alone.
        non_local_after: stages, from 1, that a non-local block follows.
        form: of the non-local blocks.
        subsample: whether they pool keys and values by (1, 2, 2).
        decoder_sum: see `AttentionModule3d`.
        residual: see `AttentionModule3d`.
        norm: ``batch`` or ``group``.
        dropout: before the classifier, in [0, 1).

    Attributes:
        config: the arguments, plain types.
        head: the classifier; logits = head(dropout(mean over positions of ``features(x).last``)).

    Raises:
        ValueError: lengths do not agree, or a number is out of range.
    """

    def __init__(
        self,
        num_classes: int = 3,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[Sequence[int]] = ((3,), (2,), (1,)),
        last_units: int = 3,
        stem_kernel: int = 7,
        stem_stride: int | Sequence[int] = 2,
        stem_pool: bool = True,
        attention: Attention = "residual",
        non_local_after: Sequence[int] = (2,),
        form: Form = "embedded_gaussian",
        subsample: bool = False,
        decoder_sum: bool = True,
        residual: bool = True,
        norm: Norm = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1 or last_units < 1:
            raise ValueError(
                f"num_classes and last_units must be >= 1, got {num_classes}, {last_units}"
            )
        if len(depths) != len(widths) - 1:
            raise ValueError(
                f"depths must have one entry per stage but the last, {len(widths) - 1}, "
                f"got {len(depths)}"
            )
        if any(not 1 <= stage <= len(widths) for stage in non_local_after):
            raise ValueError(
                f"non_local_after must name stages 1 to {len(widths)}, got {list(non_local_after)}"
            )
        if attention not in ("residual", "cbam", "none"):
            raise ValueError(f"attention must be residual, cbam or none, got {attention}")
        depth, height, width = [stem_stride] * 3 if isinstance(stem_stride, int) else stem_stride
        stride = (depth, height, width)
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "widths": list(widths),
            "depths": [list(stage) for stage in depths],
            "last_units": last_units,
            "stem_kernel": stem_kernel,
            "stem_stride": list(stride),
            "stem_pool": stem_pool,
            "attention": attention,
            "non_local_after": list(non_local_after),
            "form": form,
            "subsample": subsample,
            "decoder_sum": decoder_sum,
            "residual": residual,
            "norm": norm,
            "dropout": dropout,
        }

        def module(channels: int, depth: int) -> nn.Module:
            if attention == "residual":
                return AttentionModule3d(
                    channels, depth, decoder_sum=decoder_sum, residual=residual, norm=norm
                )
            units = [ResidualUnit3d(channels, norm=norm) for _ in range(4)]
            gates = [CBAM3d(channels, reduction=min(16, channels))] if attention == "cbam" else []
            return nn.Sequential(*units[:3], *gates, units[3])

        layer = norm_layer(norm)
        self.stem = nn.Sequential(
            nn.Conv3d(1, widths[0], stem_kernel, stride, padding=stem_kernel // 2, bias=False),
            layer(widths[0]),
            nn.ReLU(),
            nn.MaxPool3d(3, 2, padding=1) if stem_pool else nn.Identity(),
        )
        self.stages = nn.ModuleList()
        came = widths[0]
        for number, channels in enumerate(widths, 1):
            first = ResidualUnit3d(
                channels, in_channels=came, stride=1 if number == 1 else 2, norm=norm
            )
            stage: list[nn.Module] = [first]
            if number < len(widths):
                stage += [module(channels, depth) for depth in depths[number - 1]]
            else:
                stage += [ResidualUnit3d(channels, norm=norm) for _ in range(last_units - 1)]
            if number in non_local_after:
                stage.append(NonLocalBlock3d(channels, form=form, subsample=subsample, norm=norm))
            self.stages.append(nn.ModuleList(stage))
            came = channels
        self.norm = layer(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        for part in self.modules():
            if isinstance(part, nn.Conv3d) and part.bias is None:
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits.

        Args:
            x: scans in [0, 1], float, shape (B, 1, D, H, W); any size, sensibly >= 16 per axis.

        Returns:
            Shape (B, num_classes).
        """
        return self.classify(self.features(x).last)

    def features(self, x: Tensor) -> Features:
        """Return the feature maps that logits and heat maps are made of, in one pass.

        Args:
            x: as for `forward`.

        Raises:
            ValueError: x is not (B, 1, D, H, W).
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"scans must be (B, 1, D, H, W), got {tuple(x.shape)}")
        x = self.stem(x)
        stage1 = mask = trunk = non_local = None
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                if isinstance(block, AttentionModule3d) and mask is None:
                    mask, trunk = block.branches(x)
                    x = block.merge(mask, trunk)
                    continue
                if isinstance(block, NonLocalBlock3d) and non_local is None:
                    non_local = x
                x = block(x)
            stage1 = x if stage1 is None else stage1
        last = F.relu(self.norm(x))
        return Features(last, stage1, mask, trunk, non_local, *self._places())

    def _places(self) -> tuple[Place, Place, Place]:
        """Return where the last stage, the first, and the keys of the first non-local block lie."""
        pool = 2 if self.config["stem_pool"] else 1

        def after(stage: int) -> tuple[float, float, float]:
            depth, height, width = (
                float(s * pool * 2 ** (stage - 1)) for s in self.config["stem_stride"]
            )
            return depth, height, width

        keys = Place(after(min(self.config["non_local_after"], default=1)))
        if self.config["subsample"]:  # unpadded pairs in H and W
            depth, height, width = keys.stride
            keys = Place((depth, 2 * height, 2 * width), (0.0, height / 2, width / 2))
        return Place(after(len(self.stages))), Place(after(1)), keys

    def classify(self, last: Tensor) -> Tensor:
        """Return the logits, shape (B, num_classes), of the last feature map (B, C, d, h, w)."""
        return self.head(self.dropout(last.mean((2, 3, 4))))


def nlran_tiny(num_classes: int = 3, **options: Any) -> NLRAN:
    """Return a network for tests and CPUs: widths 8 to 64, attention depths 2 and 1.

    Args:
        num_classes: >= 1.
        **options: of `NLRAN`.
    """
    small: dict[str, Any] = {
        "widths": (8, 16, 32, 64),
        "depths": ((2,), (1,), ()),
        "last_units": 1,
        "stem_kernel": 3,
        "stem_pool": False,
    }
    return NLRAN(num_classes, **(small | options))


def nlran_base(num_classes: int = 3, **options: Any) -> NLRAN:
    """Return the default network: the pattern of Attention-56, a non-local block after stage 2.

    Args:
        num_classes: >= 1.
        **options: of `NLRAN`.
    """
    return NLRAN(num_classes, **options)


def nlran_large(num_classes: int = 3, **options: Any) -> NLRAN:
    """Return the pattern of Attention-92: one, two and three attention modules.

    Args:
        num_classes: >= 1.
        **options: of `NLRAN`.
    """
    return NLRAN(num_classes, **({"depths": ((3,), (2, 2), (1, 1, 1))} | options))
