"""The report on a GPU, without one: whatever fails, the rest is measured and written down."""

import json
import sys
import time
from types import SimpleNamespace

import pytest

from autograd.cuda import launch as launching
from autograd.cuda import optim
from benchmarks import gpu, on_gpu, processor
from benchmarks.step import GPU_CONFIGURATIONS
from tests.support.here import program
from tinygpt.config import UserError


class SlowGpu:
    """A clock and a GPU: 16 ms for a step of 400 launches, of which it takes 1,000. The host takes 5 ms."""

    def __init__(self):
        self.now = self.done_at = 0.0
        self.queued = []  # when each step ends

    def step(self, number):
        self.now += 0.005
        while len(self.queued) > 1:  # no room for a third step
            self.now = max(self.now, self.queued.pop(0))
        self.done_at = max(self.now, self.done_at) + 0.016
        self.queued.append(self.done_at)

    def synchronize(self):
        self.now, self.queued = max(self.now, self.done_at), []


def test_the_hosts_time_is_not_that_of_a_full_queue(monkeypatch):
    slow = SlowGpu()
    monkeypatch.setattr(on_gpu, "time", SimpleNamespace(perf_counter=lambda: slow.now))
    found = on_gpu.timed(slow.step, slow.synchronize, steps=100)
    assert found["host_ms"] == pytest.approx(5)
    assert found["ms"] == pytest.approx(16, rel=0.01)


def test_each_profiled_step_begins_after_a_wait(monkeypatch):
    """And the GPU is held until the host is ahead, so that no kernel waits for its launch."""
    seen = []

    class Event:
        def record(self):
            seen.append("event")

    stream = SimpleNamespace(synchronize=lambda: seen.append("wait"))
    cuda = SimpleNamespace(
        get_current_stream=lambda: stream, Event=Event, get_elapsed_time=lambda start, stop: 2.0
    )
    held = SimpleNamespace(cuda=cuda, RawKernel=lambda source, name: lambda *arguments: seen.append("hold"))
    monkeypatch.setitem(sys.modules, "cupy", held)

    def launch(xp, kernel, blocks, threads, **arguments):
        seen.append(kernel)

    for module in (launching, optim):
        monkeypatch.setattr(module, "launch", launch)
    step = lambda number=0: optim.launch(held, "sum_all", 1, 1024)
    monkeypatch.setattr(on_gpu, "training_step", lambda *names: step)
    rows = on_gpu.profile("reference run", steps=2)
    assert seen == ["sum_all", *["wait", "hold", "event", "sum_all", "event"] * 2, "wait"]
    assert rows == {"sum_all": dict(launches=1, ms=2.0, gb_per_s=0.0)}


def test_a_command_that_takes_too_long_ends_with_all_it_started():
    began = time.monotonic()
    with pytest.raises(gpu.Failed, match="took more than 0.2 s"):
        gpu.run_within(0.2, ["sh", "-c", "sleep 60 & sleep 60"], stdout=-1)  # both hold the pipe
    assert time.monotonic() - began < 10


def test_what_a_process_of_its_own_returns():
    assert gpu.measured(processor) == processor()
    with pytest.raises(gpu.Failed, match="^TypeError: .*unexpected keyword argument 'more'"):
        gpu.measured(processor, more=1)


@pytest.fixture
def calls(monkeypatch):
    """A GPU that is only pretended: what was asked of it, in order, and what fails there."""
    log = SimpleNamespace(asked=[], failing={}, written={})

    def measured(function, *args, limit=0):
        name = " ".join([function.__name__, *args])
        log.asked.append(name)
        for part, error in log.failing.items():
            if part in name:
                raise error
        ms = 10.0 if log.asked.count(name) == 1 else 9.0
        return {
            "measure_card": dict(name="NVIDIA H100 80GB HBM3"),
            "profile": {"adamw": dict(launches=2, ms=1.0, gb_per_s=9.0)},
            "estimate_for": dict(ms=1.0, rows={"adamw": dict(ms=0.9)}),
        }.get(function.__name__, dict(ms=ms, host_ms=1.0, mb=1.0))

    def record(run, folder, card):
        log.asked.append(f"record {run} {folder.name} {card}")
        return {}

    def run_within(seconds, command, **options):
        words = [str(word).rpartition("/")[2] for word in command]
        name = next(each for each in ("pytest", "train.py", "sample") if each in words)
        log.asked.append(name)
        if name in log.failing:
            raise log.failing[name]
        return SimpleNamespace(returncode=0, stdout="99 passed in 9 s\n")

    point = dict(step=0, train_loss=4.0, val_loss=4.0, training_seconds=1.0)
    monkeypatch.setattr(gpu, "measured", measured)
    monkeypatch.setattr(gpu, "run_within", run_within)
    monkeypatch.setattr(gpu, "evaluations", lambda folder: [point, point | dict(step=9, val_loss=1.5)])
    monkeypatch.setattr(gpu, "record", record)
    monkeypatch.setattr(gpu, "choose_device", lambda wanted: (wanted, "pretended"))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: True)
    two = {name: on_gpu.COMPETITORS[name] for name in ("SDPA, TF32", "SDPA, TF32, compiled")}
    monkeypatch.setattr(on_gpu, "COMPETITORS", two)
    monkeypatch.setattr(gpu.files, "write", log.written.__setitem__)
    return log


def report(calls, folder, *flags):
    """(exit code, what was printed, gpu.json) of the command."""
    result = program(gpu.main, "--out", folder, *flags)
    return result.returncode, result.stdout.decode(), json.loads(calls.written[folder / "gpu.json"])


def test_each_part_is_written_at_once(tmp_path):
    kept = gpu.Report(tmp_path)
    for number in range(2):
        kept.keep("card", dict(name=number))
        assert json.loads((tmp_path / "gpu.json").read_text()) == {"card": {"name": number}}


def test_the_whole_report(calls, text_file, tmp_path):
    code, printed, parts = report(calls, tmp_path / "new", "--full", "--data", text_file)
    assert code == 0, printed
    assert (tmp_path / "new/gpu.png").is_file()
    forms = [f"ours, {each}" for each in gpu.PRECISIONS] + list(on_gpu.COMPETITORS)
    for configuration in GPU_CONFIGURATIONS:
        turns = [each for each in calls.asked if each.startswith("measure") and configuration in each]
        assert len(turns) == 2 * len(forms) and turns[: len(forms)] == turns[len(forms) :]  # A B C, A B C
        rows = parts[f"step of {configuration}"]
        assert {name: row["ms"] for name, row in rows.items()} == dict.fromkeys(forms, 9.0)
    assert parts["kernels of reference run"]["estimate"]["rows"]["adamw"] == {"ms": 0.9}
    assert "1.000    0.900" in printed and parts["reference run"]["best_val_loss"] == 1.5
    assert "estimate_for reference run H100" in calls.asked
    recorded = "record runs/gpu-reference reference NVIDIA H100 80GB HBM3"
    assert calls.asked.index("train.py") < calls.asked.index(recorded)


FAULTS = {  # what fails -> where the report says so
    "measure_card": "card",
    "pytest": "parity",
    "profile": "kernels of reference run",
    "estimate_for": "kernels of reference run, estimate",
    "train.py": "reference run",
    "sample": "reference run, sample",
    "measure_ours reference run tf32": "step of reference run, ours, tf32",
    "measure_torch": "step of reference run, SDPA, TF32, compiled",
}


RECORD = "record of the reference run"
EVERYTHING = {"card", "parity", "reference run", RECORD, "picture"}
EVERYTHING |= {f"kernels of {name}" for name in gpu.PROFILED} | {
    f"step of {name}" for name in GPU_CONFIGURATIONS
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_fails(fault, calls, text_file, tmp_path, monkeypatch):
    calls.failing[fault] = gpu.Failed("took more than 5 ms")
    monkeypatch.setattr(gpu, "plot", lambda report: {})
    code, printed, parts = report(calls, tmp_path, "--full", "--data", text_file)
    said = printed.partition("not everything could be measured:\n")[2].splitlines()
    assert code == 1 and f"{FAULTS[fault]}: took more than 5 ms" in said
    failed = {name for name, found in parts.items() if "failed" in found}
    missing = {RECORD} if fault == "train.py" else set()
    assert parts.keys() == EVERYTHING - missing and len(failed) <= (2 if fault == "profile" else 1)


@pytest.mark.parametrize("part", ["parity", "plot", "kernels"])
def test_an_error_that_nobody_thought_of(part, calls, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(gpu, "plot", lambda report: {})
    monkeypatch.setattr(gpu, part, broken)
    code, printed, parts = report(calls, tmp_path)
    assert code == 1 and ": ZeroDivisionError: oh" in printed
    assert parts.keys() == EVERYTHING - {"reference run", RECORD}


def test_what_is_known_is_written_before_the_end(calls, tmp_path):
    calls.failing["profile"] = KeyboardInterrupt()
    code, _, parts = report(calls, tmp_path)
    assert code == 130 and parts.keys() == {"card", "parity"}
    assert parts["card"]["name"] == "NVIDIA H100 80GB HBM3"


def test_a_form_that_fails_in_its_second_turn_keeps_its_first(monkeypatch):
    seen = []

    def measured(function, *args, limit=0):
        seen.append(args)
        if seen.count(args) == 2 and "fp32" in args:
            raise gpu.Failed("CUDA error")
        return dict(ms=5.0, host_ms=1.0, mb=1.0)

    monkeypatch.setattr(gpu, "measured", measured)
    found = gpu.steps("preset laptop", lambda known: None)
    assert found["ours, fp32"]["ms"] == 5.0 and found["ours, fp32"]["failed"] == "CUDA error"
    assert "failed" not in found["ours, tf32"]


def test_what_is_wrong_with_the_command_is_said_first(calls, tmp_path):
    (tmp_path / "file").write_text("x")
    for flags, message in (
        (["--full", "--data", str(tmp_path / "none.txt")], "cannot read"),
        (["--out", str(tmp_path / "file")], "--out"),
        (["--out", str(tmp_path / "file" / "below")], "--out"),
    ):
        with pytest.raises(UserError, match=message):
            gpu.main(flags)
    assert calls.asked == []
