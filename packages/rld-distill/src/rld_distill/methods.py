"""Every method by name: its loss, the weight of cross-entropy beside it, whether it warms up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from papercommons.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal[
    "rld", "ce", "kd", "dkd", "la", "rc", "lr", "mlkd", "nkd", "ctkd", "dist", "ttm", "wttm"
]

STANDARDIZED_TEMPERATURE = 2.0
STANDARDIZED_WEIGHT = 9.0

DEFAULTS: dict[str, dict[str, Any]] = {
    "rld": {
        "alpha": 1.0,
        "beta": 8.0,
        "temperature": 4.0,
        "scd_temperature": None,
        "standardize": False,
        "mask": "ge",
    },
    "ce": {},
    "kd": {"weight": 0.9, "temperature": 4.0, "standardize": False},
    "dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "standardize": False},
    "la": {"temperature": 4.0},
    "rc": {"kd_weight": 1.0, "correction_weight": 0.1, "temperature": 4.0},
    "lr": {"right_weight": 4.0, "wrong_weight": 1.0, "eta": 0.8},
    "mlkd": {"weight": 0.9, "standardize": False},
    "nkd": {"temperature": 1.0, "gamma": 1.5},
    "ctkd": {"weight": 0.9, "start": 1.0, "span": 20.0, "epochs": 10},
    "dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0},
    "ttm": {"weight": 45.0, "gamma": 0.1},
    "wttm": {"weight": 4.0, "gamma": 0.2},
}

CE_WEIGHT = {"kd": 0.1, "ctkd": 0.1, "mlkd": 0.1, "la": 0.0, "lr": 0.0}  # the others: 1

WARMED_UP = ("rld", "dkd")

_MODULES = {  # the others: baselines
    **dict.fromkeys(("la", "rc", "lr"), "corrections"),
    **dict.fromkeys(("mlkd", "dist"), "relations"),
}

TAKE_TARGET = ("rld", "dkd", "la", "rc", "lr", "nkd")


class Recipe(NamedTuple):
    """How a method is trained: ``ce_weight * CE + warm-up * weight * loss``.

    Attributes:
        loss: function or module of (student_logits, teacher_logits), or of these and target; None
            for ce.
        takes_target: whether it wants the target.
        weight: of the loss.
        ce_weight: of cross-entropy.
        warm_up: whether the loss is faded in over the first epochs.
    """

    loss: Callable[..., Tensor] | None
    takes_target: bool
    weight: float
    ce_weight: float
    warm_up: bool


def complete_options(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the method's options: what was given, else the defaults.

    With ``standardize`` (the LSKD plug-in) the default temperature is 2 and the weights are those
    of the plug-in's papers: alpha and beta times 9, or 9 for kd and mlkd.

    Args:
        method: its name.
        given: options by name.

    Raises:
        ValueError: no such method, or it has no such option.
    """
    if method not in DEFAULTS:
        raise ValueError(f"no method {method}{nearest(method, DEFAULTS)} ({', '.join(DEFAULTS)})")
    options = dict(DEFAULTS[method])
    for name in given:
        if name not in options:
            has = ", ".join(options) or "none"
            raise ValueError(f"method {method} has no option {name} (has: {has})")
    if given.get("standardize"):
        if "temperature" in options:
            options["temperature"] = STANDARDIZED_TEMPERATURE
        if "weight" in options:
            options["weight"] = STANDARDIZED_WEIGHT
        else:
            options["alpha"] *= STANDARDIZED_WEIGHT
            options["beta"] *= STANDARDIZED_WEIGHT
    return options | given


def create_recipe(method: str, **given: Any) -> Recipe:
    """Return the loss of a method and how it is trained.

    Args:
        method: a key of `DEFAULTS`.
        **given: options that differ from the defaults.

    Raises:
        ValueError: no such method or option, or an option out of range.
    """
    options = complete_options(method, given)
    weight = options.pop("weight", 1.0)
    if weight < 0:
        raise ValueError(f"weight must be >= 0, got {weight}")
    loss: Callable[..., Tensor] | None = None
    if method == "rld":
        from rld_distill.losses import RLDLoss

        loss = RLDLoss(**options)
    elif method == "ctkd":
        from rld_distill.baselines import CTKDLoss

        loss = CTKDLoss(**options)
    elif method != "ce":
        module = import_module(f"rld_distill.{_MODULES.get(method, 'baselines')}")
        loss = partial(getattr(module, f"{method}_loss"), **options)
    takes_target = method in TAKE_TARGET
    return Recipe(loss, takes_target, weight, CE_WEIGHT.get(method, 1.0), method in WARMED_UP)
