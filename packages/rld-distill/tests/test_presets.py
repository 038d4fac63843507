import pytest
from rld_distill.methods import CE_WEIGHT, DEFAULTS, complete_options, create_recipe
from rld_distill.presets import PRESETS, milestones, resolve


def test_paper_preset_is_the_published_cifar_recipe():
    values = resolve("paper", cuda=False)
    assert values["lr_milestones"] == [150, 180, 210]
    assert (values["epochs"], values["batch_size"], values["lr"]) == (240, 64, 0.05)
    assert (values["warmup_epochs"], values["weight_decay"], values["momentum"]) == (20, 5e-4, 0.9)
    assert (values["teacher"], values["student"]) == ("resnet32x4", "resnet8x4")


def test_imagenet_preset_is_the_published_recipe():
    values = resolve("imagenet", cuda=True)
    assert values["lr_milestones"] == [30, 60, 90]
    assert (values["epochs"], values["batch_size"], values["lr"]) == (100, 512, 0.2)
    assert values["warmup_epochs"] == 1
    assert values["loss_options"]["rld"] == {"alpha": 1.0, "beta": 0.5, "temperature": 1.0}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves(name):
    assert resolve(name, cuda=False)["preset"] == name
    for method, options in PRESETS[name].get("loss_options", {}).items():
        complete_options(method, options)


def test_light_students_learn_slower_unless_told():
    assert resolve("paper", cuda=False, student="ShuffleV1")["lr"] == 0.01
    assert resolve("paper", cuda=False, student="ShuffleV1", lr=0.3)["lr"] == 0.3


def test_auto_is_paper_on_cuda_and_quick_elsewhere():
    assert resolve("auto", cuda=True)["preset"] == "paper"
    assert resolve("auto", cuda=False)["preset"] == "quick"


def test_shorter_runs_keep_the_proportions():
    values = resolve("paper", cuda=False, epochs=24)
    assert values["lr_milestones"] == [15, 18, 21]
    assert values["warmup_epochs"] == 2


def test_milestones_are_shares_or_epochs():
    assert milestones([0.5, 0.75], 20) == [10, 15]
    assert milestones([3, 7], 20) == [3, 7]
    with pytest.raises(ValueError, match="--lr-milestones must be >= 0 and rise"):
        resolve("quick", cuda=False, lr_milestones=[0.9, 0.2])


@pytest.mark.parametrize("method", DEFAULTS)
def test_every_method_has_a_recipe(method):
    recipe = create_recipe(method)
    assert (recipe.loss is None) == (method == "ce")
    assert recipe.ce_weight == CE_WEIGHT.get(method, 1.0)
    assert recipe.warm_up == (method in ("rld", "dkd"))


def test_standardising_brings_its_own_weights():
    assert complete_options("rld", {"standardize": True})["beta"] == 72.0
    kd = complete_options("kd", {"standardize": True})
    assert (kd["weight"], kd["temperature"]) == (9.0, 2.0)
    assert complete_options("dkd", {"standardize": True, "alpha": 3.0})["alpha"] == 3.0


def test_unknown_names_are_met_with_the_nearest():
    with pytest.raises(ValueError, match="no method rdl; did you mean rld"):
        complete_options("rdl", {})
    with pytest.raises(ValueError, match="method kd has no option alpha"):
        complete_options("kd", {"alpha": 1.0})
