from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest_plugins = ["papercommons.testing.fixtures"]

DATA = Path(__file__).parent / "data"


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("cmdfd")


@pytest.fixture(scope="session")
def parity():
    """Read one file of reference vectors as tensors by name, or as JSON."""

    def read(name):
        if (DATA / f"{name}.json").is_file() and not (DATA / f"{name}.npz").is_file():
            return json.loads((DATA / f"{name}.json").read_text())
        with np.load(DATA / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope="session")
def names():
    """Read the names, shapes and rules of a network's reference weights."""
    return lambda name: json.loads((DATA / f"{name}_state_dict.json").read_text())


@pytest.fixture(scope="session")
def rule_weights():
    """Make the reference weights, which follow from rows of number, name, shape and rule."""

    def make(rows, phase):
        return {name: _by_rule(k, shape, rule, phase) for k, name, shape, rule in rows}

    return make


def _by_rule(number, shape, rule, phase):
    size = int(np.prod(shape))
    s = np.sin(0.7 * (number + 1) + phase + 0.9 * np.arange(size))
    fan = size // shape[0] if shape else 1
    gain = 0.25 + 0.05 * s if size == 1 else 1 + 0.1 * s
    values = {
        "matrix": s * 1.6 / np.sqrt(fan),
        "gain": gain,
        "bias": 0.05 * s,
        "mean": 0.05 * s,
        "var": 1 + 0.3 * np.abs(s),
        "unchanged": None,
    }[rule]
    if values is None:
        return None
    return torch.from_numpy(values.reshape(shape)).float()


TINY = {"dim": 32, "visual_width": 4, "audio_layers": (1, 1, 1, 1), "tcn_layers": 1, "heads": 4}


@pytest.fixture
def tiny():
    """A network of the same classes that takes milliseconds, in evaluation mode."""
    from cmdfd.model import CMDFDNet

    torch.manual_seed(0)
    return CMDFDNet(**TINY).eval()


def _talk(rng, frames, bars, size=32):
    """Return grey noise in which bars, spans of frames, have a bright stripe; and some sound."""
    pictures = rng.integers(60, 120, (frames, size, size)).astype(np.uint8)
    for begin, end in bars:
        pictures[begin:end, size // 2 : size // 2 + 8] += np.uint8(110)
    waveform = 0.1 * rng.standard_normal(640 * frames)
    return pictures, waveform.clip(-1, 0.99).astype(np.float32)


@pytest.fixture(scope="session")
def striped(tmp_path_factory):
    """A folder with 24 clips of 2 s and list.csv; fakes have a stripe, in whole or from 0.4 s on.

    Splits val (people p0 and p1) and test (p2 to p5). Tests leave it as it is.
    """
    pytest.importorskip("av")
    from papercommons.files import write_csv
    from papercommons.video.writing import write_clip

    folder, rng, rows = tmp_path_factory.mktemp("striped"), np.random.default_rng(3), []
    for number in range(24):
        split = "val" if number < 8 else "test"
        method = ("real", "whole", "real", "partial")[number % 4]
        bars = {"real": [], "whole": [(0, 50)], "partial": [(10, 30)]}[method]
        frames, waveform = _talk(rng, 50, bars)
        name = f"{split}_{number:02d}.mp4"
        write_clip(folder / name, frames, waveform=waveform)
        row = {"path": name, "label": int(method != "real"), "split": split, "method": method}
        row |= {"segments": "0.4-1.2" if method == "partial" else ""}
        rows.append(row | {"face": f"p{number // 4}"})
    write_csv(folder / "list.csv", rows)
    return folder


@pytest.fixture(scope="session")
def striped_net(tmp_path_factory):
    """A saved network that knows stripes, for pictures of 32 pixels that are faces already."""
    from cmdfd.features import clip_mfcc
    from cmdfd.model import CMDFDNet
    from cmdfd.prepared import crop_settings
    from cmdfd.saved import save_network

    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    net = CMDFDNet(**TINY, dropout=0.0)
    for part in net.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 0.3  # so that few steps are enough
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    spans = ([], [(0, 25)], [(0, 12)], [(8, 25)], [], [(6, 18)])
    labels = torch.zeros(len(spans), 25, dtype=torch.long)
    for row, bars in zip(labels, spans, strict=True):
        for begin, end in bars:
            row[begin:end] = 1
    for _ in range(25):
        clips = [_talk(rng, 25, bars) for bars in spans]
        frames, waveform = (torch.from_numpy(np.stack(part)) for part in zip(*clips, strict=True))
        logits = net(clip_mfcc(waveform, 25), frames).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    crop = crop_settings("none", 32, swapped=False)
    return save_network(net, tmp_path_factory.mktemp("striped_net") / "net", size=32, crop=crop)


@pytest.fixture(scope="session")
def call():
    """Run a command as the shell would; gives its exit code."""
    from cmdfd import cli
    from papercommons.cli import run_command

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb, *arguments):
        if verb in ("train", "eval", "predict", "teach") and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        return run_command(commands[verb], prog=f"cmdfd-{verb}", argv=list(map(str, arguments)))

    return call


@pytest.fixture(scope="session")
def talking_set(tmp_path_factory):
    """A prepared folder of 32 short clips of 16 pixels; tests leave it as it is.

    Sound and picture have a loud or dark class of 3 in each frame, known of real clips; the
    picture of fakes has another. Splits train (4 people), val and test (2 each).
    """
    from papercommons.files import write_csv, write_json

    folder, rng, rows = tmp_path_factory.mktemp("talking"), np.random.default_rng(5), []
    for number in range(32):
        split = ("train", "train", "val", "test")[number // 8]
        fake, frames, name = number % 2, 12 + number % 3, f"{split}-{number:02d}"
        said = rng.integers(0, 3, frames)
        seen = (said + rng.integers(1, 3, frames)) % 3 if fake else said
        place = folder / "clips" / name
        place.mkdir(parents=True)
        pictures = rng.integers(0, 40, (frames, 16, 16)) + 90 * seen[:, None, None]
        sound = rng.standard_normal(640 * frames) * np.repeat(10.0 ** (said + 1.5), 640)
        np.save(place / "frames.npy", pictures.astype(np.uint8))
        np.save(place / "sound.npy", sound.clip(-32768, 32767).astype(np.int16))
        if not fake:
            np.save(place / "classes.npy", said.astype(np.uint8))
        row = dict.fromkeys(("Audio_Label", "Video_Label", "Identi_Label", "Sync_Label"), "")
        row |= {"ID_Name": name, "ENtire_Label": fake, "FPS": 25.0, "AudioSamRate": 16_000}
        row |= {"Frame_Len": float(frames), "Audio_Len": 640 * frames, "Split": split}
        row |= {"Audio_Path": f"clips/{name}/sound.npy", "Method": "swap" if fake else "real"}
        row |= {"Video_Path": f"clips/{name}/frames.npy", "Face": f"{split}{number // 4}"}
        rows.append(row)
    write_csv(folder / "list.csv", rows)
    write_csv(folder / "originals.csv", [row | {"Prepared": row["Video_Path"]} for row in rows])
    write_json(folder / "facts.json", {"crop": _crop(16)})
    return folder


def _crop(size):
    from cmdfd.prepared import crop_settings

    return crop_settings("none", size, swapped=False)


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out what takes most of the time of a short run."""
    for module in ("papercommons.report", "cmdfd.pictures"):
        monkeypatch.setattr(f"{module}.figure_png", lambda draw, **options: b"png")


@pytest.fixture(scope="session")
def run_verb():
    """Run a command as the shell would; gives its exit code."""
    from cmdfd import cli
    from papercommons.cli import run_command

    def run(verb, *arguments):
        if verb in ("train", "teach") and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        return run_command(getattr(cli, verb), prog=f"cmdfd-{verb}", argv=list(map(str, arguments)))

    return run


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory):
    """A folder with a tiny CTC recogniser of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 6, "intermediate_size": 16, "conv_dim": (8,) * 7}
    sizes |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    out = tmp_path_factory.mktemp("recogniser")
    transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**sizes)).save_pretrained(out)
    return out
