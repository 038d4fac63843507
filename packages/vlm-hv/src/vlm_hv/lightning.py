"""The LightningModule that fine-tunes a verifier: an adapter (LoRA), or every weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule
from papercommons.errors import DataError, missing_library
from papercommons.metrics.pair_scores import PairScores
from papercommons.optimization import stop_if_diverged, with_warmup_cosine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from vlm_hv.data import PairBatch
from vlm_hv.scoring import last_logits
from vlm_hv.verifier import VLMVerifier

Tune = Literal["lora", "full"]
LORA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_VISION = ("vision", "visual", "image")
_PROJECTOR = ("projector", "connector", "merger")


def suffix_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens alone (section 3.2).

    Args:
        logits: any float dtype, shape (B, A, V), at the positions before each label.
        labels: int64, shape (B, A), -100 where there is nothing to learn.

    Returns:
        float32 scalar.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)


class VLMHVModule(LightningModule):
    """Fine-tunes a vision-language model to answer whether one person wrote both pictures.

    Batches are `PairBatch`. Logs train/loss and, of the pairs of held-out writers, val/auc and
    val/eer. Checkpoints hold what is trained, not the frozen base.

    Args:
        verifier: what is trained; or folder or hub id, see `VLMVerifier.from_pretrained`.
        tune: lora adds an adapter to the language model (or goes on with one that is there) and
            freezes the rest; full trains every weight.
        lora_r: rank of the adapter.
        lora_alpha: its scale is lora_alpha / lora_r.
        lora_dropout: before the adapter, in [0, 1).
        adapt_projector: adapt the layers between vision tower and language model too.
        lr: learning rate; 2e-4 for lora and 1e-3 for full if not given, the latter for tiny models.
        weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises, in [0, 1); then half a
            cosine down.

    Raises:
        ValueError: a number out of range.
        DataError: peft is not installed, or the model has no layers of these names.
    """

    def __init__(
        self,
        verifier: VLMVerifier | str | Path,
        *,
        tune: Tune = "lora",
        lora_r: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        adapt_projector: bool = False,
        lr: float | None = None,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        if tune not in ("lora", "full"):
            raise ValueError(f"tune must be lora or full, got {tune!r}")
        if lora_r < 1 or lora_alpha <= 0 or not 0 <= lora_dropout < 1:
            raise ValueError(
                "lora_r must be >= 1, lora_alpha > 0 and lora_dropout in [0, 1), got "
                f"{lora_r}, {lora_alpha}, {lora_dropout}"
            )
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {warmup}")
        if not isinstance(verifier, VLMVerifier):
            verifier = VLMVerifier.from_pretrained(verifier)
        if tune == "lora":
            add_lora(verifier, lora_r, lora_alpha, lora_dropout, adapt_projector=adapt_projector)
        else:
            verifier.requires_grad_(True)
        self.verifier, self.tune = verifier.train(), tune
        self.lr = lr if lr is not None else {"lora": 2e-4, "full": 1e-3}[tune]
        self.weight_decay, self.warmup = weight_decay, warmup
        self.seen = PairScores()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the log-odds of same, float32, shape (B,); see `PairPrompt.encode`."""
        odds: Tensor = self.verifier(inputs)
        return odds

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        width = batch.labels.shape[1]
        logits = last_logits(self.verifier.model, batch.inputs, keep=width + 1)
        loss = suffix_loss(logits[:, :-1], batch.labels)
        self.log(
            "train/loss",
            loss.detach(),
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=len(batch.same),
        )
        return loss

    def on_train_epoch_end(self) -> None:
        """End the run if a loss is not finite."""
        stop_if_diverged(self)

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        self.seen.reset()

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        self.seen.update(self(batch.inputs), batch.same)

    def on_validation_epoch_end(self) -> None:
        """Log AUC and equal error rate over all pairs, of all processes."""
        self.log_dict({f"val/{name}": value for name, value in self.seen.compute().items()})

    def configure_optimizers(self) -> Any:
        """Return AdamW over what is trained, and its schedule, stepped after each batch."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        return with_warmup_cosine(optimizer, self, self.warmup)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return what is trained; a frozen base of billions of weights stays out of checkpoints."""
        whole = super().state_dict(*args, **kwargs)
        if self.tune == "full":
            return whole
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: value for name, value in whole.items() if name in trained}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what `state_dict` gave; with `strict` nothing of that may be missing or new."""
        if strict and (other := set(state_dict) ^ set(self.state_dict())):
            raise DataError(
                f"the checkpoint does not fit: {len(other)} names differ ({sorted(other)[0]}, "
                "...); give the same model and the same LoRA options"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def add_lora(
    verifier: VLMVerifier, r: int, alpha: int, dropout: float, *, adapt_projector: bool = False
) -> None:
    """Freeze a verifier's model but for a LoRA adapter, added if there is none.

    Args:
        verifier: changed in place.
        r: rank.
        alpha: scale times rank.
        dropout: before the adapter.
        adapt_projector: adapt the layers between vision tower and language model too.

    Raises:
        DataError: peft is not installed, or no layer has one of the names.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise missing_library("LoRA", "peft", "vlm-hv[local]") from None
    if verifier.has_adapter:
        verifier.requires_grad_(False)
        for name, parameter in verifier.named_parameters():
            parameter.requires_grad_("lora_" in name)
        return
    layers = lora_layers(verifier.model, adapt_projector=adapt_projector)
    verifier.model.add_adapter(
        LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)
    )
    for parameter in verifier.parameters():
        if parameter.requires_grad:  # small steps vanish in bfloat16
            parameter.data = parameter.data.float()


def lora_layers(model: nn.Module, *, adapt_projector: bool = False) -> list[str]:
    """Return the names of the linear layers to adapt: those of the language model's blocks.

    Args:
        model: of transformers.
        adapt_projector: also those between vision tower and language model.

    Raises:
        DataError: there are none.
    """
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        parts = name.split(".")
        between = any(word in part for part in parts for word in _PROJECTOR)
        seeing = any(word in part for part in parts for word in _VISION)
        if (between and adapt_projector) or (
            parts[-1] in LORA_LAYERS and not between and not seeing
        ):
            found.append(name)
    if not found:
        raise DataError(
            f"{type(model).__name__} has no linear layers called {', '.join(LORA_LAYERS)}; LoRA "
            "does not know this model"
        )
    return found
