"""What a run will need, said before step 0: memory from the shapes, time from one round of micro-batches."""

import dataclasses
import math
import sys
import time

from autograd.backend import array_module, device_of, gpu_memory
from autograd.cuda.ops import HEAD_CHUNK as GPU_HEAD_CHUNK
from autograd.ops.attention import QUERY_BLOCK
from autograd.ops.nn import HEAD_CHUNK
from tinygpt.config import BATCH_SITE

FLOAT = 4  # bytes
PROGRAM = 85e6  # Python, NumPy, matplotlib and OpenBLAS's buffers, measured


def training_memory(model, threads, micro_batch, recompute_blocks, on_gpu=False):
    """Bytes at the peak of a training step, for a GPTConfig: weights and moments, and per thread gradients
    and tape.

    On a GPU those of its memory, without what CUDA takes for itself.
    """
    parameters = model.num_parameters()
    activations = activation_floats(model, micro_batch, recompute_blocks, on_gpu)
    return (0 if on_gpu else PROGRAM) + FLOAT * (3 * parameters + threads * (parameters + activations))


def activation_floats(model, micro_batch, recompute_blocks, on_gpu=False):
    """Floats that a micro-batch needs at its peak: what the blocks keep, and the largest temporary arrays on
    top.
    """
    C, V, T, H = model.n_embd, model.vocab_size, model.block_size, model.n_head
    tokens = micro_batch * T
    if on_gpu:  # every query has all T weights, and masks are drawn again instead of kept
        scores, masks, chunk = H * T, 0, max(256 * V, GPU_HEAD_CHUNK)
        in_attention = tokens * H * T * (2 if model.dropout else 1)
    else:
        stops = [min(start + QUERY_BLOCK, T) for start in range(0, T, QUERY_BLOCK)]
        # per token
        scores = H * sum((stop - start) * stop for start, stop in zip([0, *stops], stops, strict=False)) / T
        masks, chunk = (2 * C + H * T) / 4 if model.dropout else 0, max(256 * V, HEAD_CHUNK)
        in_attention = 3 * micro_batch * H * min(QUERY_BLOCK, T) * T
    hidden = 4 * C if model.activation == "relu" else 8 * C
    # norm, qkv, weights, result, norm, MLP, dropout
    block = 2 * C + 3 * C + scores + C + 2 * C + hidden + masks
    blocks = model.n_layer * C + block if recompute_blocks else model.n_layer * block
    in_block = 12 * C * tokens + 4 * C * C + in_attention  # gradients on their way
    in_head = 2 * V * C + (1 if on_gpu else 2) * min(chunk, tokens * V)
    return tokens * (blocks + 4 * C) + max(in_block, in_head)


def available_memory():
    """Bytes that can be had without swapping, or None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def report(config, workers, dataset, stream, steps):
    """The lines about memory and time that train.py prints, with advice if the memory will not do."""
    needed, available = needed_and_available(workers)
    on_gpu = is_on_gpu(workers)
    if not on_gpu:
        needed = max(needed, peak_memory())  # learning a tokenizer may have taken more
    lines = [
        f"memory: about {needed / 1e6:,.0f} MB"
        + " on the GPU" * on_gpu
        + " for each rank" * (workers.ranks.size > 1)
    ]
    if available and needed > available:
        lines[0] += f", but only {available / 1e6:,.0f} MB are free; " + advice_for(workers, available)
    lines.append(
        f"time: about {duration(seconds_per_step(config, workers, dataset, stream) * steps)} of training"
    )
    return "\n".join(lines)


def is_on_gpu(workers):
    return device_of(workers.optimizer.gradient) != "cpu"


def needed_and_available(workers):
    """Bytes that a training step of these Workers needs, and that they can have (0 where the system does not
    say).
    """
    model, on_gpu = workers.replicas[0], is_on_gpu(workers)
    needed = training_memory(
        model.config, workers.threads, workers.micro_batch, model.transformer.recompute_blocks, on_gpu
    )
    return needed, gpu_memory() if on_gpu else (available_memory() or 0) / workers.ranks.neighbours


def out_of_gpu_memory(workers):
    """What to say when a step found too little memory: what it needs, and what would do with less."""
    needed, available = needed_and_available(workers)
    return (
        f"the GPU's memory is full: a step needs about {needed / 1e6:,.0f} MB, and {available / 1e6:,.0f} MB "
        "can be had; " + advice_for(workers, available)
    )


def advice_for(workers, available):
    model = workers.replicas[0].config
    return (
        gpu_advice(model, workers.micro_batch, available) if is_on_gpu(workers) else advice(model, available)
    )


def advice(model, available):
    """The mildest change that would fit into so many bytes."""
    for threads, recompute, flags in (
        (2, False, "--micro-batch 1 --threads 2"),
        (1, False, "--micro-batch 1 --threads 1"),
        (1, True, "--micro-batch 1 --threads 1 --activation-checkpointing"),
    ):
        if training_memory(model, threads, 1, recompute) < 0.9 * available:
            return f"try {flags}"
    return _smaller_model(model, available, on_gpu=False)


def gpu_advice(model, micro_batch, available):
    """The same on a GPU that was to take `micro_batch` sequences at once: the most that fit, halving."""
    tries = [(micro_batch >> i, False) for i in range(1, micro_batch.bit_length())] + [(1, True)]
    for sequences, recompute in tries:
        if training_memory(model, 1, sequences, recompute, on_gpu=True) < 0.9 * available:
            return f"try --micro-batch {sequences}" + " --activation-checkpointing" * recompute
    return _smaller_model(model, available, on_gpu=True)


def _smaller_model(model, available, on_gpu):
    half = dataclasses.replace(model, block_size=math.ceil(model.block_size / 2))
    fits = training_memory(half, 1, 1, True, on_gpu) < 0.9 * available
    return f"try --block-size {half.block_size}" if fits else "try a smaller model"


def seconds_per_step(config, workers, dataset, stream):
    """Measured on one round of micro-batches (the second: the first fills caches), scaled up to the whole
    batch.
    """
    rows = min(config.batch_size, workers.threads * workers.micro_batch * workers.ranks.size)
    ids, targets = dataset.batch("train", rows, stream.at(step=0, site=BATCH_SITE))
    for _ in range(2):
        began = time.perf_counter()
        float(workers.loss_and_gradients(ids, targets, stream))  # float() waits for a GPU
        seconds = time.perf_counter() - began
    return seconds * config.batch_size / rows


def duration(seconds):
    """A time as a person would say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def peak_memory(workers=None):
    """Bytes of this process's largest resident set so far; or of the GPU's memory, if these Workers are on
    one.
    """
    if workers and is_on_gpu(workers):
        return array_module(workers.optimizer.gradient).get_default_memory_pool().total_bytes()
    try:  # getrusage would do, but on Linux it also counts what the parent held when it started this process
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
