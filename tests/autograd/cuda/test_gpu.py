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
from tests.operations import CASES, KERNEL_CHECKS
from tests.operations.checks import check_on_gpu
from tests.support.gpu_training import Training, train
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
    for a, b in zip(cpu[1], gpu[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-4)
    assert gpu[0] == again[0] and gpu[2] == again[2]  # bit for bit
    for a, b in zip(gpu[1], again[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 3e-3), ("bf16", 3e-2)])
def test_products_at_every_precision(cupy, precision, tolerance):
    a, b = (np.random.default_rng(i).standard_normal((3, 65, 65)).astype(np.float32) for i in range(2))
    products.set_precision(precision)
    try:
        found = products.product(cupy, cupy.asarray(a), cupy.asarray(b).swapaxes(1, 2)).get()
        flat = products.product(cupy, cupy.asarray(a[0]), cupy.asarray(b[0])).get()
    finally:
        products.set_precision("fp32")
    scale = np.abs(a @ b).max()
    np.testing.assert_allclose(found, a @ b.swapaxes(1, 2), atol=tolerance * scale)
    np.testing.assert_allclose(flat, a[0] @ b[0], atol=tolerance * scale)
    assert (precision == "fp32") == (np.abs(flat - a[0] @ b[0]).max() < 1e-5 * scale)  # the others do round


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


SPIN = """extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}"""


def test_no_wait_in_a_step(cupy):
    """A kernel that spins holds the GPU; a step queued behind it returns before that ends."""
    training = Training("reference", "cuda")
    training.step(0)  # compiles everything
    stream = cupy.cuda.get_current_stream()
    stream.synchronize()
    cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(4_000_000_000),))  # about two seconds
    training.step(1)
    assert not stream.done
    stream.synchronize()


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
