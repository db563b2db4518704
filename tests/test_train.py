"""train.py as a user runs it: in a process of its own, where that matters."""

import dataclasses
import importlib.util
import json
import tomllib

import pytest

from autograd import Stream, no_grad
from tests.support.commands import flags, refused, sample, train
from tests.support.here import train_program_here
from tests.support.runs import SMOKE, metrics, train_here
from tests.support.texts import CHINESE, english
from tinygpt.config import EVALUATION_SITE, TrainConfig
from tinygpt.run import checkpoint
from tinygpt.text import data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished run on our own text, and what it printed."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "words.txt").write_text(english(), encoding="utf-8")
    longer = SMOKE | dict(max_steps=150, eval_interval=50)
    result = train(**longer, data=folder / "words.txt", out=folder / "run")
    assert result.returncode == 0, result.stderr
    return folder / "run", result.stdout


def test_it_learns(run):
    folder, printed = run
    evaluations = metrics(folder, "evaluation")
    assert [line["step"] for line in evaluations] == [0, 50, 100, 150]
    assert evaluations[0]["val_loss"] == pytest.approx(3.58, abs=0.1)  # ln 36 characters
    assert evaluations[-1]["val_loss"] < 2.5
    for line in evaluations:
        losses = f"train loss {line['train_loss']:.4f}, val loss {line['val_loss']:.4f}, "
        assert f"step {line['step']}: {losses}" in printed
        assert f", {line['val_bits_per_byte']:.4f} bits per byte\n" in printed


def test_what_it_leaves_behind(run):
    folder, printed = run
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (folder / "samples").iterdir()) == [
        f"step_{n:06d}.txt" for n in (0, 50, 100, 150)
    ]
    assert len((folder / "samples" / "step_000150.txt").read_text()) == 20
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["max_steps"] == 150 and config["learning_rate"] == 3e-3 and config["preset"] == "smoke"
    files = {p.name for p in (folder / "ckpt" / "step_000150").iterdir()}
    assert files == {"model.safetensors", "optim.safetensors", "config.json", "tokenizer.json", "state.json"}
    vocabulary = len(
        json.loads((folder / "ckpt" / "step_000150" / "tokenizer.json").read_text())["model"]["vocab"]
    )
    # head and embeddings, blocks, norm
    count = vocabulary * (32 + 32 + 1) + 32 * 32 + 2 * (12 * 32 * 32 + 10 * 32) + 2 * 32
    assert "max_steps = 150" in printed and f"model: {count:,} parameters" in printed


def test_the_saved_model_is_the_trained_one(run, text_file):
    """The checkpoint's loss on the validation batches is the loss that was printed last."""
    folder, _ = run
    model, tokenizer, state = checkpoint.load_for_sampling(folder)
    dataset = data.Dataset(text_file.read_text(encoding="utf-8"), tokenizer, model.config.block_size)
    with no_grad():
        losses = [
            float(model.loss(*dataset.batch("val", 8, Stream(1337, step=i, site=EVALUATION_SITE))))
            for i in range(2)
        ]
    assert sum(losses) / 2 == pytest.approx(metrics(folder, "evaluation")[-1]["val_loss"], abs=1e-5)
    assert state["step"] == 150 and state["data_sha256"] == dataset.sha256


def test_the_same_seed_gives_the_same_run(text_file, tmp_path):
    options = SMOKE | dict(data=text_file, dropout=0.2, threads=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(**options, out=tmp_path / name, seed=seed).returncode == 0
    weights = [
        (tmp_path / name / "ckpt" / "step_000020" / "model.safetensors").read_bytes() for name in "abc"
    ]
    assert weights[0] == weights[1] != weights[2]
    first, second = ([line["loss"] for line in metrics(tmp_path / name, "step")] for name in "ab")
    assert first == second


def test_stop_after_keeps_the_schedule(text_file, tmp_path):
    options = SMOKE | dict(data=text_file, warmup_steps=5, min_lr=0.0001)
    train_here(**options, out=tmp_path / "whole")
    train_here(**options, out=tmp_path / "part", stop_after=15)
    assert (tmp_path / "part" / "ckpt" / "step_000015").is_dir()
    whole, part = (metrics(tmp_path / name, "step") for name in ("whole", "part"))
    curve = {e["step"]: (e["learning_rate"], e["loss"]) for e in whole}
    assert [(e["learning_rate"], e["loss"]) for e in part if e["step"] != 14] == [curve[0], curve[10]]


def test_toml_lies_between_preset_and_flags(text_file, tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "smoke"\nmax_steps = 7\nn_embd = 16\nlearning_rate = 1\n')
    settings = dict(config=tmp_path / "mine.toml", max_steps=3, data=text_file)
    train_here(**settings, out=tmp_path / "run")
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["max_steps"], config["n_embd"], config["n_layer"]) == (3, 16, 2)


def test_gpt2_architecture_and_chinese_text(tmp_path):
    (tmp_path / "hill.txt").write_text(CHINESE * 20, encoding="utf-8")
    result = train(**SMOKE, architecture="gpt2", data=tmp_path / "hill.txt", out=tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert sample(tmp_path / "run", "--prompt", "老人", "--tokens", 8).startswith("老人")


def test_a_run_is_not_overwritten_by_accident(run, text_file):
    folder, _ = run
    line = refused(train_program_here(**SMOKE, data=text_file, out=folder), "exists")
    assert "--overwrite" in line
    assert (folder / "ckpt" / "step_000150").is_dir()


def test_overwrite_only_replaces_runs(text_file, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    options = SMOKE | dict(data=text_file, overwrite=True)
    refused(train_program_here(**options, out=tmp_path / "letters"), "not the folder of a run")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
    for _ in range(2):
        train_here(**options, out=tmp_path / "run")


def test_a_free_folder_is_found_when_none_is_named(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train_here(**SMOKE, data=text_file)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["smoke-words", "smoke-words-2"]


FAULTS = {  # name -> (settings beside SMOKE and a good text, what the error must say)
    "missing data": (dict(data="nothing.txt"), "cannot read nothing.txt"),
    "head count": (dict(n_embd=30, n_head=4), "n_embd 30 is not divisible by n_head 4"),
    "dropout": (dict(dropout=1), "dropout is 1.0; it must be at least 0 and below 1"),
    "learning rate": (dict(learning_rate=0), "learning_rate is 0.0; it must be more than 0"),
    "batch": (dict(batch_size=-3), "batch_size is -3; it must be more than 0"),
    "steps": (dict(max_steps=0), "max_steps is 0"),
    "unknown flag": (dict(n_layers=3), "unknown flag --n-layers; did you mean '--n-layer'?"),
    "wrong type": (dict(n_layer="three"), "--n-layer: invalid int value: 'three'"),
    "unknown preset": (dict(preset="labtop"), "preset 'labtop' is unknown; did you mean 'laptop'?"),
    "unknown device": (dict(device="tpu"), "unknown device 'tpu'"),
    "context too long": (dict(block_size=100_000), "too short for a context of 100000; the longest"),
    "loss explodes": (dict(learning_rate=1e30), "the loss became"),
    "missing toml": (dict(config="none.toml"), "cannot read none.toml"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_line_and_exit_code_2(name, text_file, tmp_path, monkeypatch):
    settings, message = FAULTS[name]
    monkeypatch.chdir(tmp_path)
    refused(train_program_here(**SMOKE | dict(data=text_file) | settings), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n_layers = 3", "unknown key 'n_layers'; did you mean 'n_layer'?"),
        ('n_layer = "3"', "n_layer must be int, not '3'"),
        ("n_layer = true", "n_layer must be int, not True"),
        ("n_layer = ", "is not a TOML file"),
    ],
)
def test_faults_in_the_toml_file(content, message, tmp_path, monkeypatch):
    (tmp_path / "bad.toml").write_text(content)
    monkeypatch.chdir(tmp_path)
    refused(train_program_here(config="bad.toml"), message)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_cuda_without_cupy_says_what_to_install(text_file, tmp_path):
    refused(train(cwd=tmp_path, data=text_file, device="cuda"), "pip install -e '.[cuda12]'")


def test_help_names_every_setting():
    text = train(help=True).stdout
    for field in dataclasses.fields(TrainConfig):
        assert flags(**{field.name: True})[0] in text
    assert "peak learning rate [" in text
