"""Broken checkpoints, folders that cannot be written, two runs at once: through the real command line."""

import json
import os
import pickle
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support import crash
from tests.support.commands import ROOT, finish, refused, start, train
from tests.support.fuzz import reseal
from tests.support.here import tinygpt_here, train_program_here
from tests.support.runs import TINY, train_here
from tinygpt.run import checkpoint


def newest(run):
    return checkpoint.find(run)


def rewrite_state(run, change):
    path = newest(run) / "state.json"
    path.write_text(checkpoint.seal(change(json.loads(path.read_text()))))


def rewrite_arrays(run, change, name="model.safetensors"):
    path = newest(run) / name
    arrays = change(load_file(path))
    save_file(arrays, path)
    reseal(newest(run))


def rewrite_header(run, change):
    """Change the header of model.safetensors, as JSON."""
    path = newest(run) / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(change(json.loads(content[8 : 8 + length]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    reseal(newest(run))


def overwrite(run, name, content):
    (newest(run) / name).write_bytes(content)
    reseal(newest(run))


def replace_in_config(run, old, new):
    content = (newest(run) / "config.json").read_bytes()
    assert old in content
    overwrite(run, "config.json", content.replace(old, new))


def flip_a_bit(run, name):
    content = bytearray((newest(run) / name).read_bytes())
    content[len(content) // 2] ^= 4
    (newest(run) / name).write_bytes(content)


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def shorten(run):
    """Cut the weights' last number off, and make the hashes fit."""
    overwrite(run, WEIGHTS, (newest(run) / WEIGHTS).read_bytes()[:-4])


def put_pipe(run):
    """A named pipe in the place of state.json: reading it would wait for ever."""
    (newest(run) / STATE).unlink()
    os.mkfifo(newest(run) / STATE)


def name_another_file(state):
    return state | {"sha256": state["sha256"] | {"../../../secret": "0" * 64}}


def overlap(header):
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    return header


WEIGHTS, MOMENTS, STATE = "model.safetensors", "optim.safetensors", "state.json"
HEAD, NORM = "lm_head.weight", "transformer.ln_f.bias"
BROKEN = {  # name -> (what is done to the run, what the error must say)
    "truncated": (lambda run: os.truncate(newest(run) / WEIGHTS, 100), f"{WEIGHTS} is missing or damaged"),
    "truncated, hashes fit": (shorten, WEIGHTS),
    "empty": (lambda run: overwrite(run, WEIGHTS, b""), f"{WEIGHTS} is too small"),
    "file missing": (
        lambda run: (newest(run) / "tokenizer.json").unlink(),
        "tokenizer.json is missing or damaged",
    ),
    "huge header": (
        lambda run: overwrite(run, WEIGHTS, (2**40).to_bytes(8, "little") + bytes(20_000)),
        f"{WEIGHTS} is truncated or not a safetensors file: 20,008 bytes, with a header of 1,099,511,627,776",
    ),
    "overlap": (lambda run: rewrite_header(run, overlap), WEIGHTS),
    "flipped bit in the weights": (lambda run: flip_a_bit(run, WEIGHTS), f"{WEIGHTS} is missing or damaged"),
    "flipped bit in config.json": (
        lambda run: flip_a_bit(run, "config.json"),
        "config.json is missing or damaged",
    ),
    "flipped bit in state.json": (lambda run: flip_a_bit(run, STATE), STATE),
    "missing tensor": (
        lambda run: rewrite_arrays(run, lambda arrays: {k: v for k, v in arrays.items() if k != NORM}),
        f"{WEIGHTS}: tensor {NORM} is missing",
    ),
    "extra tensor": (
        lambda run: rewrite_arrays(run, lambda arrays: arrays | {"extra": np.zeros(3, np.float32)}),
        f"{WEIGHTS}: tensor extra is not one of this model's",
    ),
    "wrong shape": (
        lambda run: rewrite_arrays(run, lambda arrays: arrays | {HEAD: np.ascontiguousarray(arrays[HEAD].T)}),
        f"{WEIGHTS}: {HEAD} should be F32 (8, 33), found F32 [33, 8]",
    ),
    "wrong type": (
        lambda run: rewrite_arrays(run, lambda arrays: arrays | {NORM: arrays[NORM].astype(np.float64)}),
        f"{WEIGHTS}: {NORM} should be F32 (8,), found F64 [8]",
    ),
    "newer format": (
        lambda run: rewrite_state(run, lambda state: state | {"format": 3}),
        "format 3 is not known to this version, which reads 2",
    ),
    "path upwards": (
        lambda run: rewrite_state(run, name_another_file),
        "the files named are ['../../../secret', ",
    ),
    "absolute path": (
        lambda run: rewrite_state(run, lambda state: state | {"sha256": {"/etc/passwd": "0" * 64}}),
        "the files named are ['/etc/passwd'], not",
    ),
    "a pickle": (
        lambda run: overwrite(run, WEIGHTS, pickle.dumps(Bomb()) + bytes(20_000)),
        f"{WEIGHTS} is a pickle or a .pt",
    ),
    "a .pt": (
        lambda run: overwrite(run, WEIGHTS, b"PK\3\4" + bytes(20_000)),
        f"{WEIGHTS} is a pickle or a .pt file",
    ),
    "model larger than its file": (
        lambda run: replace_in_config(run, b'"n_embd": 8', b'"n_embd": 10000'),
        "is too small for the 1,",
    ),
    "config not JSON": (
        lambda run: overwrite(run, "config.json", b"{n_layer: 3}"),
        "config.json is not JSON",
    ),
    "config of wrong type": (
        lambda run: replace_in_config(run, b'"n_embd": 8', b'"n_embd": "8"'),
        "config.json: n_embd must be int, not '8'",
    ),
    "deep nesting": (lambda run: overwrite(run, "config.json", b"[" * 90_000), "config.json is not JSON"),
    "not a file": (put_pipe, f"{STATE} is missing or not a file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_refused(name, run):
    break_it, message = BROKEN[name]
    break_it(run)
    line = refused(tinygpt_here("sample", run, "--tokens", 3), message)
    assert str(run) in line
    assert not (ROOT / "exploded").exists()


def test_a_pickle_is_not_looked_into(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    message = "is a file; give the folder of a run, such as runs/NAME (a pickle or .pt is never read)"
    refused(train_program_here(resume=path), message)


BROKEN_MOMENTS = {  # name -> (what becomes of the arrays, what the error must say)
    "missing": (lambda arrays: {k: v for k, v in arrays.items() if k != "0.m"}, "tensor 0.m is missing"),
    "extra": (lambda arrays: arrays | {"2.m": np.zeros(3, np.float32)}, "tensor 2.m"),
    "shape": (lambda arrays: arrays | {"1.v": np.zeros(3, np.float32)}, "1.v should be F32"),
}


@pytest.mark.parametrize("name", BROKEN_MOMENTS)
def test_broken_optimizer_state_is_refused_on_resume(name, run):
    change, message = BROKEN_MOMENTS[name]
    rewrite_arrays(run, change, MOMENTS)
    refused(train_program_here(resume=run), message)


def test_a_damaged_checkpoint_names_one_to_use_instead(run, tmp_path):
    good = shutil.copytree(newest(run), run / "ckpt" / "step_000010")
    state = json.loads((good / STATE).read_text())
    (good / STATE).write_text(checkpoint.seal(state | {"step": 10}))
    flip_a_bit(run, WEIGHTS)
    refused(train_program_here(resume=run), f"use {good} instead")
    refused(train_program_here(resume=good), "going back to")
    train_here(resume=good, force=True)


def test_a_second_run_in_a_folder_is_refused(text_file, tmp_path):
    run = tmp_path / "run"
    process = start(**TINY | dict(data=text_file, max_steps=1_000_000, eval_interval=10_000), out=run)
    while not list(run.glob("ckpt/step_*")):
        assert process.poll() is None
    busy = f"process {process.pid} on "
    refused(train(resume=run), busy)
    refused(train(**TINY, data=text_file, out=run, overwrite=True), busy)
    refused(train(**TINY, data=text_file, out=run), "exists")
    process.kill()  # leaves its lock file behind, but not the lock
    assert finish(process).returncode == -signal.SIGKILL
    train_here(resume=run, stop_after=1)


def test_a_full_disk_leaves_the_last_checkpoint(text_file, tmp_path):
    """The system itself refuses to let a file grow: a save that fails in the middle of a large file."""
    run = tmp_path / "run"
    train_here(**TINY | dict(n_embd=64), data=text_file, out=run, stop_after=5)  # more than the plot
    limit = (newest(run) / MOMENTS).stat().st_size - 100
    process = start(resume=run)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    line = refused(finish(process), "error: cannot save")
    assert "File too large" in line
    assert f"{run}/ckpt/step_000005 is complete: make room and --resume {run}" in line
    assert not list(run.rglob(".*tmp")) and checkpoint.load(run).state["step"] == 5
    train_here(resume=run)


def no_longer_root():
    if os.getuid() == 0:
        # Load what Python loads late, as long as its own files may be read.
        with tempfile.TemporaryDirectory() as folder:
            train_here(**TINY | dict(max_steps=1), data=ROOT / "README.md", out=Path(folder) / "run")
        os.setgid(65534)
        os.setuid(65534)


def test_folders_that_cannot_be_written(finished, text_file, tmp_path):
    (tmp_path / "file").write_text("")
    refused(train(**TINY, data=text_file, out=tmp_path / "file" / "run"), "cannot write to")
    with tempfile.TemporaryDirectory() as public:  # all may read it, only root may write to it
        os.chmod(public, 0o755)
        run = Path(shutil.copytree(finished, Path(public) / "run"))
        shutil.copy(finished.parent / "words.txt", Path(public) / "words.txt")
        for path in (run, *run.rglob("*")):
            path.chmod(0o555)
        before = {path: path.stat().st_mtime for path in run.rglob("*")}

        settings = dict(resume=run, data=Path(public) / "words.txt")
        assert crash.exit_code(crash.start(tmp_path / "output.txt", settings, no_longer_root)) == 2
        printed = (tmp_path / "output.txt").read_text()
        assert printed.startswith("error: cannot write to") and printed.count("\n") == 1
        assert "Permission denied" in printed
        assert {path: path.stat().st_mtime for path in run.rglob("*")} == before
        for path in (run, *run.rglob("*")):
            path.chmod(0o755)


def test_a_run_killed_at_its_very_start_can_be_overwritten(text_file, tmp_path):
    for name in (".lock", ".config.toml.tmp"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
        train_here(**TINY, data=text_file, out=tmp_path / "run", overwrite=True)
        shutil.rmtree(tmp_path / "run")


def test_a_model_that_no_memory_can_hold(text_file, tmp_path):
    options = TINY | dict(n_embd=10_000_000, n_head=1, sample_tokens=0)
    refused(train(**options, data=text_file, out=tmp_path / "run"), "out of memory")


def test_odd_numbers_are_refused(text_file):
    message = "learning_rate is inf; that is no number to work with"
    refused(train_program_here(learning_rate="inf", data=text_file), message)
    refused(train_program_here(dropout="nan", data=text_file), "dropout is nan")
