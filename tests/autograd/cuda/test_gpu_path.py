"""The GPU path without a GPU: through a strict stand-in for CuPy it computes what the CPU path computes."""

import sys

import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from benchmarks import shapes
from tests.operations import CASES
from tests.operations.checks import check_on_gpu
from tests.stand_ins import strict_cupy
from tests.support.gpu_training import train, without_key_biases
from tinygpt.config import ARCHITECTURES


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_run_equals_that_on_the_cpu(cupy, architecture):
    cpu, gpu = train(architecture, "cpu"), train(architecture, "cuda")
    for a, b in zip(cpu[0], gpu[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(*map(without_key_biases, (cpu[1], gpu[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5)
    assert cpu[2] == gpu[2]


@pytest.mark.parametrize("name", CASES)
def test_each_operation_equals_that_on_the_cpu(cupy, name):
    check_on_gpu(cupy, CASES[name], rtol=1e-10, atol=1e-12)


def test_the_memory_of_attention_grows_with_T_and_not_with_its_square():
    """At GPT-2's shape with 64 rows a step needs less than 1 GB for scores, and keeps none of them."""
    if "cupy" in sys.modules:
        pytest.skip("CuPy is in use in this process")
    C, kept, at_most = 768, {}, {}
    for T in (1024, 2048):
        with shapes.installed() as cupy:
            memory = cupy.ndarray.memory
            qkv = Tensor(cupy.empty((64, T, 3 * C), np.float32), requires_grad=True, copy=False)
            out = ag.causal_attention(qkv, 12, dropout=0.1, stream=Stream(0))
            kept[T] = memory.now
            out.backward(cupy.empty((64, T, C), np.float32))
            at_most[T] = memory.most
    activation = 4 * 64 * 1024 * C  # bytes of an array (B, T, C)
    assert kept[2048] == pytest.approx(2 * kept[1024], rel=0.01)
    assert kept[1024] < 7.1 * activation  # qkv, q, k, v, and the result
    assert at_most[1024] < 16 * activation + 1e9


def test_mixing_devices_is_refused(cupy):
    with pytest.raises(TypeError, match=r"add got arrays on cpu and cuda:0; move one with \.to\(\)"):
        Tensor([1.0]) + Tensor([1.0]).to("cuda")


def test_the_stand_in_is_strict(cupy):
    x = cupy.asarray(np.ones(3, np.float32))
    for wrong in (
        lambda: np.exp(x),
        lambda: x + np.ones(3),
        lambda: np.asarray(x),
        lambda: cupy.exp(np.ones(3)),
        lambda: np.sum(x),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        cupy.vecdot(x, x)
    with strict_cupy.no_waiting():
        for wrong in (lambda: float(x.sum()), lambda: bool(x[0]), lambda: x.get(), lambda: cupy.zeros(3)):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
