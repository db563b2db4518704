"""Every CUDA kernel, run on the CPU by the emulator, against the same operation in float64 on NumPy.

Sizes are odd, and threads take their turns in ascending, descending and random order. In the end bugs are
planted in the CUDA sources: the same checks must catch each. Checks and bugs stand in tests/operations.
"""

import contextlib
from unittest import mock

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor
from autograd.cuda import launch, products
from tests.operations import KERNEL_BUGS, KERNEL_CHECKS, RECORDS
from tests.operations.checks import close, numbers
from tests.operations.record import with_bug
from tests.stand_ins import emulate, strict_cupy

pytestmark = pytest.mark.skipif(not emulate.COMPILER, reason="running CUDA kernels on the CPU needs g++")


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


@pytest.mark.parametrize("order", emulate.ORDERS)
@pytest.mark.parametrize("check", KERNEL_CHECKS.values(), ids=KERNEL_CHECKS)
def test_kernels(cupy, monkeypatch, check, order):
    monkeypatch.setattr(strict_cupy.RawModule, "order", order)
    check(cupy)


def test_every_kernel_is_checked(cupy, monkeypatch):
    """And each function with a form for a GPU has that form run by the checks of its own record."""
    strict_cupy.launches.clear()
    for record in RECORDS:
        if not record.kernel_checks:
            continue
        form = mock.Mock(wraps=record.function.gpu_form)
        monkeypatch.setattr(record.function, "gpu_form", form)
        for check in record.kernel_checks:
            check(cupy)
        assert form.called, f"the kernel checks do not run {record.function.__name__}"
    assert set(strict_cupy.launches) == set(launch.signatures()) | {"gemm"}


def test_ids_out_of_range(cupy):
    """From the host they are refused. On the GPU they turn into NaN, since to look would mean to wait."""
    weight = Tensor(cupy.asarray(numbers(3, 2)))
    for ids in (np.array([0, 3]), np.array([-1])):
        with pytest.raises(IndexError, match="is out of range: there are 3, from 0 to 2"):
            ag.embedding(weight, ids)
        assert np.isnan(ag.embedding(weight, cupy.asarray(ids)).numpy()[-1]).all()
        assert np.isnan(
            float(ag.cross_entropy(Tensor(cupy.asarray(numbers(len(ids), 3))), cupy.asarray(ids)))
        )


def test_a_launch_is_checked_against_the_signature(cupy):
    x = cupy.asarray(numbers(4, 4))
    sizes = dict(out=x, n=16)
    with pytest.raises(TypeError, match="sum_all takes the arguments x, out, n, not x, out"):
        launch.launch(cupy, "sum_all", 1, 32, x=x, out=x)
    with pytest.raises(TypeError, match="sum_all takes the arguments x, out, n, not y, out, n"):
        launch.launch(cupy, "sum_all", 1, 32, y=x, **sizes)
    for wrong in (x.T, cupy.asarray(numbers(4, 4).astype(np.float64)), x[:, :2]):
        with pytest.raises(TypeError, match=r"sum_all: x must be a contiguous float\* array"):
            launch.launch(cupy, "sum_all", 1, 32, x=wrong, **sizes)


def test_products_of_every_layout(cupy):
    stack = numbers(3, 4, 5), numbers(3, 5, 6)
    for a, b in (
        stack,
        (stack[0][0], stack[1][0]),
        (stack[0][:, :1], stack[1][:, :, :1]),
        (stack[0][:1], stack[1][:1]),
    ):
        for flip_a in (False, True):
            for flip_b in (False, True):
                on_device = []
                for x, flip in ((a, flip_a), (b, flip_b)):
                    y = (
                        cupy.asarray(x.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
                        if flip
                        else cupy.asarray(x.copy())
                    )
                    on_device.append(y)
                found = products.product(cupy, *on_device)
                close(found, a.astype(np.float64) @ b)
                close(products.product(cupy, *on_device, add_to=found), 2 * (a.astype(np.float64) @ b))
    part = numbers(3, 9, 8)[:, 2:6, 1:6]
    found = products.product(cupy, cupy.asarray(numbers(3, 9, 8))[:, 2:6, 1:6], cupy.asarray(stack[1]))
    close(found, part.astype(np.float64) @ stack[1])
    a, b = map(cupy.asarray, stack)
    with pytest.raises(ValueError, match=r"matrix product: shapes \(3, 4, 5\) and \(3, 4, 5\) do not fit"):
        products.product(cupy, a, a)
    out = cupy.asarray(numbers(3, 4, 12))
    for wrong in (
        out[:, :, ::2],
        out[:, ::-1, :6],
        out[:, :3, :6],
        cupy.broadcast_to(out[:, :1, :6], (3, 4, 6)),
    ):
        with pytest.raises(ValueError, match="cannot hold the result of"):
            products.product(cupy, a, b, out=wrong)


def test_precision_is_handed_to_cublas(cupy, monkeypatch):
    seen = []
    monkeypatch.setattr(strict_cupy, "gemm_strided_batched_ex", lambda *arguments: seen.append(arguments[-2]))
    x = cupy.asarray(numbers(2, 2))
    try:
        for name, number in (("tf32", 77), ("bf16", 75), ("fp32", 68)):  # cuBLAS's cublasComputeType_t
            products.set_precision(name)
            products.product(cupy, x, x)
            assert seen[-1] == number
    finally:
        products.set_precision("fp32")


def files_with(bug):
    """{file: text} of the CUDA sources, with the bug in one of them."""
    files = {file: launch.text_of(file) for file in (launch.COMMON, *launch.FILES)}
    found = [file for file, text in files.items() for _ in range(text.count(bug.right))]
    assert len(found) == 1, f"{bug.right!r} is in {found}; change the bug {bug.what!r} with the code"
    return files | {found[0]: with_bug(files[found[0]], bug, where=found[0])}


@pytest.fixture(scope="module")
def all_compiled(request):
    """The files with the bugs that were selected, compiled on all cores."""
    tests = [test for test in request.session.items if "all_compiled" in test.fixturenames]
    units = []
    for test in tests:
        with contextlib.suppress(AssertionError):  # which its test will report
            files = files_with(test.callspec.params["bug"])
            changed = [file for file in launch.FILES if files[file] != launch.text_of(file)]
            units += [f"{files[launch.COMMON]}\n{files[file]}" for file in changed]
    emulate.compile_side_by_side(units)


@pytest.mark.parametrize(("bug", "check"), KERNEL_BUGS, ids=[bug.what for bug, _ in KERNEL_BUGS])
def test_a_planted_bug_is_caught(all_compiled, monkeypatch, bug, check):
    monkeypatch.setattr(launch, "text_of", files_with(bug).get)
    assert any(fails(monkeypatch, KERNEL_CHECKS[check], order) for order in emulate.ORDERS)


def fails(monkeypatch, check, order):
    monkeypatch.setattr(strict_cupy.RawModule, "order", order)
    with strict_cupy.installed() as cupy:
        try:
            check(cupy)
        except (AssertionError, emulate.KernelError):
            return True
    return False
