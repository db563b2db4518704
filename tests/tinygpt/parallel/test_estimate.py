"""The estimates that train.py prints before step 0, against what then happens."""

import re

import pytest

from tests.support.commands import train
from tests.support.runs import SMOKE
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.model import GPT
from tinygpt.parallel import estimate


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameter_count_without_building_the_model(architecture):
    config = GPTConfig(77, block_size=12, n_layer=3, n_head=2, n_embd=10, **ARCHITECTURES[architecture])
    assert config.num_parameters() == GPT(config).num_parameters()


SHAPES = {
    "small": {},
    "deep": dict(n_layer=8, n_embd=128, n_head=4, block_size=128, batch_size=16),
    "dropout": dict(n_layer=3, n_embd=192, n_head=6, block_size=256, dropout=0.2),
    "gpt2": dict(architecture="gpt2", n_layer=4, n_embd=192, n_head=6, block_size=256),
    "checkpointing": dict(
        activation_checkpointing=True, n_layer=8, n_embd=128, block_size=256, micro_batch=4
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_memory_is_right_within_a_fifth(name, text_file, tmp_path):
    short = SMOKE | dict(max_steps=3, eval_iters=1, sample_tokens=5, threads=2)
    result = train(**short | SHAPES[name], data=text_file, out=tmp_path / "run")
    assert result.returncode == 0, result.stderr
    said, was = (
        float(re.search(rf"{what} ([\d,]+) MB", result.stdout)[1].replace(",", ""))
        for what in ("memory: about", "peak memory")
    )
    assert said == pytest.approx(was, rel=0.2)


def test_advice_when_memory_will_not_do(monkeypatch):
    model = GPTConfig(50_257, 1024, 12, 12, 768, **ARCHITECTURES["gpt2"])
    assert 3e9 < estimate.training_memory(model, 1, 1, False) < 6e9
    assert estimate.advice(model, 20e9) == "try --micro-batch 1 --threads 2"
    assert "--activation-checkpointing" in estimate.advice(
        model, 1.1 * estimate.training_memory(model, 1, 1, True) + 3e8
    )
    assert estimate.advice(model, 1e8) == "try a smaller model"


def test_durations():
    assert [estimate.duration(s) for s in (5, 200, 8000)] == ["5 s", "3 min", "2.2 h"]
