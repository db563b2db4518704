"""Checks for a real GPU, written so that the stand-in for CuPy can go through them too."""

import contextlib
import gc
import os
import signal
from unittest import mock

import numpy as np
import pytest

import train
from autograd import Stream
from autograd.backend import choose_device, device_of
from autograd.cuda import products
from tests.support.gpu_training import Training
from tests.support.runs import TINY, outcome, train_here
from tinygpt.config import UserError

STEPS = 2


def error_of_products(cupy, precision):
    """The largest error of products of 128 x 128 matrices at a precision, against the largest result.

    Tensor cores want sizes that are multiples of 4 or 8; with others cuBLAS may not round at all.
    """
    a, b = (np.random.default_rng(i).standard_normal((3, 128, 128)).astype(np.float32) for i in range(2))
    on_gpu = cupy.asarray(a), cupy.asarray(b)
    products.set_precision(precision)
    try:
        stack = products.product(cupy, on_gpu[0], on_gpu[1].swapaxes(1, 2)).get()
        single = products.product(cupy, on_gpu[0][0], on_gpu[1][0]).get()
    finally:
        products.set_precision("fp32")
    a, b = a.astype(np.float64), b.astype(np.float64)
    errors = np.abs(stack - a @ b.swapaxes(1, 2)).max(), np.abs(single - a[0] @ b[0]).max()
    return [error / np.abs(a @ b).max() for error in errors]


def on_stream(stream, training, numbers=range(STEPS)):
    """Losses and gradient norms of these steps of a Training, queued on a stream, still on the device."""
    with stream:
        return [training.step(number) for number in numbers]


def finished(stream, training, results):
    """The same as numbers, and the weights, once the stream has computed them."""
    with stream:
        stream.synchronize()
        return [float(x) for each in results for x in each], [p.numpy() for p in training.model.parameters()]


def two_streams(cupy):
    """Two trainings, each on a stream of its own, in turns: each computes what it computes alone."""
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    runs = []
    for stream in (*streams, streams[0]):
        with stream:
            runs.append(Training("gpt2", "cuda"))
        stream.synchronize()
    alone = finished(streams[0], runs[2], on_stream(streams[0], runs[2]))
    queued = [[], []]
    for number in range(STEPS):
        for i, stream in enumerate(streams):
            queued[i] += on_stream(stream, runs[i], [number])
    for i, stream in enumerate(streams):
        numbers, weights = finished(stream, runs[i], queued[i])
        assert numbers == alone[0]
        for found, expected in zip(weights, alone[1], strict=True):
            np.testing.assert_array_equal(found, expected)


def full_memory(cupy):
    """A step for which the memory is too small says so, and training can go on as if it had not been."""
    training, undisturbed = (Training("gpt2", "cuda") for _ in range(2))
    for number in range(2):
        expected = undisturbed.step(number)
    training.step(0)
    batch = training.dataset.batch("train", 4, Stream(1))
    cupy.cuda.get_current_stream().synchronize()
    pool = cupy.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    pool.set_limit(size=max(1, pool.total_bytes()))
    try:
        rest = what_is_left(cupy)
        with pytest.raises(UserError, match="^the GPU's memory is full: a step needs about .* try "):
            training.workers.loss_and_gradients(*batch, Stream(5))
        del rest
    finally:
        pool.set_limit(size=0)
    assert [float(x) for x in training.step(1)] == [float(x) for x in expected]


def what_is_left(cupy):
    """Arrays that fill the pool: pieces between other arrays stay there, and would be used again."""
    arrays = []
    for size in (2**20, 2**16, 2**12, 2**9):
        with contextlib.suppress(MemoryError):
            while True:
                arrays.append(cupy.empty(size, np.int8))
    return arrays


def another_device(cupy, number):
    """A step on GPU `number` equals that on GPU 0, and has no array elsewhere."""
    expected = Training("gpt2", "cuda:0").step(0)
    try:
        device, _ = choose_device(f"cuda:{number}")
        training = Training("gpt2", device)
        found = training.step(0)
        arrays = [*found, *(p.data for p in training.model.parameters())]
        assert {device_of(array) for array in arrays} == {device}
        found = [float(x) for x in found]
    finally:
        choose_device("cuda:0")
    np.testing.assert_allclose(found, [float(x) for x in expected], rtol=1e-5)


def ctrl_c(text_file, folder):
    """Ctrl-C in the middle of a step: it is finished and saved, and the run goes on bit for bit."""
    settings = TINY | dict(
        data=text_file, device="cuda", max_steps=3, eval_interval=3, sample_tokens=0, batch_size=2
    )
    train_here(**settings, out=folder / "undisturbed")
    step = train.train_step

    def interrupted(job, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(job, number)

    try:
        with mock.patch.object(train, "train_step", interrupted):
            train_here(**settings, out=folder / "run")
    except SystemExit as end:  # not kept: it would hold the run, which locks its folder
        assert end.code == 130
    assert (folder / "run/ckpt/step_000002").is_dir()
    train_here(resume=folder / "run")
    files, numbers = outcome(folder / "undisturbed")
    found, found_numbers = outcome(folder / "run")
    assert {name: found[name] for name in files} == files and set(numbers) <= set(found_numbers)
