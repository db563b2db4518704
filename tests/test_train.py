"""train.py and `python -m tinygpt` as a user runs them: in a process of their own."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMOKE = [
    "--preset",
    "smoke",
    "--max-steps",
    "20",
    "--eval-interval",
    "10",
    "--eval-iters",
    "2",
    "--sample-tokens",
    "20",
]


def call(*arguments, cwd=ROOT):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def train(*arguments, **options):
    return call(ROOT / "train.py", *arguments, **options)


def events(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished run on our own text, and what it printed."""
    from tests.support.texts import english

    folder = tmp_path_factory.mktemp("work")
    (folder / "words.txt").write_text(english(), encoding="utf-8")
    result = train(
        *SMOKE,
        "--max-steps",
        "150",
        "--eval-interval",
        "50",
        "--data",
        folder / "words.txt",
        "--out",
        folder / "run",
    )
    assert result.returncode == 0, result.stderr
    return folder / "run", result.stdout


def test_it_learns(run):
    folder, printed = run
    evaluations = events(folder, "evaluation")
    assert [line["step"] for line in evaluations] == [0, 50, 100, 150]
    assert evaluations[0]["val_loss"] == pytest.approx(3.58, abs=0.1)  # ln 36 characters
    assert evaluations[-1]["val_loss"] < 2.5
    for line in evaluations:
        assert (
            f"step {line['step']}: train loss {line['train_loss']:.4f}, val loss {line['val_loss']:.4f}, "
            in printed
        )
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
    from autograd import Stream, no_grad
    from tinygpt.config import EVALUATION_SITE
    from tinygpt.run import checkpoint
    from tinygpt.text import data

    folder, _ = run
    model, tokenizer, state = checkpoint.load_for_sampling(folder)
    dataset = data.Dataset(text_file.read_text(encoding="utf-8"), tokenizer, model.config.block_size)
    with no_grad():
        losses = [
            float(model.loss(*dataset.batch("val", 8, Stream(1337, step=i, site=EVALUATION_SITE))))
            for i in range(2)
        ]
    assert sum(losses) / 2 == pytest.approx(events(folder, "evaluation")[-1]["val_loss"], abs=1e-5)
    assert state["step"] == 150 and state["data_sha256"] == dataset.sha256


def test_the_same_seed_gives_the_same_run(text_file, tmp_path):
    options = [*SMOKE, "--data", text_file, "--dropout", "0.2", "--threads", "2"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(*options, "--out", tmp_path / name, "--seed", seed).returncode == 0
    weights = [
        (tmp_path / name / "ckpt" / "step_000020" / "model.safetensors").read_bytes() for name in "abc"
    ]
    assert weights[0] == weights[1] != weights[2]
    assert [line["loss"] for line in events(tmp_path / "a", "step")] == [
        line["loss"] for line in events(tmp_path / "b", "step")
    ]


def test_stop_after_keeps_the_schedule(text_file, tmp_path):
    schedule = ["--warmup-steps", "5", "--min-lr", "0.0001", "--data", text_file]
    assert train(*SMOKE, *schedule, "--out", tmp_path / "whole").returncode == 0
    stopped = train(*SMOKE, *schedule, "--stop-after", "15", "--out", tmp_path / "part")
    assert stopped.returncode == 0 and (tmp_path / "part" / "ckpt" / "step_000015").is_dir()
    whole, part = (events(tmp_path / name, "step") for name in ("whole", "part"))
    curve = {e["step"]: (e["learning_rate"], e["loss"]) for e in whole}
    assert [(e["learning_rate"], e["loss"]) for e in part if e["step"] != 14] == [curve[0], curve[10]]


def test_toml_lies_between_preset_and_flags(text_file, tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "smoke"\nmax_steps = 7\nn_embd = 16\nlearning_rate = 1\n')
    options = [
        "--config",
        tmp_path / "mine.toml",
        "--max-steps",
        "3",
        "--data",
        text_file,
        "--out",
        tmp_path / "run",
    ]
    assert train(*options).returncode == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["max_steps"], config["n_embd"], config["n_layer"]) == (3, 16, 2)


def test_gpt2_architecture_and_chinese_text(tmp_path):
    from tests.support.texts import CHINESE

    (tmp_path / "hill.txt").write_text(CHINESE * 20, encoding="utf-8")
    result = train(
        *SMOKE, "--architecture", "gpt2", "--data", tmp_path / "hill.txt", "--out", tmp_path / "run"
    )
    assert result.returncode == 0, result.stderr
    assert call(
        "-m", "tinygpt", "sample", tmp_path / "run", "--prompt", "老人", "--tokens", "8"
    ).stdout.startswith("老人")


def test_a_run_is_not_overwritten_by_accident(run, text_file):
    folder, _ = run
    again = train(*SMOKE, "--data", text_file, "--out", folder)
    assert again.returncode == 2 and "exists" in again.stderr and "--overwrite" in again.stderr
    assert (folder / "ckpt" / "step_000150").is_dir()


def test_overwrite_only_replaces_runs(text_file, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    refused = train(*SMOKE, "--data", text_file, "--out", tmp_path / "letters", "--overwrite")
    assert refused.returncode == 2 and "not the folder of a run" in refused.stderr
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
    for _ in range(2):
        assert train(*SMOKE, "--data", text_file, "--out", tmp_path / "run", "--overwrite").returncode == 0


def test_a_free_folder_is_found_when_none_is_named(text_file, tmp_path):
    for _ in range(2):
        assert train(*SMOKE, "--data", text_file, cwd=tmp_path).returncode == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["smoke-words", "smoke-words-2"]


TEXT = object()  # stands for the path of a good text
FAULTS = {
    "missing data": (["--data", "nothing.txt"], "cannot read nothing.txt"),
    "head count": (
        ["--data", TEXT, "--n-embd", "30", "--n-head", "4"],
        "n_embd 30 is not divisible by n_head 4",
    ),
    "dropout": (["--data", TEXT, "--dropout", "1"], "dropout is 1.0; it must be at least 0 and below 1"),
    "learning rate": (
        ["--data", TEXT, "--learning-rate", "0"],
        "learning_rate is 0.0; it must be more than 0",
    ),
    "batch": (["--data", TEXT, "--batch-size", "-3"], "batch_size is -3; it must be more than 0"),
    "steps": (["--data", TEXT, "--max-steps", "0"], "max_steps is 0"),
    "unknown flag": (["--n-layers", "3"], "unknown flag --n-layers; did you mean '--n-layer'?"),
    "wrong type": (["--n-layer", "three"], "--n-layer: invalid int value: 'three'"),
    "unknown preset": (["--preset", "labtop"], "preset 'labtop' is unknown; did you mean 'laptop'?"),
    "unknown device": (["--device", "tpu"], "unknown device 'tpu'"),
    "context too long": (
        ["--data", TEXT, "--block-size", "100000"],
        "too short for a context of 100000; the longest",
    ),
    "loss explodes": (["--data", TEXT, "--learning-rate", "1e30"], "the loss became"),
    "missing toml": (["--config", "none.toml"], "cannot read none.toml"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_line_and_exit_code_2(name, text_file, tmp_path):
    arguments, message = FAULTS[name]
    result = train(*SMOKE, *[text_file if a is TEXT else a for a in arguments], cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n_layers = 3", "unknown key 'n_layers'; did you mean 'n_layer'?"),
        ('n_layer = "3"', "n_layer must be int, not '3'"),
        ("n_layer = true", "n_layer must be int, not True"),
        ("n_layer = ", "is not a TOML file"),
    ],
)
def test_faults_in_the_toml_file(content, message, tmp_path):
    (tmp_path / "bad.toml").write_text(content)
    result = train("--config", tmp_path / "bad.toml", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.skipif("cupy" in sys.modules, reason="CuPy is installed")
def test_cuda_without_cupy_says_what_to_install(text_file, tmp_path):
    try:
        import cupy  # noqa: F401

        pytest.skip("CuPy is installed")
    except ImportError:
        pass
    result = train("--data", text_file, "--device", "cuda", cwd=tmp_path)
    assert result.returncode == 2 and "pip install -e '.[cuda12]'" in result.stderr


def test_help_names_every_setting():
    text = train("--help").stdout
    for flag in (
        "preset",
        "data",
        "out",
        "device",
        "seed",
        "max-steps",
        "stop-after",
        "eval-interval",
        "block-size",
        "n-layer",
    ):
        assert f"--{flag} " in text
    assert "(default: 0.0003)" in text
