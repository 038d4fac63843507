from __future__ import annotations

import pytest
import torch
from gits_sampling.digits import (
    COLUMNS,
    MODELS,
    beside_measured,
    compare_digits,
    digits_evaluation,
    measured,
)
from gits_sampling.models import digits_empirical

SMALL = {"samples": 32, "held_out": 32}


def test_the_table_has_the_specification_s_33_rows():
    tables = {name: measured(name) for name in MODELS}
    assert [len(table) for table in tables.values()] == [19, 14]
    a, b = tables["digits-empirical"], tables["digits-gauss10"]
    assert a["euler", 4]["polynomial 7"] == 2.898
    assert a["unipc", 10]["gits 1.0 l2"] == 0.086
    assert b["euler", 5]["gits 0.95"] == 1.299
    assert b["deis", 10] == dict(
        zip(
            COLUMNS["digits-gauss10"],
            (0.295, 0.306, 0.396, 0.167, 0.279, 0.223, 0.263, 0.589, 0.728, 0.190),
            strict=True,
        )
    )


def test_evaluation_latents_are_those_of_the_one_generator():
    model = digits_empirical()
    points = digits_evaluation(model, 3, points=21)
    generator = torch.Generator().manual_seed(1234)
    noise = torch.randn(512, 1, 8, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(points.latents, 80 * noise[:3])
    # samples of this model are training images
    gap = torch.cdist(
        digits_evaluation(model, 3, points=201).ends.flatten(1), model.data.flatten(1)
    )
    assert gap.min(1).values.max() < 0.05


def test_the_method_s_effect_on_model_a():
    """Specification 7.2: 0.46 (euler) and 0.36 (ipndm) of the polynomial schedule at NFE 6."""
    name = "digits-empirical"
    evaluation = digits_evaluation(digits_empirical(), 64, points=201)
    compared = compare_digits(
        name,
        rows=[("euler", 6), ("ipndm", 6)],
        schedules=("auto",),
        evaluation=evaluation,
        **SMALL,
    )
    for row in compared.table():
        assert row["gits 1.0"] <= 0.6 * row["polynomial 7"]
        assert row["result"] == "gain"
    rows = beside_measured(name, compared)
    assert [(r["solver"], r["nfe"]) for r in rows] == [("euler", 6), ("ipndm", 6)]
    for row in rows:
        theirs = measured(name)[row["solver"], row["nfe"]]
        assert (row["best"], row["error"]) == min(theirs.items(), key=lambda item: item[1])
        assert row["ratio"] == pytest.approx(row["auto"] / row["error"])
        # 64 of the 512 latents, and another draw of warm-up latents
        assert 0.6 < row["least"] <= row["largest"] < 1.5
    with pytest.raises(ValueError, match="ours must be one of"):
        beside_measured(name, compared, "refined")


def test_refined_beats_every_measured_column_of_model_b():
    name = "digits-gauss10"
    evaluation = digits_evaluation(MODELS[name](), 48, points=201)
    compared = compare_digits(
        name,
        rows=[("unipc", 6)],
        evaluation=evaluation,
        training=48,
        refinement={"iterations": 30, "rate": 0.1},
        **SMALL,
    )
    (row,) = compared.table()
    assert (row["best"], row["result"]) == ("refined", "gain")
    (beside,) = beside_measured(name, compared, "refined")
    assert beside["ratio"] < 0.85  # 0.59 with the full settings


def test_bad_arguments():
    with pytest.raises(ValueError, match="name must be one of"):
        measured("digits")
    with pytest.raises(ValueError, match="name must be one of"):
        compare_digits("digits")
    with pytest.raises(ValueError, match="samples must be 1 to 512"):
        digits_evaluation(digits_empirical(), 513)
