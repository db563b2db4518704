"""Stopping and going on: bit for bit the run that never stopped, or a refusal that shows the difference."""

import json
import signal
import tomllib

import numpy as np
import pytest

from tests.stand_ins import strict_cupy
from tests.support.commands import finish, refused, start, train, wait_until_it_listens
from tests.support.here import train_program_here
from tests.support.runs import TINY, metrics, outcome, train_here
from tinygpt import cli
from tinygpt.config import UserError
from tinygpt.run import checkpoint

VARIANTS = {
    "constant rate": {},
    "schedule, clipping": dict(warmup_steps=4, min_lr=1e-4, grad_clip=0.5, weight_decay=0.3),
    "byte pairs": dict(tokenizer="bpe", vocab_size=280),
    "threads": dict(threads=2, micro_batch=1),
    "gpt2, recomputing": dict(architecture="gpt2", activation_checkpointing=True, micro_batch=3),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_anywhere_changes_nothing(variant, text_file, tmp_path):
    options = TINY | VARIANTS[variant] | dict(data=text_file)
    train_here(**options, out=tmp_path / "whole")
    files, numbers = outcome(tmp_path / "whole")
    for stops in ((1,), (7,), (5, 10), (3, 4, 12, 19)):
        folder = tmp_path / "-".join(map(str, stops))
        train_here(**options, out=folder, stop_after=stops[0])
        for stop in (*stops[1:], 20):
            train_here(resume=folder, stop_after=stop)
        parts, part_numbers = outcome(folder)
        assert {name: parts[name] for name in files} == files
        assert [n for n in part_numbers if n[:2] in {m[:2] for m in numbers}] == numbers


def test_resuming_keeps_the_books(text_file, tmp_path):
    train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=8)
    (tmp_path / "elsewhere").mkdir()
    folder = (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    with open(folder / "metrics.jsonl", "a") as file:
        # redone soon; torn by a crash
        file.write('{"event": "step", "step": 9, "seconds": 1.0, "loss": 1.0}\n{"event": "st')
    (folder / "ckpt" / ".step_000009.tmp").mkdir()
    printed = train_here(resume=folder, eval_interval=4, plot=True)
    assert "resuming" in printed and "step 20: train loss" in printed and "step 8:" not in printed
    assert [e["step"] for e in metrics(folder, "evaluation")] == [0, 5, 8, 12, 16, 20]
    assert sorted(e["seconds"] for e in metrics(folder)) == [e["seconds"] for e in metrics(folder)]
    assert (folder / "loss.png").is_file()
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["eval_interval"], config["stop_after"], config["out"]) == (4, 0, str(folder))
    assert not list(folder.glob("ckpt/.*"))


def test_the_best_and_the_last_are_kept(text_file, tmp_path):
    folder = tmp_path / "run"
    train_here(**TINY | dict(max_steps=10), data=text_file, out=folder)
    train_here(resume=folder, learning_rate=3, force=True, max_steps=20)  # which spoils it
    evaluations = {e["step"]: e["val_loss"] for e in metrics(folder, "evaluation")}
    best = min(evaluations, key=evaluations.get)
    assert best in (5, 10)
    assert {p.name for p in folder.glob("ckpt/step_*")} == {f"step_{best:06d}", "step_000020"}
    assert (folder / "ckpt" / "latest").read_text() == "step_000020\n"
    assert (folder / "ckpt" / "best").read_text() == f"step_{best:06d}\n"
    assert checkpoint.load(folder).state["best"] == {"step": best, "val_loss": evaluations[best]}
    assert checkpoint.load(folder / "ckpt" / "best").state["step"] == best
    for path in (folder, folder / "ckpt" / "latest"):
        assert checkpoint.load(path).state["step"] == 20
    (folder / "metrics.jsonl").unlink()  # the checkpoint knows the best loss too
    assert f"best validation loss {min(evaluations.values()):.4f}" in train_here(resume=folder)


def test_settings_that_are_new_have_their_defaults(text_file, tmp_path):
    """A checkpoint of a version that did not know them."""
    train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=5)
    path = tmp_path / "run" / "ckpt" / "step_000005" / "state.json"
    state = json.loads(path.read_text())
    del state["settings"]["detect_anomaly"], state["settings"]["tokenizer"]
    path.write_text(checkpoint.seal(state))
    train_here(resume=tmp_path / "run")


def test_resuming_from_within_the_folder(text_file, tmp_path, monkeypatch):
    train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=5)
    for place, path in (("ckpt", "step_000005"), (".", "."), ("ckpt", "latest"), ("..", "run")):
        monkeypatch.chdir(tmp_path / "run" / place)
        train_here(resume=path, stop_after=checkpoint.load(path).state["step"] + 5)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["run"]
    assert metrics(tmp_path / "run")[-1]["step"] == 20


def test_going_back_needs_force(text_file, tmp_path):
    folder = tmp_path / "run"
    train_here(**TINY, data=text_file, out=folder, stop_after=5)
    early = folder / "ckpt" / "step_000005"
    kept = {path.name: path.read_bytes() for path in early.iterdir()}
    train_here(resume=folder)
    before = outcome(folder)
    early.mkdir(exist_ok=True)
    for name, content in kept.items():
        (early / name).write_bytes(content)
    with pytest.raises(UserError, match="going back to .*step_000005 deletes step_000020; --force does it"):
        train_here(resume=early)
    train_here(resume=early, force=True)
    assert outcome(folder) == before


def test_other_settings_are_refused_with_the_difference(text_file, tmp_path):
    folder = tmp_path / "run"
    train_here(**TINY, min_lr=1e-4, data=text_file, out=folder, stop_after=5)
    other = train_program_here(resume=folder, n_layer=3, learning_rate=0.01, threads=2)
    refused(other, "n_layer 1 -> 3, learning_rate 0.003 -> 0.01; leave n_layer out")
    refused(train_program_here(resume=folder, max_steps=30), "max_steps 20 -> 30")
    refused(train_program_here(resume=folder, overwrite=True), "leave out --overwrite and --out")
    with pytest.raises(UserError, match="n_embd 8 -> 16; leave n_embd out: a run that goes on cannot"):
        train_here(resume=folder, n_embd=16, force=True)
    before = outcome(folder)
    (tmp_path / "other.txt").write_text(text_file.read_text()[::-1])
    other = train_program_here(resume=folder, data=tmp_path / "other.txt")
    refused(other, "was trained on other data: words with sha256")
    assert outcome(folder) == before
    train_here(resume=folder, data=tmp_path / "other.txt", max_steps=22, force=True)
    assert metrics(folder)[-1]["step"] == 22


def test_other_threads_go_on_with_a_note(text_file, tmp_path):
    train_here(**TINY, data=text_file, out=tmp_path / "run", stop_after=5)
    assert "note:" not in train_here(resume=tmp_path / "run", stop_after=10)
    printed = train_here(resume=tmp_path / "run", threads=2)
    assert "note: this rounds differently than before (cpu, 1 threads, micro-batches of 4)" in printed


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_on_a_gpu_and_between_gpu_and_cpu(text_file, tmp_path, monkeypatch):
    """Through the stand-in for CuPy: exact on one device, close between two; the cause of a NaN is found."""
    monkeypatch.setattr(cli.arguments, "choose_device", lambda device, place: (device, "as asked"))
    options = TINY | dict(data=text_file, device="cuda", max_steps=6, eval_interval=3)
    with strict_cupy.installed():
        train_here(**options, out=tmp_path / "whole")
        for first, second in (("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")):
            folder = tmp_path / f"{first}-{second}"
            train_here(**options | dict(device=first), out=folder, stop_after=3)
            train_here(resume=folder, device=second)
        with pytest.raises(UserError, match="first in step 1, transformer.h.0"):
            train_here(**options | dict(learning_rate=1e30), out=tmp_path / "nan")
    assert outcome(tmp_path / "cuda-cuda")[0] == outcome(tmp_path / "whole")[0]
    losses = [[e["val_loss"] for e in metrics(folder, "evaluation")] for folder in tmp_path.glob("*cuda*")]
    np.testing.assert_allclose(losses[1:], losses[:1] * (len(losses) - 1), atol=1e-4)


def test_a_run_that_cannot_be_resumed(tmp_path):
    refused(train(resume=tmp_path / "nothing"), "has no checkpoint")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_stops(number, code, text_file, tmp_path):
    options = TINY | dict(data=text_file, max_steps=100_000, eval_interval=50_000)
    process = start(**options, out=tmp_path / "run")
    while not process.stdout.readline().startswith("step 0:"):
        pass
    process.send_signal(number)
    result = finish(process)
    assert result.returncode == code and "finishing this step" in result.stderr
    assert "Traceback" not in result.stderr
    step = checkpoint.load(tmp_path / "run").state["step"]
    assert f"stopped after {step} steps; saved" in result.stdout
    assert f"--resume {tmp_path / 'run'}" in result.stdout
    train_here(resume=tmp_path / "run", stop_after=step + 3)
    train_here(**options, out=tmp_path / "whole", stop_after=step + 3)
    name = f"ckpt/step_{step + 3:06d}/model.safetensors"
    assert outcome(tmp_path / "run")[0][name] == outcome(tmp_path / "whole")[0][name]


def test_a_signal_during_an_evaluation_does_not_wait_for_it(text_file, tmp_path):
    process = start(**TINY | dict(data=text_file, eval_iters=10_000_000), out=tmp_path / "run")
    wait_until_it_listens(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 143
    assert checkpoint.load(tmp_path / "run").state["step"] == 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train_here(resume=tmp_path / "run", eval_iters=1)
    assert [e["step"] for e in metrics(tmp_path / "run", "evaluation")] == [0, 5, 10, 15, 20]


def test_the_second_signal_quits_at_once(text_file, tmp_path):
    """Even in the middle of a batch that takes minutes."""
    options = TINY | dict(data=text_file, batch_size=200_000, micro_batch=4, eval_interval=3)
    process = start(**options, out=tmp_path / "long")
    wait_until_it_listens(process)
    process.send_signal(signal.SIGINT)
    assert "finishing" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    assert not list((tmp_path / "long").glob("ckpt/step_*"))


def test_a_reader_that_goes_away(text_file, tmp_path):
    """`train.py | head`: the step is finished and saved, and the run can be resumed."""
    run = tmp_path / "run"
    process = start(**TINY | dict(max_steps=10**6, eval_interval=50), data=text_file, out=run)
    while "step 0" not in process.stdout.readline():
        pass
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=60) == 141 and process.stderr.read() == ""
    assert checkpoint.load(run).state["step"] >= 50
