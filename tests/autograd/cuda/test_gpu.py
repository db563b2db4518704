"""On a real GPU: what the tests without one promise.

`pytest -m gpu`; skipped, with the reason, where there is none.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from autograd.backend import choose_device, to_numpy
from autograd.cuda import products
from benchmarks.on_gpu import hold
from tests.operations import CASES, KERNEL_CHECKS
from tests.operations.checks import check_on_gpu
from tests.support import on_gpu
from tests.support.gpu_training import Training, train, without_key_biases
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.model import GPT

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def cupy():
    try:
        choose_device("cuda")
    except RuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    import cupy

    products.set_precision("fp32")
    return cupy


@pytest.mark.parametrize("check", KERNEL_CHECKS.values(), ids=KERNEL_CHECKS)
def test_kernels_in_float32(cupy, check):
    check(cupy)


@pytest.mark.parametrize("name", CASES)
def test_operations_in_float64(cupy, name):
    check_on_gpu(cupy, CASES[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_run_equals_that_on_the_cpu_and_itself(cupy, architecture):
    cpu, gpu, again = (train(architecture, device) for device in ("cpu", "cuda", "cuda"))
    np.testing.assert_allclose(gpu[0][-1], cpu[0][-1], rtol=1e-4)
    for a, b in zip(*map(without_key_biases, (cpu[1], gpu[1])), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-4)
    assert gpu[0] == again[0] and gpu[2] == again[2]  # bit for bit
    for name, values in gpu[1].items():
        np.testing.assert_array_equal(again[1][name], values)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 3e-3), ("bf16", 3e-2)])
def test_products_at_every_precision(cupy, precision, tolerance):
    errors = on_gpu.error_of_products(cupy, precision)
    assert max(errors) < tolerance
    assert precision == "fp32" or min(errors) > 1e-5  # the others do round


def test_dropout_drops_the_same_on_both(cupy):
    x = np.ones((64, 37, 33), np.float32)
    stream = Stream(7, step=3, site=2, row=5)
    on_cpu, on_gpu = (ag.dropout(Tensor(values), 0.2, stream).numpy() for values in (x, cupy.asarray(x)))
    np.testing.assert_array_equal(on_cpu, on_gpu)


def test_the_whole_model_in_float64(cupy):
    config = GPTConfig(
        17, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.2, **ARCHITECTURES["gpt2"]
    )
    ids = Stream(0).integers(4 * 13, 17).reshape(4, 13)
    found = []
    for device in ("cpu", "cuda"):
        model = GPT(config, seed=2)
        for p in model.parameters():
            p.data = p.data.astype(np.float64)
        loss = model.to(device).loss(ids[:, :-1], ids[:, 1:], Stream(5))
        loss.backward()
        found.append([loss.numpy()] + [to_numpy(p.grad) for p in model.parameters()])
    for expected, value in zip(*found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


def test_no_wait_in_a_step(cupy):
    """A kernel that spins holds the GPU; a step queued behind it returns before that ends."""
    training = Training("reference", "cuda")
    training.step(0)  # compiles everything
    stream = cupy.cuda.get_current_stream()
    stream.synchronize()
    hold(cupy, cycles=4_000_000_000)  # about two seconds
    training.step(1)
    assert not stream.done
    stream.synchronize()


def test_two_streams(cupy):
    on_gpu.two_streams(cupy)


def test_full_memory(cupy):
    on_gpu.full_memory(cupy)


def test_another_device(cupy):
    count = cupy.cuda.runtime.getDeviceCount()
    if count < 2:
        pytest.skip("only one GPU")
    on_gpu.another_device(cupy, count - 1)


def test_ctrl_c(cupy, text_file, tmp_path):
    on_gpu.ctrl_c(text_file, tmp_path)


def test_runs_move_between_devices(cupy, text_file, tmp_path):
    """train.py starts on the GPU, goes on on the CPU, ends on the GPU, and the result is sampled on both."""
    run, first = str(tmp_path / "run"), ["--preset", "smoke", "--max-steps", "30", "--data", str(text_file)]
    for device, arguments in (
        ("cuda", [*first, "--out", run, "--stop-after", "10"]),
        ("cpu", ["--resume", run, "--stop-after", "20"]),
        ("cuda", ["--resume", run, "--stop-after", "0"]),
    ):
        subprocess.run([sys.executable, "train.py", "--device", device, *arguments], check=True, cwd=ROOT)
    sample = [
        sys.executable,
        "-m",
        "tinygpt",
        "sample",
        run,
        "--prompt",
        "the",
        "--tokens",
        "40",
        "--temperature",
        "0",
    ]
    texts = [
        subprocess.run([*sample, "--device", d], check=True, cwd=ROOT, capture_output=True).stdout
        for d in ("cpu", "cuda")
    ]
    assert texts[0] == texts[1]
