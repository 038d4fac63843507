from __future__ import annotations

import itertools
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
import yaml
from papercommons.arguments import build_parser
from papercommons.cli import RunOptions, run_command

seen: dict[str, Any] = {}

# ten levels, each of which repeats the one before nine times
BOMB = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in itertools.pairwise("abcdefghijk")
)


@dataclass(frozen=True)
class Recipe:
    """The recipe.

    Attributes:
        epochs: passes over the data, 100 % of it.
        lr: learning rate.
        milestones: shares of all epochs.
        seeds: of the runs.
        layers: which ones.
        mode: how.
        grey: whether images are grey.
        options: anything else, as --options.KEY VALUE.
    """

    epochs: int = 3
    lr: float | None = None
    milestones: list[float] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    layers: list[Literal["first", "last"]] = field(default_factory=list)
    mode: Literal["fast", "exact"] = "fast"
    grey: bool | None = None
    options: dict[str, str | float | bool] | None = None


def train(
    *,
    data: str,
    batch_size: int = 4,
    names: list[str] = ["a", "b"],  # noqa: B006
    name: str | None = None,
    pretrained: bool = True,
    recipe: Recipe = Recipe(),
    run: RunOptions = RunOptions(),  # noqa: B008
) -> None:
    """Train a toy.

    Args:
        data: a folder of images (or one written by toy-distill-export, toy-distill-train).
        batch_size: items per step.
        names: what to call them.
        name: what to call it.
        pretrained: whether to start from published weights.
        recipe: the recipe.
        run: how to run.
    """
    seen.clear()
    seen.update(data=data, batch_size=batch_size, names=names, name=name, pretrained=pretrained)
    seen.update(recipe=recipe, run=run)


def predict(*images: str, checkpoint: str, top: int = 1) -> None:
    """Predict.

    Args:
        images: files.
        checkpoint: weights.
        top: how many.
    """
    seen.clear()
    seen.update(images=images, checkpoint=checkpoint, top=top)


def call(function, *words):
    return run_command(function, prog="toy", argv=list(map(str, words)))


def error_of(capsys, *words, function=train):
    """Return the one line of a call that must end with 2."""
    assert call(function, *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("toy: error: ")
    return printed.err.removeprefix("toy: error: ").strip()


def test_help_has_every_option_and_default(capsys):
    assert call(train, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("data", "batch-size", "names", "pretrained", "no-pretrained", "config", "json"):
        assert f"--{option}" in text
    for name in (*asdict(Recipe()), *asdict(RunOptions())):
        assert f"--{name.replace('_', '-')}" in text
    assert "usage: toy --data DATA [options]" in text
    assert "toy-distill-train). (required)" in text
    assert "items per step. (default: 4)" in text
    assert "what to call them. (default: a,b)" in text
    assert "of the runs. (default: 0,1)" in text
    assert "--mode {fast,exact} how. (default: fast)" in text
    assert "published weights. (default: yes)" in text
    assert "write nothing. (default: no)" in text
    assert "passes over the data, 100 % of it. (default: 3)" in text
    assert "the recipe: --epochs" in text
    assert "how to run: --seed" in text
    assert "--print-config" in text
    assert "--print_config" not in text


def test_help_breaks_no_line_within_a_name(capsys):
    assert call(train, "--help") == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if line.endswith("-")]


def test_values_reach_the_function_typed():
    words = "--data 007 --batch_size 8 --names x,y --no-pretrained --lr 1e-3 --milestones 0.5,.75"
    words += " --seeds [4,5] --layers last --mode exact --grey --devices 2 --resume last --seed 3"
    assert call(train, *words.split()) == 0
    assert (seen["data"], seen["batch_size"], seen["names"]) == ("007", 8, ["x", "y"])
    assert seen["pretrained"] is False
    assert seen["recipe"] == Recipe(
        lr=0.001, milestones=[0.5, 0.75], seeds=[4, 5], layers=["last"], mode="exact", grey=True
    )
    assert seen["run"] == RunOptions(devices="2", resume="last", seed=3)


def test_defaults_reach_the_function():
    assert call(train, "--data", "x") == 0
    assert seen["recipe"] == Recipe()
    assert seen["run"] == RunOptions()
    assert seen["names"] == ["a", "b"]
    assert seen["pretrained"] is True


@pytest.mark.parametrize("data", ["null", "true", "1e3", "[1, 2]", "a: b", "@x", "", "C:\\new\\x"])
def test_text_stays_text(data):
    assert call(train, "--data", data) == 0
    assert seen["data"] == data


def test_null_takes_an_option_back(tmp_path):
    (tmp_path / "c.yaml").write_text("data: x\nname: n\nlr: 3\n")
    words = ("--config", tmp_path / "c.yaml", "--name", "null", "--lr", "null")
    assert call(train, *words) == 0
    assert seen["name"] is None
    assert seen["recipe"].lr is None


def test_dict_options_keep_types_and_underscores():
    words = "--trainer.max_steps 3 --trainer.gradient-clip-val 0.5 --trainer.detect_anomaly true"
    words += " --options.a_b 2 --options.kind x --options.on true --trainer.limit_val_batches 1e-1"
    assert call(train, "--data", "x", *words.split()) == 0
    trainer = {"max_steps": 3, "gradient_clip_val": 0.5, "detect_anomaly": True}
    assert seen["run"].trainer == trainer | {"limit_val_batches": 0.1}
    assert type(seen["run"].trainer["max_steps"]) is int
    assert seen["recipe"].options == {"a_b": 2, "kind": "x", "on": True}


def test_a_dict_option_imports_no_class(capsys):
    value = "{class_path: this.Zen}"
    message = error_of(capsys, "--data", "x", "--trainer.logger", value)
    assert message.startswith("--trainer: expected")
    assert "this" not in sys.modules


def test_config_file_then_later_options(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: x\ndevices: 2\nlr: 1e-3\nseeds: [7, 8]\nnames: a,c\ngrey: no\nbatch-size: 5\n"
        "trainer: {max_steps: 3, precision: 64-true}\npretrained: false\n"
    )
    words = ("--config", path, "--seeds", 9, "--trainer.max_steps", 4, "--pretrained")
    assert call(train, *words) == 0
    assert seen["recipe"] == Recipe(lr=0.001, seeds=[9], grey=False)
    assert seen["names"] == ["a", "c"]
    assert seen["batch_size"] == 5
    assert seen["pretrained"] is True
    trainer = {"max_steps": 4, "precision": "64-true"}
    assert seen["run"] == RunOptions(devices="2", trainer=trainer)
    assert call(train, "--seeds", 9, "--config", path) == 0
    assert seen["recipe"].seeds == [7, 8]


def test_printed_config_can_be_read_again(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    words = ["--data", "null", "--milestones", "0.5", "--devices", "2", "--options.a_b", "x"]
    words += ["--trainer.max_steps", "3", "--no-grey", "--name", "12"]
    assert call(train, *words, "--print-config") == 0
    path.write_text(capsys.readouterr().out)
    assert yaml.safe_load(path.read_text())["devices"] == "2"
    assert call(train, *words) == 0
    once = dict(seen)
    assert call(train, "--config", path) == 0
    assert seen == once


def test_printed_config_without_a_needed_option(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    assert call(train, "--print_config") == 0
    path.write_text(capsys.readouterr().out)
    assert "--data" in error_of(capsys, "--config", path)


def test_positional_words(tmp_path):
    assert call(predict, "a b.png", "c.png", "--checkpoint", "w") == 0
    assert seen == {"images": ("a b.png", "c.png"), "checkpoint": "w", "top": 1}
    assert call(predict, "--checkpoint", "w", "--", "--odd_name.png", "-y") == 0
    assert seen["images"] == ("--odd_name.png", "-y")
    (tmp_path / "c.yaml").write_text("images: [a.png, 7]\ncheckpoint: w\n")
    assert call(predict, "--config", tmp_path / "c.yaml") == 0
    assert seen["images"] == ("a.png", "7")
    assert call(predict, "--config", tmp_path / "c.yaml", "z.png") == 0
    assert seen["images"] == ("z.png",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data x --epocs 3", "no option --epocs; did you mean --epochs?"),
        ("--data x --batchsize=3", "no option --batchsize; did you mean --batch-size?"),
        ("--dat x", "no option --dat; did you mean --data?"),
        ("--data x --recipe.lr 3", "no option --recipe.lr"),
        ("--data x stray", "unexpected 'stray'"),
        ("--data x --pretrained false", "unexpected 'false'"),
        ("--data x --pretrained=false", "--pretrained: takes no value, got 'false'"),
        ("--data x --batch-size abc", "--batch-size: expected int, got 'abc'"),
        ("--data x --batch-size 1.5", "--batch-size: expected int, got '1.5'"),
        ("--data x --batch-size true", "--batch-size: expected int, got 'True'"),
        ("--data x --lr abc", "--lr: expected float, got 'abc'"),
        ("--data x --lr nan", "--lr: expected float, got 'nan'"),
        ("--data x --mode slow", "--mode: expected one of fast, exact, got 'slow'"),
        ("--data x --seeds 1,b", "--seeds: expected comma-separated int, got '1,b'"),
        ("--data x --seeds 1,", "--seeds: expected comma-separated int, got '1,'"),
        ("--data x --names a,,b", "--names: expected comma-separated str, got 'a,,b'"),
        ("--data x --seeds [1", "--seeds: expected comma-separated int, got '[1'"),
        ("--data x --seeds 1.5", "--seeds: expected comma-separated int, got '1.5'"),
        ("--data x --layers all", "--layers: expected comma-separated of first, last, got 'all'"),
        ("--data x --trainer 3", "--trainer: expected dict, got '3'"),
        ("--data", "--data: needs a value"),
        ("--data x --lr", "--lr: needs a value"),
        ("--data x --config", "--config: needs a value"),
        ("--epochs 3", "needs --data"),
        ("--data x --seed -1", "--seed must be in [0, 2^32), got -1"),
        ("--data x --num-workers -1", "--num-workers must be >= 0, got -1"),
        ("--print-completion fish", "--print-completion: invalid choice: 'fish'"),
        ("--print-config=all", 'Invalid option "all" for --print-config'),
    ],
)
def test_mistakes_on_the_command_line(words, message, capsys):
    assert message in error_of(capsys, *words.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr: 3", "--config: no option lrr; did you mean lr?"),
        ("recipe: {lr: 3}", "--config: no option recipe.lr; did you mean lr?"),
        ("lr: abc", "--lr: expected float, got 'abc'"),
        ("lr: [3", "c.yaml: not readable YAML (line 1: "),
        ("lr: 3\n\tmode: fast", "c.yaml: not readable YAML (line 2: "),
        ("just text", "c.yaml: holds no options; expected lines such as `lr: 0.1`"),
        ("", "c.yaml: holds no options"),
        ("- 1", "c.yaml: holds no options"),
        ("seeds: [1.5]", "--seeds: expected comma-separated int, got [1.5]"),
        ("seeds: [true]", "--seeds: expected comma-separated int, got [True]"),
        ("data: no", "--data: expected text, got False; put it in quotes"),
        ("data: [a]", "--data: expected text, got ['a']; put it in quotes"),
        ("\xff\n", "c.yaml: not UTF-8 text"),
        ("a: !!python/object/apply:os.system ['true']", "c.yaml: not readable YAML (line 1: could"),
        ("lr: 2024-99-99", "c.yaml: not readable YAML (month must be in 1..12)"),
        ("lr: " + "9" * 5000, "c.yaml: not readable YAML (Exceeds the limit"),
        ("lr: " + "[" * 300, "c.yaml: not readable YAML (more than 20 levels or aliases)"),
        (BOMB, "c.yaml: not readable YAML (more than 20 levels or aliases)"),
    ],
)
def test_mistakes_in_the_config(text, message, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert message in error_of(capsys, "--config", path, "--data", "x")
    assert message in error_of(capsys, f"--config={path}", "--data", "x")


@pytest.mark.parametrize("path", ["nope.yaml", ".", ""])
def test_missing_config(path, capsys):
    assert "no such file" in error_of(capsys, f"--config={path}", "--data", "x")


def test_undocumented_parameters_are_refused():
    def silent(*, data: str) -> None:
        """Do."""

    with pytest.raises(TypeError, match="data of this command needs a type and a line"):
        build_parser(silent, "toy")


def test_completion_script(capsys):
    assert call(train, "--print-completion", "shtab-bash") == 0
    printed = capsys.readouterr().out
    assert "--batch-size" in printed
    assert "toy" in printed


@pytest.mark.parametrize("word", ["-0.5,0.25", "-.5,0.25"])
def test_a_list_may_begin_with_a_minus(word):
    assert run_command(train, prog="x", argv=["--data", "x", "--milestones", word]) == 0
    assert seen["recipe"].milestones == [-0.5, 0.25]
