"""The checks that wait for a real GPU (test_gpu.py), through the stand-in: so they are known to work."""

import pytest

from tests.stand_ins import emulate, strict_cupy
from tests.support import on_gpu

pytestmark = pytest.mark.skipif(
    emulate.COMPILER is None, reason="no C++ compiler (g++) to run CUDA kernels on the CPU with"
)


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


def test_products(cupy):
    assert max(on_gpu.error_of_products(cupy, "tf32")) < 1e-5  # the stand-in does not round them


def test_two_streams(cupy):
    on_gpu.two_streams(cupy)


def test_full_memory(cupy):
    on_gpu.full_memory(cupy)


def test_another_device(cupy):
    on_gpu.another_device(cupy, 1)


def test_ctrl_c(cupy, text_file, tmp_path):
    on_gpu.ctrl_c(text_file, tmp_path)
