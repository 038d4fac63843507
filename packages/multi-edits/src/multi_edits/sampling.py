"""The multi-branch loop: source and all branches denoised in one batch (paper sec. 4, alg. 2).

Rows of a batch: the source, branches 1 to N, and their layout streams if there are any; the
unconditional half comes first where guidance is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from multi_edits.attention import AttentionControl, StepPlan
from multi_edits.blending import edit_threshold, local_blend, token_map
from multi_edits.branches import Branch, SamplingSettings, cross_control, self_attention_rows
from multi_edits.ddcm import ddcm_step

Network = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class StepState:
    """Latents after a step, before blending; for callbacks.

    Attributes:
        step: from 0.
        source: (1, C, H, W).
        targets: the branches', (N, C, H, W).
        x0: their clean estimates.
        layouts: the layout streams', (N, C, H, W) or (0, C, H, W).
        layout_x0: their clean estimates.
    """

    step: int
    source: Tensor
    targets: Tensor
    x0: Tensor
    layouts: Tensor
    layout_x0: Tensor


@dataclass(frozen=True)
class BranchSamples:
    """What sampling gives.

    Attributes:
        x0: clean latents of the branches, float32, (N, C, H, W); the last is the result.
        masks: where each differs from the one before, bool, (N, H, W).
        maps: mean cross-attention of all rows, float32, (R, P, L); None if not kept.
    """

    x0: Tensor
    masks: Tensor
    maps: Tensor | None


@torch.no_grad()
def sample_branches(
    network: Network,
    control: AttentionControl,
    branches: Sequence[Branch],
    *,
    x0: Tensor,
    noises: Iterator[Tensor],
    timesteps: Sequence[int],
    alpha_bars: Sequence[float],
    map_size: tuple[int, int],
    settings: SamplingSettings | None = None,
    keep_maps: bool = False,
    on_step: Callable[[StepState], None] | None = None,
) -> BranchSamples:
    """Denoise all branches together, each held to the source and to the branch before it.

    Args:
        network: (latents of all rows, (B, C, H, W) float32; timestep) -> predicted noise of the
            same shape; B is twice the rows where guidance is used, and prompts are those of
            `row_prompts`, after as many empty ones.
        control: what the network's attention follows.
        branches: N of them, in their order.
        x0: clean latents of the source, (1, C, H, W).
        noises: standard normal tensors like x0: the start, then one for each step.
        timesteps: falling.
        alpha_bars: products of alphas by timestep.
        map_size: height and width of the kept attention maps.
        settings: the paper's if not given.
        keep_maps: keep attention maps even where no branch needs them.
        on_step: called after each step, before blending.

    Raises:
        ValueError: there are no branches or fewer than two steps.
    """
    settings = settings or SamplingSettings()
    count, steps, layout = len(branches), len(timesteps), settings.has_layout
    if count == 0 or steps < 2:
        raise ValueError(f"needs a branch and at least two steps, got {count} and {steps}")
    control.forget()
    loop = _Loop(branches, settings, control, map_size, steps, x0, keep_maps)
    clean = x0.float()
    source = next(noises).to(clean)
    targets = source.expand(count, -1, -1, -1)
    layouts = targets if layout else targets[:0]
    target_x0, layout_x0 = clean.expand_as(targets), clean.expand_as(layouts)
    masks = torch.ones(count, *clean.shape[-2:], dtype=torch.bool, device=clean.device)
    for step, t in enumerate(timesteps):
        here = float(alpha_bars[t])
        after = float(alpha_bars[timesteps[step + 1]]) if step + 1 < steps else here
        control.plan = loop.plan(step)
        eps = loop.guide(network, torch.cat([source, targets, layouts]), t)
        eps_source, eps_targets, eps_layouts = eps.split([1, count, len(layouts)])
        noise = next(noises).to(clean)
        advance = partial(ddcm_step, alpha_bar=here, alpha_bar_next=after, noise=noise)
        chained = step >= settings.first_chained(steps)
        change = loop.scale_changes(torch.cat([eps_source, eps_targets]))
        moved = advance(
            targets,
            loop.before(source, targets, chained),
            change[1:],
            loop.noise_before(change, chained),
            loop.before(clean, target_x0, chained),
        )
        if layout:
            streams = advance(
                layouts,
                loop.before(source, layouts, chained),
                eps_layouts,
                loop.noise_before(torch.cat([eps_source, eps_layouts]), chained),
                loop.before(clean, layout_x0, chained),
            )
            layouts, layout_x0 = streams.edit, streams.x0
        source = math.sqrt(after) * clean + math.sqrt(1 - after) * noise
        targets, target_x0 = moved.edit, moved.x0
        if on_step is not None:
            on_step(StepState(step, source, targets, target_x0, layouts, layout_x0))
        if step > 0:
            threshold = edit_threshold(here, settings.edit_threshold)
            masks, keep, restore = loop.masks(threshold, last=step + 1 == steps)
            blend = loop.blend_latents
            targets = blend(targets, source, layouts, masks, keep, restore)
            if settings.compat == "paper":
                target_x0 = blend(target_x0, clean, layout_x0, masks, keep, restore)
    kept = control.maps if loop.keeps_maps else None
    control.plan = StepPlan()
    return BranchSamples(target_x0, masks, kept)


class _Loop:
    """The parts of the loop that stay the same over its steps, on the network's device."""

    def __init__(
        self,
        branches: Sequence[Branch],
        settings: SamplingSettings,
        control: AttentionControl,
        map_size: tuple[int, int],
        steps: int,
        x0: Tensor,
        keep_maps: bool,
    ) -> None:
        device, count = x0.device, len(branches)
        self.settings, self.control, self.map_size = settings, control, map_size
        self.steps, self.size, self.count = steps, (x0.shape[-2], x0.shape[-1]), count
        self.mixes = [
            None
            if branch.mix is None
            else replace(
                branch.mix, matrix=branch.mix.matrix.to(device), own=branch.mix.own.to(device)
            )
            for branch in branches
        ]
        self.sharing = [branch.sharing for branch in branches]
        self.edit = [branch.edit_tokens.to(device) for branch in branches]
        self.old = [branch.old_tokens.to(device) for branch in branches]
        self.keep = [None if b.keep_tokens is None else b.keep_tokens.to(device) for b in branches]
        self.given = [None if b.mask is None else b.mask.to(device) for b in branches]
        self.blended = [
            b.mask is not None
            or (b.kind != "global" and bool(b.edit_tokens.any() or b.old_tokens.any()))
            for b in branches
        ]
        self.rows = 1 + count * (2 if settings.has_layout else 1)
        self.halves = 2 if settings.guided else 1
        strengths = [torch.as_tensor(b.strength, dtype=torch.float32) for b in branches]
        self.scaled = any(bool((strength != 1).any()) for strength in strengths)
        self.strengths = torch.stack([s.expand(self.size) for s in strengths])[:, None].to(device)
        guidance = torch.full((self.rows,), settings.source_guidance, device=device)
        guidance[1 : 1 + count] = settings.guidance
        self.guidance = guidance.view(-1, 1, 1, 1)
        self.cross = cross_control(branches, (self.halves - 1) * self.rows, device)
        self.shared = {early: self._shared(early, device) for early in (True, False)}
        self.keeps_maps = keep_maps or any(
            blended and (b.mask is None or b.keep_tokens is not None)
            for b, blended in zip(branches, self.blended, strict=True)
        )
        self.open = torch.ones(self.size, dtype=torch.bool, device=device)

    def _shared(self, early: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
        lists = self_attention_rows(self.sharing, early=early, layout=self.settings.has_layout)
        if lists is None:
            return None
        starts = [half * self.rows for half in range(self.halves)]
        query, key, value = (
            torch.tensor([start + row for start in starts for row in rows], device=device)
            for rows in lists
        )
        return query, key, value

    def plan(self, step: int) -> StepPlan:
        """Return what attention does at a step."""
        done = (step + 1) / self.steps
        return StepPlan(
            self.shared[done < self.settings.self_ratio],
            self.cross if done <= self.settings.cross_ratio else None,
            self.rows if self.keeps_maps else 0,
        )

    def guide(self, network: Network, rows: Tensor, timestep: int) -> Tensor:
        """Return the guided predicted noise of all rows, float32."""
        if self.halves == 1:
            return network(rows, timestep).float()
        plain, text = network(torch.cat([rows, rows]), timestep).float().chunk(2)
        return plain + self.guidance * (text - plain)

    def scale_changes(self, eps: Tensor) -> Tensor:
        """Return predicted noise whose change from branch to branch is scaled by the strengths."""
        if not self.scaled:
            return eps
        changes = eps.diff(dim=0) * self.strengths
        return torch.cat([eps[:1], eps[:1] + changes.cumsum(0)])

    def before(self, source: Tensor, streams: Tensor, chained: bool) -> Tensor:
        """Return what each stream is calibrated to: the source, or once chained its neighbour."""
        if not chained:
            return source.expand_as(streams)
        if self.settings.compat == "reference":
            return torch.cat([streams[1:], source])
        return torch.cat([source, streams[:-1]])

    def noise_before(self, eps: Tensor, chained: bool) -> Tensor:
        """Return the predicted noise that belongs to it, from that of the source and streams."""
        if chained and self.settings.compat == "paper":
            return eps[:-1]
        return eps[:1]

    def masks(self, threshold: float, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the regions that are edited, kept as before, and restored, (N, H, W) each."""
        maps = self.control.maps if self.keeps_maps else torch.empty(0)
        edited, kept, restored = [], [], []
        region = ~self.open
        for n in range(self.count):
            keep = both = ~self.open
            if not self.blended[n]:
                edit = region = self.open
            elif self.settings.compat == "reference" and self.given[n] is None:
                edit, keep, both = self._reference_masks(n, maps, threshold)
            else:
                edit = self._edited(n, maps, threshold)
                if self.settings.gather_masks:
                    edit = region = region | edit
                keep_tokens = self.keep[n]
                if keep_tokens is not None:
                    seen = token_map(maps[n + 1], keep_tokens, self.map_size, self.size)
                    keep = seen > self.settings.thresh_keep
            edited.append(edit)
            kept.append(keep)
            restored.append(both if last else ~self.open)
        return torch.stack(edited), torch.stack(kept), torch.stack(restored)

    def _edited(self, n: int, maps: Tensor, threshold: float) -> Tensor:
        """Return where new words of branch n are seen, or words of the branch before that go."""
        given = self.given[n]
        if given is not None:
            return given
        new = token_map(maps[n + 1], self.edit[n], self.map_size, self.size)
        old = token_map(maps[n], self.old[n], self.map_size, self.size)
        return torch.maximum(new, old) > threshold

    def _reference_masks(
        self, n: int, maps: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the masks from the mapped attention of the branch before and of the layout."""
        mix, own = self.mixes[n], maps[n + 1]
        before = maps[n] if mix is None else mix(maps[n], own)
        layout = maps[1 + self.count + n]
        layout = before if mix is None or mix.replace else mix(layout, own)
        kept = self.keep[n]
        if kept is None:
            kept = torch.zeros_like(self.edit[n])
        both, keep = kept & self.edit[n], kept & ~self.edit[n]

        def seen(which: Tensor, tokens: Tensor) -> Tensor:
            return token_map(which, tokens, self.map_size, self.size)

        return (
            seen(layout, self.edit[n]) > threshold,
            seen(before, keep) > self.settings.thresh_keep,
            seen(layout, both) > self.settings.edit_threshold,
        )

    def blend_latents(
        self,
        targets: Tensor,
        source: Tensor,
        layouts: Tensor,
        edit: Tensor,
        keep: Tensor,
        restore: Tensor,
    ) -> Tensor:
        """Return the branches' latents with what was there before outside their edits."""
        if self.settings.compat == "reference":
            before = torch.cat([source, targets[:-1]])
            regions = edit[:, None], keep[:, None], restore[:, None]
            return local_blend(targets, before, layouts, *regions)
        blended = [source[0]]
        for n in range(self.count):
            background = layouts[n] if len(layouts) else blended[n]
            blended.append(local_blend(targets[n], blended[n], background, edit[n], keep[n]))
        return torch.stack(blended[1:])
