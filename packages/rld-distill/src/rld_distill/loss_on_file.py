"""What `rld-distill-loss` does: a method's loss on logits from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError
from papercommons.files import hash_files
from papercommons.report import Result

from rld_distill.methods import complete_options, create_recipe
from rld_distill.options import PACKAGE

LIMITS = "A value to compare another implementation with; it says nothing about training."


def evaluate_loss(file: str, method: str, given: dict[str, Any]) -> Result:
    """Evaluate a method's loss on logits from a file, and return value and gradient's norm.

    Args:
        file: .npz with student (B, C), teacher (B, C) and target (B,).
        method: its name.
        given: options that differ from the defaults.

    Raises:
        DataError: the file is not as described.
        ValueError: the arrays, or an option, cannot be used.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:
        raise DataError(f"{file}: not a readable .npz ({str(error).splitlines()[0]})") from None
    if missing := {"student", "teacher", "target"} - found.keys():
        raise DataError(f"{file}: no array {', '.join(sorted(missing))}; has {sorted(found)}")
    student = found["student"].requires_grad_()
    recipe = create_recipe(method, **given)
    assert recipe.loss is not None
    value = recipe.loss(student, found["teacher"], found["target"])
    value.backward()
    assert student.grad is not None
    metrics = {"loss": value.item(), "gradient_norm": student.grad.norm().item()}
    options = complete_options(method, given)
    return Result(
        package=PACKAGE,
        command="rld-distill-loss",
        title=f"{method} on {file}: {len(student)} samples, {student.shape[1]} classes",
        rows=[metrics],
        metrics=metrics,
        settings={"file": file, "method": method, **options},
        limits=LIMITS,
        data_hash=hash_files([file]),
        device="cpu",
    )
