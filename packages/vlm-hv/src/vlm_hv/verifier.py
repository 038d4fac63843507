"""The verifier: a vision-language model, its question, its calibration and threshold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError, reason
from papercommons.files import write_json, write_text
from papercommons.metrics.calibration import Calibration, fit_calibration
from papercommons.versions import installed_version
from torch import Tensor, nn

from vlm_hv.loading import Dtype, Loaded, check_layout, load_model, quieten
from vlm_hv.options import PACKAGE
from vlm_hv.prompting import Layout, PairPrompt, Pictures, as_rgb, first_tokens
from vlm_hv.records import LIMITS
from vlm_hv.scoring import answer_difference, in_both_orders, last_logits

CARD = """# Handwriting verifier: {model_type}

Saved by vlm-hv {version}. Load it with `vlm_hv.VLMVerifier.from_pretrained("FOLDER")`.

- Input: two images of handwriting, layout {layout}. Question: "{question}"
- Output: the log-odds of "{yes}" against "{no}" as the first word of the answer.
- Weights: {weights}
- Made by: {made_by}
- Trained on images with hash {data_hash}.
- Limits: {limits}
"""
SAVED = "verifier.json"


@dataclass(frozen=True)
class PairVerdict:
    """What the verifier says about one pair.

    Attributes:
        decision: same or different.
        score: probability of same that the model gives, in [0, 1]: the sigmoid of `log_odds`.
        log_odds: of same, averaged over both orders where both were asked.
        order_gap: log-odds of (left, right) minus those of (right, left); None if one was asked.
        llr: natural-log likelihood ratio, None without a calibration.
    """

    decision: str
    score: float
    log_odds: float
    order_gap: float | None
    llr: float | None


class VLMVerifier(nn.Module):
    """Says of pairs of handwriting images whether one person wrote both, by one look at the logits.

    Args:
        model: of transformers, or `vlm_hv.loading.Loaded` (then without `processor`).
        processor: of the same model.
        question: asked of each pair; empty takes the default of the model's family.
        answers: words for one writer and for two.
        layout: two pictures in one prompt, or concat: both on one canvas.
        calibration: from log-odds to log-likelihood ratios.
        threshold: least log-odds called same; 0 is probability 1/2.

    Raises:
        ValueError: see `PairPrompt`.
        DataError: the model takes one picture per prompt and the layout is two.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        question: str = "",
        answers: tuple[str, str] = ("yes", "no"),
        layout: Layout = "two",
        calibration: Calibration | None = None,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(model, Loaded):
            model, processor = model.model, model.processor
        check_layout(model, layout)
        processor.tokenizer.padding_side = "left"
        self.model: Any = model
        self.prompt = PairPrompt(processor, model.config.model_type, question, answers, layout)
        self.tokens = first_tokens(processor.tokenizer, answers)
        self.calibration, self.threshold = calibration, threshold

    @property
    def has_adapter(self) -> bool:
        """Whether a LoRA adapter is in the model."""
        return bool(getattr(self.model, "_hf_peft_config_loaded", False))

    def forward(self, inputs: dict[str, Tensor], pictures: Sequence[int] | None = None) -> Tensor:
        """Return the log-odds of same, float32, shape (B,).

        Args:
            inputs: of `PairPrompt.encode`.
            pictures: see `vlm_hv.scoring.last_logits`.
        """
        placed = {name: value.to(self.model.device) for name, value in inputs.items()}
        logits = last_logits(self.model, placed, pictures=pictures)
        return answer_difference(logits[:, 0], self.tokens)

    @torch.inference_mode()
    def score(
        self,
        left: Pictures,
        right: Pictures,
        *,
        swap: bool = False,
        batch_size: int = 16,
    ) -> np.ndarray:
        """Return the log-odds of same for pairs.

        Args:
            left: known samples: PIL pictures, or uint8 arrays of shape (H, W) or (H, W, 3). Of
                equal pictures the vision tower sees one per batch, where the architecture allows.
            right: questioned samples.
            swap: also ask each pair in the other order.
            batch_size: pairs at a time, >= 1.

        Returns:
            float64, shape (P,); with `swap` (2, P), of both orders.

        Raises:
            ValueError: not equally many pictures, none, or batch_size < 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if len(left) != len(right) or not len(left):
            raise ValueError(f"pairs need equally many pictures, got {len(left)} and {len(right)}")
        was = self.training
        self.eval()
        found = [
            self._score(left[start : start + batch_size], right[start : start + batch_size], swap)
            for start in range(0, len(left), batch_size)
        ]
        self.train(was)
        return torch.cat(found, dim=1).double().cpu().numpy()[slice(None) if swap else 0]

    def _score(self, left: Pictures, right: Pictures, swap: bool) -> Tensor:
        left, right = [as_rgb(one) for one in left], [as_rgb(one) for one in right]
        first, second = (left + right, right + left) if swap else (left, right)
        pictures = None
        if self.prompt.layout == "two":
            hashes = {id(one): sha256(one.tobytes()).digest() for one in left + right}
            number = {digest: place for place, digest in enumerate(dict.fromkeys(hashes.values()))}
            shown = [picture for pair in zip(first, second, strict=True) for picture in pair]
            pictures = [number[hashes[id(picture)]] for picture in shown]
        inputs = None
        if swap and self.prompt.layout == "two":
            inputs = in_both_orders(self.prompt.encode(left, right))
        odds: Tensor = self(inputs or self.prompt.encode(first, second), pictures)
        return odds.view(2 if swap else 1, -1)

    def predict(
        self,
        left: Pictures,
        right: Pictures,
        *,
        swap: bool = True,
        batch_size: int = 16,
    ) -> list[PairVerdict]:
        """Return a verdict per pair.

        Args:
            left: see `score`.
            right: likewise.
            swap: ask both orders and average, which takes out the order's bias.
            batch_size: pairs at a time.
        """
        both = np.atleast_2d(self.score(left, right, swap=swap, batch_size=batch_size))
        odds = both.mean(axis=0)
        llr = None if self.calibration is None else self.calibration.llr(odds)
        return [
            PairVerdict(
                decision="same" if value >= self.threshold else "different",
                score=float(np.exp(-np.logaddexp(0, -value))),
                log_odds=float(value),
                order_gap=float(both[0, place] - both[1, place]) if swap else None,
                llr=None if llr is None else float(llr[place]),
            )
            for place, value in enumerate(odds)
        ]

    def calibrate(self, log_odds: np.ndarray, same: np.ndarray) -> None:
        """Set the calibration, and the threshold where its likelihood ratio is 1.

        Args:
            log_odds: of pairs of writers that were not trained on, as `predict` averages them,
                shape (P,).
            same: 1 for one writer, else 0, both there, shape (P,).

        Raises:
            ValueError: see `papercommons.metrics.calibration.fit_calibration`.
        """
        found = self.calibration = fit_calibration(log_odds, same)
        self.threshold = -found.intercept / found.slope if found.slope else 0.0

    def save_pretrained(self, folder: str | Path, **about: Any) -> Path:
        """Write weights (of an adapter alone, where there is one), processor, settings and a card.

        Any tool of the field loads the folder as a model; `from_pretrained` as a verifier.

        Args:
            folder: made if absent.
            **about: what else verifier.json keeps, plain types (made_by, data_hash, ...).

        Raises:
            ValueError: an adapter whose base model has neither folder nor hub id.
        """
        folder, base = Path(folder), str(self.model.name_or_path or "")
        if self.has_adapter and not base:
            raise ValueError(
                "an adapter is nothing without its base model: save that first (save_pretrained) "
                "and load it from its folder, then add the adapter"
            )
        version = installed_version(PACKAGE)
        folder.mkdir(parents=True, exist_ok=True)
        quieten()
        self.model.save_pretrained(folder)
        self.prompt.processor.save_pretrained(folder)
        settings = {
            **{"question": self.prompt.question, "answers": list(self.prompt.answers)},
            **{"layout": self.prompt.layout, "threshold": self.threshold},
            "calibration": None if self.calibration is None else asdict(self.calibration),
            **{"model_type": self.prompt.model_type, "base": base if self.has_adapter else None},
            **{"package": PACKAGE, "version": version, "limits": LIMITS, **about},
        }
        card = CARD.format(
            model_type=self.prompt.model_type,
            version=version,
            layout=self.prompt.layout,
            question=self.prompt.question,
            yes=self.prompt.answers[0],
            no=self.prompt.answers[1],
            weights=f"LoRA adapter of {base}" if self.has_adapter else "complete",
            made_by=about.get("made_by", "not said"),
            data_hash=about.get("data_hash", "not said"),
            limits=LIMITS,
        )
        write_text(folder / "README.md", card)
        write_json(folder / SAVED, settings)
        return folder

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: Dtype = "auto",
        four_bit: bool = False,
        **settings: Any,
    ) -> VLMVerifier:
        """Return a saved verifier, or one made of any vision-language model, in evaluation mode.

        Args:
            source: folder of a saved verifier, of the run that made it, or see
                `vlm_hv.loading.load_model`.
            device: auto, cpu, cuda, ...
            dtype: of the weights.
            four_bit: 4-bit weights; CUDA only.
            **settings: question, answers, layout, calibration, threshold, instead of the saved.

        Raises:
            DataError: missing, broken, or no model for this.
        """
        folder = find_verifier(source)
        loaded = load_model(folder or source, device=device, dtype=dtype, four_bit=four_bit)
        saved = {} if folder is None else read_settings(folder)
        return cls(loaded, **(saved | settings)).eval()


def find_verifier(source: str | Path) -> Path | None:
    """Return the folder of the saved verifier meant by `source`: itself, or its ``export``.

    Args:
        source: any; None comes back for what holds no verifier.
    """
    folders = (Path(source), Path(source) / "export")
    return next((folder for folder in folders if (folder / SAVED).is_file()), None)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return question, answers, layout, calibration and threshold of a saved verifier.

    Args:
        folder: with verifier.json.

    Raises:
        DataError: missing or broken.
    """
    path = Path(folder) / SAVED
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        calibration = saved["calibration"]
        if calibration is not None:
            numbers = (float(calibration["slope"]), float(calibration["intercept"]))
            calibration = Calibration(*numbers)
            if not all(map(math.isfinite, numbers)):
                raise ValueError("the calibration is not finite")
        yes, no = map(str, saved["answers"])
        return {
            **{"question": str(saved["question"]), "answers": (yes, no)},
            **{"layout": saved["layout"], "threshold": float(saved["threshold"])},
            "calibration": calibration,
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not readable settings of a verifier ({reason(error)})") from error
