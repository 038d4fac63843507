"""The LightningModule that trains a denoiser and samples from it (section 3.8)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from papercommons.data.sampling import mix_seeds
from papercommons.optimization import stop_if_diverged
from papercommons.versions import installed_version
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from gits_sampling.adapters import EDMDenoiser, Guided
from gits_sampling.edm import draw_sigmas, edm_loss, ema_decay
from gits_sampling.fit import fit_schedule
from gits_sampling.latents import draw_latents
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample, steps_for
from gits_sampling.unet import create_network
from gits_sampling.warming import WarmUp, fixed_schedules, warm_up, wide_search

Labels = Tensor | int | None


class Samples(NamedTuple):
    """What `GITSModule.predict_step` gives.

    Attributes:
        seeds: int64, shape (B,).
        images: about [-1, 1], float, shape (B, C, H, W).
    """

    seeds: Tensor
    images: Tensor


class GITSModule(LightningModule):
    """Trains an EDM-preconditioned network with EDM's loss; Adam, and an average of the weights.

    Batches are (images, labels), or images alone: float in [-1, 1], shape (B, C, H, W). Logs
    train/loss, and of the averaged weights val/loss and test/loss, on noise that is the same every
    time. The checkpoint holds the averaged weights too.

    Args:
        network: F(x, c_noise), with a third argument, labels, if num_classes > 0; or a name for
            `gits_sampling.unet.create_network`.
        shape: of an image, (C, H, W).
        num_classes: labels are 0 .. num_classes - 1, and -1 for none; 0: without labels.
        network_options: further arguments of `create_network`.
        sigma_data: deviation of the data, > 0. EDM: 0.5.
        sigma_min: least noise level of sampling, > 0.
        sigma_max: greatest one.
        log_mean: of ln sigma in training.
        log_std: of ln sigma in training, > 0.
        lr: learning rate, > 0. EDM: 1e-3 for 32 x 32, 2e-4 for 64 x 64.
        warmup: share of all steps over which the learning rate rises, in [0, 1).
        half_life: of the average, images.
        ramp: early on, the half-life is at most this share of the images seen.
        label_dropout: share of the labels left out in training, so that guidance is possible.

    Attributes:
        network: as trained.
        average: the same network with averaged weights.
        images_seen: in training.
        schedule: what `sample` and ``predict_step`` use, at first Heun over 18 steps of the
            polynomial schedule; set it, it is kept in the checkpoint.

    Raises:
        ValueError: unknown network, or a number out of range.
    """

    def __init__(
        self,
        network: nn.Module | str = "unet",
        shape: Sequence[int] = (1, 32, 32),
        *,
        num_classes: int = 0,
        network_options: Mapping[str, Any] | None = None,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        lr: float = 1e-3,
        warmup: float = 0.02,
        half_life: float = 500_000,
        ramp: float = 0.05,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        above = {"lr": lr, "sigma_data": sigma_data, "log_std": log_std, "half_life": half_life}
        for name, value in (above | {"ramp": ramp}).items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be > 0, got {value}")
        if not 0 < sigma_min < sigma_max < float("inf"):
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        if not (0 <= warmup < 1 and 0 <= label_dropout < 1):
            raise ValueError(
                f"warmup and label_dropout must be in [0, 1), got {warmup}, {label_dropout}"
            )
        shape, network_options = list(shape), dict(network_options or {})  # plain types are saved
        self.save_hyperparameters(ignore=["network"] if isinstance(network, nn.Module) else [])
        self.network_name = network if isinstance(network, str) else type(network).__name__
        if isinstance(network, str):
            network = create_network(network, shape, num_classes, network_options)
        self.network: nn.Module = network
        self.average: nn.Module = copy.deepcopy(network).requires_grad_(False)
        self.shape, self.num_classes = tuple(shape), num_classes
        self.network_options = network_options
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        self.log_mean, self.log_std = log_mean, log_std
        self.lr, self.warmup, self.label_dropout = lr, warmup, label_dropout
        self.half_life, self.ramp = half_life, ramp
        self.images_seen, self._in_step = 0, 0
        self.schedule = self.named_schedule("polynomial 7", nfe=36, solver="heun")
        self.train_loss = MeanMetric(nan_strategy="disable")  # a loss that is not finite must show

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch; noise comes from torch's global generator."""
        images, labels = self._images_and_labels(batch)
        if labels is not None and self.label_dropout:
            dropped = torch.rand(len(labels), device=labels.device) < self.label_dropout
            labels = torch.where(dropped, -1, labels)
        sigma = draw_sigmas(len(images), mean=self.log_mean, std=self.log_std, device=images.device)
        noise = torch.randn_like(images)
        loss = self._loss(self.network, images, labels, sigma, noise)
        self.train_loss.update(loss.detach(), len(images))
        self._in_step += len(images)
        return loss

    def _loss(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor | None,
        sigma: Tensor,
        noise: Tensor,
    ) -> Tensor:
        denoiser = EDMDenoiser(_Labelled(network, labels), sigma_data=self.sigma_data)
        return edm_loss(denoiser, images, sigma, noise, sigma_data=self.sigma_data)

    def _images_and_labels(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        images, labels = (batch, None) if isinstance(batch, Tensor) else batch[:2]
        return images, labels if self.num_classes else None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        images = self._in_step * self.trainer.world_size
        decay = ema_decay(images, self.images_seen, half_life=self.half_life, ramp=self.ramp)
        follow = get_ema_multi_avg_fn(decay)
        follow(list(self.average.parameters()), list(self.network.parameters()), 0)
        for ours, theirs in zip(self.average.buffers(), self.network.buffers(), strict=True):
            ours.copy_(theirs)
        self.images_seen, self._in_step = self.images_seen + images, 0

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean; a loss that is not finite ends the run."""
        loss = self.train_loss.compute()
        stop_if_diverged(self, loss)
        self.log("train/loss", loss)
        self.train_loss.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the averaged network's loss of one batch."""
        self._log_loss("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the averaged network's loss of one batch."""
        self._log_loss("test", batch, batch_idx)

    def _log_loss(self, split: str, batch: Any, batch_idx: int) -> None:
        images, labels = self._images_and_labels(batch)
        generator = torch.Generator().manual_seed(mix_seeds(self.global_rank, batch_idx))
        noise = torch.randn(images.shape, generator=generator).to(images)
        sigma = draw_sigmas(
            len(images), mean=self.log_mean, std=self.log_std, generator=generator
        ).to(images.device)
        loss = self._loss(self.average, images, labels, sigma, noise)
        self.log(f"{split}/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(images))

    def configure_optimizers(self) -> Any:
        """Return Adam and its schedule, stepped after each batch."""
        optimizer = Adam([p for p in self.network.parameters() if p.requires_grad], lr=self.lr)
        rising = round(self.warmup * int(self.trainer.estimated_stepping_batches))
        schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, rising)))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the images seen and the schedule."""
        state = {"images_seen": self.images_seen, "schedule": self.schedule.to_dict()}
        checkpoint["gits_sampling"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them."""
        state = checkpoint["gits_sampling"]
        self.images_seen = state["images_seen"]
        self.schedule = Schedule(**state["schedule"])

    def denoiser(
        self, *, ema: bool = True, labels: Labels = None, guidance: float = 1.0
    ) -> nn.Module:
        """Return D(x, sigma), for `gits_sampling.sample` and `gits_sampling.fit_schedule`.

        Args:
            ema: of the averaged weights; else of the network, in its present mode.
            labels: one for all, or one per sample, int64 (B,); -1 for none. None: each class in
                turn over a batch, if the network has classes.
            guidance: w of classifier-free guidance; two network calls each time if not 0 or 1.

        Raises:
            ValueError: a label out of range, or guidance for a network that cannot do it.
        """
        network = self.average.eval() if ema else self.network
        if guidance != 1 and not (self.num_classes and self.label_dropout):
            raise ValueError(
                "guidance must be 1 for a network without labels or trained with "
                f"label_dropout 0, got {guidance}"
            )
        if not self.num_classes:
            if labels is not None:
                raise ValueError("labels must be None: the network has no classes")
            return EDMDenoiser(_Labelled(network, None), sigma_data=self.sigma_data)
        labels = torch.arange(self.num_classes) if labels is None else torch.as_tensor(labels)
        if not ((labels >= -1) & (labels < self.num_classes)).all():
            raise ValueError(
                f"labels must be -1 to {self.num_classes - 1}, got {labels.unique().tolist()}"
            )
        labels = labels.reshape(-1).long().to(self.device)
        conditional = EDMDenoiser(_Labelled(network, labels), sigma_data=self.sigma_data)
        if guidance == 1:
            return conditional
        none = _Labelled(network, torch.full_like(labels[:1], -1))
        return Guided(conditional, EDMDenoiser(none, sigma_data=self.sigma_data), guidance)

    def named_schedule(
        self, name: str, *, nfe: int, solver: str = "ipndm", order: int | None = None
    ) -> Schedule:
        """Return one of the usual schedules for this network.

        Args:
            name: polynomial 7, log_snr, time_uniform 1 or time_uniform 2.
            nfe: network calls.
            solver: see `gits_sampling.sample`.
            order: its order.

        Raises:
            ValueError: unknown name, or see `gits_sampling.solvers.steps_for`.
        """
        steps = steps_for(solver, nfe)  # type: ignore[arg-type]
        known = fixed_schedules(steps, self.sigma_min, self.sigma_max)
        if name not in known:
            raise ValueError(f"schedule must be one of {', '.join(known)}, got {name}")
        version = installed_version("gits-sampling")
        return Schedule(
            sigmas=known[name], nfe=nfe, solver=solver, order=order, method=name, version=version
        )

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int] | Tensor,
        labels: Labels = None,
        *,
        schedule: Schedule | None = None,
        guidance: float = 1.0,
        ema: bool = True,
    ) -> Tensor:
        """Return images, about [-1, 1], float, shape (B, C, H, W).

        Args:
            seeds: one per image, >= 0; an image follows from its own alone.
            labels: see `denoiser`; None: each seed modulo the number of classes.
            schedule: with its solver; None: `schedule` of the module.
            guidance: see `denoiser`.
            ema: see `denoiser`.

        Raises:
            ValueError: see `denoiser`; a network that gives NaN or infinity.
        """
        schedule = schedule or self.schedule
        numbers = torch.as_tensor(seeds, dtype=torch.int64).cpu()
        if labels is None and self.num_classes:
            labels = numbers % self.num_classes
        sigmas = schedule.sigmas
        return sample(
            self.denoiser(ema=ema, labels=labels, guidance=guidance),
            draw_latents(numbers.tolist(), self.shape, float(sigmas[0]), self._like()),
            sigmas,
            **schedule.solver_options,
        )

    def predict_step(self, batch: Any, batch_idx: int) -> Samples:
        """Return the images of seeds, int64 (B,), or of (seeds, labels), on the CPU."""
        seeds, labels = (batch, None) if isinstance(batch, Tensor) else batch
        return Samples(seeds.cpu(), self.sample(seeds, labels).cpu())

    def warm_up(self, *, labels: Labels = None, guidance: float = 1.0, **options: Any) -> WarmUp:
        """Return what schedules of every budget and solver need, see `fit_schedule`.

        Args:
            labels: see `denoiser`.
            guidance: see `denoiser`.
            **options: of `gits_sampling.warm_up`.
        """
        denoiser = self.denoiser(labels=labels, guidance=guidance)
        wide = wide_search(self.sigma_min, self.sigma_max)
        return warm_up(denoiser, **(self._setting() | wide | options))

    def fit_schedule(
        self, nfe: int, *, labels: Labels = None, guidance: float = 1.0, **options: Any
    ) -> Schedule:
        """Return the best schedule for the averaged network; set `schedule` to use it.

        With classes, samples of the warm-up have each class in turn, unless a label is given.

        Args:
            nfe: evaluations of the denoiser, each two network calls with guidance.
            labels: see `denoiser`.
            guidance: see `denoiser`.
            **options: of `gits_sampling.fit_schedule`, such as solver, coeff, warm.
        """
        denoiser = self.denoiser(labels=labels, guidance=guidance)
        return fit_schedule(denoiser, nfe=nfe, **(self._setting() | options))

    def _setting(self) -> dict[str, Any]:
        ends = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        return ends | {"shape": self.shape, "like": self._like()}

    def _like(self) -> Tensor:
        dtype = next(self.average.parameters()).dtype
        return torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=self.device)


class _Labelled(nn.Module):
    """A network of which each call gets these labels; fewer than samples are repeated in turn."""

    def __init__(self, network: nn.Module, labels: Tensor | None) -> None:
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        if self.labels is None:
            return self.network(x, noise)
        labels = self.labels.repeat(-(-len(x) // len(self.labels)))[: len(x)]
        return self.network(x, noise, labels)
