"""A loss that becomes NaN stops the run, and the step, module and operation that began it are named."""

import os
import signal

import numpy as np
import pytest

import autograd as ag
from autograd import AnomalyError, Tensor, detect_anomaly
from autograd.operation import op
from tests.support.commands import refused, train
from tests.support.runs import TINY, train_here
from tinygpt.config import UserError
from tinygpt.model import Block
from tinygpt.run import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the command line does the same


@op
def bad_forward(x):
    return x * np.float32(np.nan), lambda g: g


@op
def bad_backward(x):
    return x * 1.0, lambda g: g * np.float32(np.inf)


@pytest.fixture
def plant(monkeypatch):
    """Puts an operation behind the second block, for one training step only."""

    def plant(operation, step):
        right = Block.__call__

        def wrong(self, x, stream, cache=None):
            y = right(self, x, stream, cache)
            here = stream and stream.step == step and self.attn.site == 1 + Block.SITES
            return operation(y) if here else y

        monkeypatch.setattr(Block, "__call__", wrong)

    return plant


@pytest.mark.parametrize("variant", [{}, dict(threads=2, micro_batch=1), dict(activation_checkpointing=True)])
@pytest.mark.parametrize(
    ("operation", "cause"),
    [
        (bad_forward, "first in step 7, transformer.h.1: the result of bad_forward holds NaN"),
        (
            bad_backward,
            "first in step 7, transformer.h.1: the gradient of input 0 of bad_backward holds infinity",
        ),
    ],
)
def test_the_cause_is_named(operation, cause, variant, plant, text_file, tmp_path):
    options = TINY | dict(n_layer=2, data=text_file) | variant
    plant(operation, step=7)
    with pytest.raises(UserError, match="the loss became nan by step 10") as error:
        train_here(**options, out=tmp_path / "run")
    assert cause in str(error.value)
    assert f"{tmp_path / 'run' / 'ckpt' / 'step_000005'} is kept" in str(error.value)
    assert checkpoint.load(tmp_path / "run").state["step"] == 5


def test_a_run_goes_on_from_the_last_good_checkpoint(plant, text_file, tmp_path, monkeypatch):
    options = TINY | dict(n_layer=2, data=text_file, detect_anomaly=True)
    train_here(**options, out=tmp_path / "whole")
    plant(bad_backward, step=7)
    with pytest.raises(UserError):
        train_here(**options, out=tmp_path / "run")
    monkeypatch.undo()
    train_here(resume=tmp_path / "run")
    for name in ("model", "optim"):
        files = [tmp_path / run / "ckpt" / "step_000020" / f"{name}.safetensors" for run in ("run", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_that_are_no_numbers_are_not_saved(plant, text_file, tmp_path):
    """The last loss is looked at before the update, so only a look at the weights tells."""

    signals = [signal.SIGTERM]

    def interrupted(x):
        if signals:  # not again in the replay
            os.kill(os.getpid(), signals.pop())
        return bad_backward(x)

    plant(interrupted, step=6)
    with pytest.raises(UserError, match="the loss became nan by step 7, first in step 6, "):
        train_here(**TINY | dict(n_layer=2, data=text_file), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("ckpt/step_*")] == ["step_000005"]


def test_through_the_command_line(text_file, tmp_path):
    run = tmp_path / "run"
    options = TINY | dict(data=text_file, learning_rate=1e30)
    refused(train(**options, out=run), "first in step 1, transformer.h.0")
    unexplained = train(**options, no_detect_anomaly=True, out=tmp_path / "2")
    refused(unexplained, "--detect-anomaly says why")
    refused(train(resume=run, force=True, learning_rate=1e39), "its update is not finite")
    assert checkpoint.load(run).state["step"] == 0
    train_here(resume=run, force=True, learning_rate=1e-3)
    assert checkpoint.load(run).state["step"] == 20


def test_detect_anomaly_by_itself():
    x = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    with np.errstate(all="ignore"):
        with pytest.raises(AnomalyError, match="^the result of log holds infinity$"), detect_anomaly():
            ag.log(x)
        named = pytest.raises(
            AnomalyError, match="^the head: the gradient of input 0 of sqrt holds infinity$"
        )
        with named, detect_anomaly(where=lambda: "the head: "):
            ag.sqrt(x).sum().backward()
        ag.sqrt(x).sum().backward()
    assert x.grad[0] == np.inf
