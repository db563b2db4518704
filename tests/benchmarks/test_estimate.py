"""The estimate of a step on a GPU: its bytes and flops are those of the step, and its list of kernels too."""

import dataclasses

import numpy as np
import pytest

from autograd.cuda.launch import signatures, source
from autograd.cuda.products import product
from benchmarks import estimate, shapes
from benchmarks.gpu import main
from benchmarks.step import GPU_CONFIGURATIONS, floor_flops
from tests.support.here import program
from tinygpt.parallel.estimate import training_memory


@pytest.fixture(scope="module")
def walks():
    return {name: estimate.walk(name) for name in GPU_CONFIGURATIONS}


def test_every_kernel_has_a_cost_that_its_source_still_shows():
    """A kernel that is rewritten may cost something else: look at its Cost again."""
    assert estimate.COSTS.keys() == signatures().keys()
    assert [name for name, cost in estimate.COSTS.items() if cost.because not in source()] == []


@pytest.mark.parametrize("name", GPU_CONFIGURATIONS)
def test_flops_are_those_of_the_products(walks, name):
    """A program may leave masked parts of attention out, or pad a little; it cannot do with much less."""
    flops, floor = sum(work.flops for work in walks[name].work), floor_flops(*GPU_CONFIGURATIONS[name])
    batch, shape = GPU_CONFIGURATIONS[name]
    attention = batch * shape.block_size * 12 * shape.n_layer * shape.block_size * shape.n_embd
    assert floor - attention / 2 <= flops <= 1.05 * floor


@pytest.mark.parametrize("name", GPU_CONFIGURATIONS)
def test_memory_is_what_training_says(walks, name):
    batch, shape = GPU_CONFIGURATIONS[name]
    expected = training_memory(shape, 1, batch, recompute_blocks=False, on_gpu=True)
    assert walks[name].memory == pytest.approx(expected, rel=0.2)


def test_the_update_moves_its_arrays_once_there_and_back(walks):
    """p, m and v are read and written, g is read: 28 bytes for a parameter."""
    _, shape = GPU_CONFIGURATIONS["GPT-2, 124 M"]
    updates = [work.bytes for work in walks["GPT-2, 124 M"].work if work.label == "adamw"]
    assert sum(updates) == 28 * shape.num_parameters()


def test_arrays_take_no_memory():
    with shapes.installed() as cupy:
        huge = cupy.empty((2**20, 2**20), np.float32)
        assert (huge.T[:2] * 2.0).sum(axis=1).shape == (2,)
        assert cupy.ndarray.memory.now >= huge.nbytes == 2**42
        del huge
        assert cupy.ndarray.memory.now < 2**30 < 2**42 <= cupy.ndarray.memory.most


def test_work_of_products():
    """Bytes and flops by hand; and whether rows begin where cuBLAS wants them."""
    with shapes.installed() as cupy:
        a, b = cupy.empty((6, 8), np.float32), cupy.empty((8, 5), np.float32)
        work = estimate.work_of_product((cupy, a, b), {}, product(cupy, a, b))
        assert (work.bytes, work.flops, work.aligned) == (4 * (48 + 40 + 30), 2 * 6 * 8 * 5, False)
        padded, out = cupy.empty((8, 8), np.float32)[:, :5], cupy.empty((6, 8), np.float32)[:, :5]
        work = estimate.work_of_product(
            (cupy, a, padded), {"add_to": out}, product(cupy, a, padded, add_to=out)
        )
        assert (work.bytes, work.aligned) == (4 * (48 + 40 + 2 * 30), True)
        assert not cupy.ndarray.work
        product(cupy, a[:, ::2], b[:4])  # cuBLAS cannot read it: a copy is a launch more
        assert [each.label for each in cupy.ndarray.work] == ["cupy copy"]


def test_time_is_the_longest_of_what_a_launch_needs():
    card = estimate.Card(1, 1, 2, gb_per_s=1000, int_tops=1)
    works = {
        "memory": shapes.Work("product", bytes=1e9, flops=1e6),
        "products": shapes.Work("product", bytes=1, flops=1e12),
        "unaligned products": shapes.Work("product", bytes=1, flops=1e12, aligned=False),
        "cache": shapes.Work("kernel", bytes=1, cached_bytes=1e9),
        "integers": shapes.Work("kernel", bytes=1, instructions=1e12),
        "launching": shapes.Work("kernel", bytes=1),
    }
    ms = {}
    for bound, work in works.items():
        ms[bound], found = estimate.time_of(work, card)
        assert found == bound
    assert ms["memory"] == pytest.approx(1 / estimate.OF_BANDWIDTH)
    assert ms["products"] == pytest.approx(1000 / estimate.OF_PRODUCTS)
    assert ms["unaligned products"] > 2 * ms["products"] and ms["integers"] == 1000
    assert estimate.time_of(works["products"], card, "bf16")[0] == ms["products"] / 2
    slow = dataclasses.replace(card, gb_per_s=500)
    assert estimate.time_of(works["memory"], slow)[0] == 2 * ms["memory"]


def test_the_command(capsys):
    main(["--estimate"])
    printed = capsys.readouterr().out
    main(["--estimate", "H200", "--gb-per-s", "3350"])
    assert capsys.readouterr().out == printed  # they differ in their memory only
    for name in GPU_CONFIGURATIONS:
        assert f"\n{name}: " in f"\n{printed}"
    rows = [line.split() for line in printed.splitlines() if line.startswith("  ")]
    total = sum(float(row[row.index("ms") - 1]) for row in rows)
    found = [estimate.estimate(name, estimate.CARDS["H100"]) for name in GPU_CONFIGURATIONS]
    assert total == pytest.approx(sum(each["gpu_ms"] for each in found), rel=0.01)
    for words in (["--estimate", "--gb-per-s", "0"], ["--gb-per-s", "100"]):
        refused = program(main, *words)
        assert refused.returncode == 2 and refused.stderr.startswith(b"error: --gb-per-s")
