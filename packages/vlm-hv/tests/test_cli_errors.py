from __future__ import annotations

import subprocess
import sys

import pytest

DATA = ("--data", ".")
MODEL = (*DATA, "--model", "m")
SERVER = (*MODEL, "--backend", "openai")
LOCAL = (*SERVER, "--base-url", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("predict", (), "needs --data, --model"),
        ("predict", ("--data", "nowhere", "--model", "m"), "nowhere: no such folder; --data takes"),
        ("predict", (*MODEL, "--pairs", "no.csv"), "no.csv: no such file; --pairs takes a list"),
        ("predict", MODEL, "m: no such folder, and no hub id (OWNER/NAME)"),
        ("predict", (*DATA, "--model", "."), "no images in it"),
        ("predict", SERVER, "the images would be sent to api.openai.com: pass --yes-upload"),
        ("predict", (*SERVER, "--yes-upload"), "no key: the environment variable OPENAI_API_KEY"),
        (
            "predict",
            (*SERVER, "--base-url", "http://10.0.0.5/v1", "--yes-upload"),
            "sends images and key unencrypted: use https, or pass --allow-insecure",
        ),
        ("predict", (*SERVER, "--base-url", "10.0.0.5"), "--base-url must begin with http://"),
        ("predict", (*LOCAL, "--api-key-env", "NO_SUCH_KEY"), "variable NO_SUCH_KEY is not set"),
        ("predict", (*MODEL, "--base-url", "http://127.0.0.1/v1"), "add --backend openai"),
        ("predict", LOCAL, "no images in it"),
        ("predict", (*LOCAL, "--limit", "0"), "--limit must be >= 1, got 0"),
        ("predict", (*LOCAL, "--repeats", "0"), "--repeats must be in [1, 100], got 0"),
        ("predict", (*LOCAL, "--mode", "cot"), "expected one of cot2, json, direct, logprob"),
        ("predict", (*LOCAL, "--prompt", "forensic_v2"), "did you mean forensic_v1"),
        ("predict", (*LOCAL, "--samples", "3"), "--samples 3 would give the same answer"),
        ("predict", (*LOCAL, "--temperature", "9"), "--temperature must be in [0, 2]"),
        ("predict", (*LOCAL, "--max-tokens", "0"), "--max-tokens must be >= 1, got 0"),
        ("predict", (*LOCAL, "--min-side", "900"), "--min-side must be >= 0 and not above"),
        ("predict", (*LOCAL, "--max-cost", "5"), "--max-cost needs --price-in and --price-out"),
        ("predict", (*LOCAL, "--price-in", "5"), "--price-in and --price-out belong together"),
        ("predict", (*LOCAL, "--max-tokens-total", "0"), "--max-tokens-total must be >= 1"),
        ("predict", (*LOCAL, "--concurrency", "0"), "--concurrency must be >= 1"),
        ("predict", (*LOCAL, "--resize", "4"), "--resize must be >= 16, got 4"),
        ("predict", (*LOCAL, "--checklist", "--repeats", "2"), "goes with neither --ablate nor"),
        (
            "predict",
            (*LOCAL, "--checklist", "--prompt", "paligemma_v1"),
            "paligemma_v1: has no features to ask for; take forensic_v1",
        ),
        ("predict", (*LOCAL, "--resume"), "nothing to resume: no run began there"),
        ("eval", (), "give one predictions.jsonl or more"),
        ("eval", ("no",), "no: no such file; give the predictions.jsonl"),
        ("train", ("--data", "nowhere", "--tiny"), "nowhere: no such folder"),
        ("train", DATA, "give either --model or --tiny"),
        ("train", (*MODEL, "--tiny"), "give either --model or --tiny"),
        ("train", MODEL, "m: no such folder, and no hub id"),
        ("train", (*DATA, "--tiny", "--tune", "lora"), "no --tune lora"),
        ("train", (*DATA, "--tiny", "--width", "20"), "--width must be a multiple of 16"),
        ("train", (*DATA, "--tiny", "--patch-size", "7"), "--patch-size must divide --size"),
        ("train", (*DATA, "--tiny", "--epochs", "0"), "--epochs must be >= 1, got 0"),
        ("train", (*DATA, "--tiny", "--warmup", "1"), "--warmup must be in [0, 1), got 1"),
        ("train", (*DATA, "--tiny", "--lora-r", "0"), "--lora-r must be >= 1"),
        ("train", (*DATA, "--tiny", "--val-fraction", "0"), "--val-fraction must be in"),
        ("train", (*DATA, "--tiny", "--max-pairs", "1"), "--max-pairs must be >= 2, got 1"),
        ("train", (*DATA, "--tiny", "--precision", "64-true"), "expected one of 32-true, bf16-"),
        ("train", (*DATA, "--tiny", "--test-limit", "1"), "--test-limit must be >= 2, got 1"),
        ("train", (*MODEL, "--four-bit", "--tune", "full"), "no such folder, and no hub id"),
        ("pairs", ("--data", "nowhere"), "nowhere: no such folder"),
        ("pairs", (*DATA, "--out", "p.txt"), "--out must end in .csv, .csv.gz or .parquet"),
        ("pairs", (*DATA, "--writer-fraction", "2"), "--writer-fraction must be in (0, 1]"),
        ("pairs", (*DATA, "--max-per-writer", "0"), "--max-per-writer must be >= 1, got 0"),
        ("pairs", DATA, "no images in it"),
        ("compare", ("a.png", "--model", "m"), "give two images, the known and the questioned"),
        ("compare", ("a.png", "b.png", "--model", "m"), "a.png: no such file; give an image"),
        ("baseline", ("--data", "nowhere"), "nowhere: no such folder"),
        ("baseline", (*DATA, "--kind", "sift"), "expected one of hog, gsc, resnet18"),
        ("baseline", (*DATA, "--epochs", "0"), "--epochs must be >= 1, got 0"),
        ("baseline", (*DATA, "--max-pairs", "1"), "--max-pairs must be >= 2, got 1"),
        ("report", DATA, "give one run or more"),
        ("report", ("no.jsonl", *DATA), "no.jsonl: no such file"),
    ],
)
def test_bad_arguments_are_one_line(call, verb, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert call(verb, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"vlm-hv-{verb}: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["sk-proj-abcdef", "0123456789abcdef0123456789abcdef"])
def test_a_key_given_for_its_name_is_never_shown(call, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("predict", *LOCAL, "--api-key-env", given) == 2
    said = "".join(capsys.readouterr())
    assert "--api-key-env takes the name of an environment variable" in said
    assert given not in said
    assert call("predict", *SERVER, "--base-url", f"https://{given}@host/v1") == 2
    said = "".join(capsys.readouterr())
    assert "must hold no user name, key or query" in said
    assert given not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,label\nx,y,1\n", "expected the columns known,questioned or left,right or sample1"),
        ("left,right,label\n00_0.png,00_1.png,2\n", "row 1: label '2'; expected 0, 1 or nothing"),
        ("left,right,label\n00_0.png,nobody.png,1\n", "row 1: names what is not there"),
        ("left,right,label\n00_0.png,01_1.png,1\n", "row 1: label 1 does not agree with"),
        ("left,right,label\n00_0.png,00_0.png,1\n", "is paired with itself"),
        ("left,right,label\n", "no pairs in it"),
    ],
)
def test_lists_of_pairs_are_checked_before_anything_is_sent(
    ask, server, text, message, tmp_path, capsys
):
    (tmp_path / "p.csv").write_text(text)
    assert ask("--pairs", tmp_path / "p.csv", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not server.requests
    assert not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_read_is_named_before_anything_is_sent(
    call, server, write_words, tmp_path, capsys
):
    root = write_words(tmp_path / "w", writers=range(4), samples=2)
    (root / "w01" / "01_0.png").write_bytes(b"no picture")
    given = ("--data", root, "--model", "m", "--backend", "openai", "--base-url", server.url)
    assert call("predict", *given, "--split", "all", "--out", tmp_path / "out") == 2
    assert "01_0.png" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not server.requests


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, {}, b'{"error": "this model does not support image input"}'), "--layout concat"),
        ((401, {}, b"{}"), "the key was refused"),
        ((404, {}, b"{}"), "no such model or address"),
        ((200, {}, b'{"choices": []}'), "a chat completion without choices"),
        ((200, {}, b"<html>"), "malformed answer"),
    ],
)
def test_what_a_server_refuses_is_explained(ask, server, answer, message, tmp_path, capsys):
    server.script = [answer] * 3
    given = ("--limit", 4, "--retries", 0, "--mode", "direct", "--out", tmp_path / "out")
    assert ask(*given) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_empty_answers_to_all_pairs_are_no_result(ask, server, tmp_path, capsys):
    server.reply = lambda body: ""
    assert ask("--limit", 4, "--mode", "direct", "--out", tmp_path / "out") == 2
    assert "gave an empty answer to all 4 pairs" in capsys.readouterr().err


def test_help_and_errors_need_no_torch():
    code = (
        "import sys\n"
        "from papercommons.cli import build_parser, run_command\n"
        "from vlm_hv import cli\n"
        "for f in (cli.predict, cli.evaluate, cli.train, cli.pairs, cli.compare, cli.baseline,\n"
        "          cli.report):\n"
        "    text = ' '.join(build_parser(f, 'x').format_help().split())\n"
        "    assert '--json' in text\n"
        "given = ['--data', 'nowhere', '--model', 'm']\n"
        "assert run_command(cli.predict, prog='x', argv=given) == 2\n"
        "heavy = {'torch', 'transformers', 'lightning', 'matplotlib', 'numpy', 'PIL'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
