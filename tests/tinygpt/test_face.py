"""`import tinygpt`: the names it offers, how long it takes, and which version it is."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import tinygpt
from tests.support.commands import ROOT, train
from tests.support.commands import tinygpt as run_tinygpt

MEASURE = """
import json, sys, time
began = time.process_time()
import numpy
numpy_seconds = time.process_time() - began
import tinygpt
print(json.dumps([time.process_time() - began, numpy_seconds, sorted(sys.modules)]))
"""


def python(code, cwd=ROOT):
    """A finished Python process that ran this code."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_every_name_of_the_face_is_there():
    assert len(set(tinygpt.__all__)) == len(tinygpt.__all__)
    assert all(hasattr(tinygpt, name) for name in tinygpt.__all__)


def test_the_face_measures_and_writes():
    """A loss and a text, with nothing but `from tinygpt import ...`."""
    from tinygpt import GPT, CharTokenizer, Dataset, GPTConfig, generate, prompt_ids

    text = "to be or not to be, " * 20
    tokenizer = CharTokenizer(text)
    dataset = Dataset(text, tokenizer, block_size=8)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=8))
    loss = model.loss(dataset.train[None, :8].astype(int), dataset.train[None, 1:9].astype(int))
    assert float(loss) == pytest.approx(np.log(tokenizer.vocab_size), abs=0.1)
    ids = list(generate(model, prompt_ids(tokenizer, "to "), 5))
    assert len(tokenizer.decode(ids)) == 5


def test_importing_is_quick():
    """In seconds of the processor, the best of three, since other processes may be at work.

    The limit is for a machine that imports NumPy in 0.12 s; in its slow minutes both take longer.
    """
    measured = [json.loads(python(MEASURE).stdout) for _ in range(3)]
    assert any(seconds < 0.3 * max(1, of_numpy / 0.12) for seconds, of_numpy, _ in measured), measured
    for late in ("matplotlib", "cupy", "mpi4py", "torch", "urllib.request"):
        assert late not in measured[0][2]


def test_another_autograd_is_named(tmp_path):
    """PyPI has another package of that name. It is noticed before anything is imported from it."""
    (tmp_path / "autograd.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import tinygpt"
    error = python(code, cwd=tmp_path).stderr.splitlines()[-1]
    assert error.startswith(f"ImportError: the package `autograd` found at {tmp_path}")


def test_the_version():
    trained, asked = train(version=True), run_tinygpt("--version")
    assert trained.returncode == asked.returncode == 0
    assert trained.stdout == asked.stdout.decode() == f"tinygpt {tinygpt.__version__}\n"


def test_the_version_has_one_source():
    """setuptools reads a plain assignment without importing the module, so building needs no NumPy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    module, _, name = project["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    lines = (ROOT / Path(*module.split(".")).with_suffix(".py")).read_text().splitlines()
    assert f'{name} = "{tinygpt.__version__}"' in lines
    assert sys.modules[module].__version__ == tinygpt.__version__
