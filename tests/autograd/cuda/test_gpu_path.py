"""The GPU path without a GPU: through a strict stand-in for CuPy it computes what the CPU path computes."""

import numpy as np
import pytest

from autograd import Tensor
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
