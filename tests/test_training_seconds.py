"""What counts as training, where the host runs ahead of a GPU: steps, also those that are waited for late."""

from types import SimpleNamespace

import numpy as np
import pytest

import train
from autograd.backend import wait_for
from tests.stand_ins import strict_cupy
from tests.support.runs import TINY, metrics, train_here
from tinygpt.parallel import estimate
from tinygpt.run import checkpoint, job, progress
from tinygpt.run.folder import Run


class SlowGpu:
    """A clock, and a GPU that needs a second for a step. The host queues it in no time."""

    now = queued = 0

    def wait(self, array=None):
        self.now, self.queued = self.now + self.queued, 0


@pytest.fixture
def gpu(monkeypatch):
    """Where training and its clock believe to be. An evaluation takes 100 seconds, and saving 10."""
    gpu = SlowGpu()
    step, evaluate, save = train.train_step, train.evaluate, train.save

    def queued_step(job, step_number):
        gpu.queued += 1
        return step(job, step_number)

    def slow_evaluation(job, *arguments):
        assert not gpu.queued, "an evaluation begins while steps are queued"
        gpu.now += 100
        return evaluate(job, *arguments)

    def slow_saving(*arguments):
        gpu.wait()
        gpu.now += 10
        return save(*arguments)

    for name, function in (("train_step", queued_step), ("evaluate", slow_evaluation), ("save", slow_saving)):
        monkeypatch.setattr(train, name, function)
    clock = SimpleNamespace(perf_counter=lambda: gpu.now)
    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "wait_for", gpu.wait)
    return gpu


def test_steps_that_are_queued_before_an_evaluation_are_training(gpu, text_file, tmp_path):
    train_here(**TINY | dict(eval_interval=7), data=text_file, out=tmp_path / "run")
    found = {line["step"]: line["training_seconds"] for line in metrics(tmp_path / "run", "evaluation")}
    assert found == {0: 0, 7: 7, 14: 14, 20: 20}


def test_steps_that_are_queued_before_the_end_are_training(gpu, text_file, tmp_path):
    """Where patience or a signal ends a run there is no evaluation to wait before."""
    options = TINY | dict(eval_interval=5, data=text_file, out=tmp_path / "run")

    class Stopping(train.Interrupt):
        asked = 0

        def on_any_rank(self):
            self.asked += 1
            return self.asked > 12

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(train, "Interrupt", Stopping)
        train_here(**options)
    state = checkpoint.load(tmp_path / "run").state
    assert 0 < state["training_seconds"] == state["step"] and state["step"] % 5


def test_the_speed_that_is_printed(gpu, text_file, tmp_path, monkeypatch):
    """4 sequences of 8 tokens in a second. Without a bar, every step speaks here."""
    monkeypatch.setattr(progress, "SILENCE", 0)
    printed = train_here(**TINY, data=text_file, out=tmp_path / "run")
    lines = [line for line in printed.splitlines() if "tokens per second" in line]
    assert len(lines) == 21 and all(" 32 tokens per second" in line for line in lines), printed
    # Four evaluations are to come after step 1, each two thirds of a step; that they take 100 s here, and the
    # first one did, does not make the steps slower.
    left = [line.rpartition(", ")[2] for line in lines[:20]]
    assert (left[0], left[3], left[4], left[-1]) == ("22 s left", "19 s left", "18 s left", "1 s left")
    printed = train_here(resume=tmp_path / "run", max_steps=22, eval_iters=30)
    assert "tokens per second, 21 s left" in printed  # a step, and an evaluation of 60 batches


@pytest.mark.parametrize(("interval", "last"), [(5, 20), (5, 22), (50, 20), (1, 3)])
def test_the_evaluations_to_come(interval, last):
    """As the training loop goes through them, from any step, whether its evaluation was done or not."""
    run = Run.__new__(Run)
    run.evaluations = []
    config = SimpleNamespace(eval_interval=interval, eval_iters=30)
    here = SimpleNamespace(config=config, last_step=last, run=run)
    due = [step for step in range(last + 1) if job.Job.evaluates_at(here, step)]
    assert due == sorted({*range(0, last + 1, interval), last})
    for step in range(last + 1):
        to_come = sum(each >= step for each in due)
        assert job.Job.evaluation_steps(here, step) == 20 * to_come
        if step in due:
            run.evaluations.append(dict(step=step))
            assert job.Job.evaluation_steps(here, step) == 20 * (to_come - 1)


def test_the_time_that_is_said_at_the_start(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "seconds_per_step", lambda *arguments: 30.0)
    printed = train_here(**TINY | dict(eval_iters=30), data=text_file, out=tmp_path / "run")
    assert "\ntime: about 10 min of training, and 50 min of evaluations\n" in printed


def test_waiting_for_a_device():
    strict_cupy.waits.clear()
    wait_for(np.zeros(3))
    with strict_cupy.installed() as cupy:
        wait_for(cupy.asarray(np.zeros(3)))
    assert strict_cupy.waits == ["synchronize"]
