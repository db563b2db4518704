"""What a run will need, said before step 0: memory from the shapes, time from one round of micro-batches."""

import dataclasses
import math
import sys
import time

from autograd import Stream
from autograd.backend import array_module, device_of, gpu_memory
from autograd.cuda.ops import GPU_LOGITS_AT_ONCE, queries_at_once
from autograd.ops.attention import query_block
from autograd.ops.nn import rows_at_once
from tinygpt.config import BATCH_SITE, GPTConfig, TrainConfig

FLOAT = 4  # bytes
PROGRAM = 85e6  # bytes of Python, NumPy, matplotlib and OpenBLAS's buffers, measured
FORK = 18e6  # bytes of these that a worker process holds for itself, measured


# --- memory ---------------------------------------------------------------------------------------


def training_memory(
    model: GPTConfig, threads: int, micro_batch: int, recompute_blocks: bool, on_gpu: bool = False
) -> float:
    """Bytes at the peak of a training step: weights and moments, and for each thread gradients and tape.

    On a GPU these are bytes of its memory, without what CUDA itself takes.
    """
    parameters = model.num_parameters()
    activations = activation_floats(model, micro_batch, recompute_blocks, on_gpu)
    program = 0 if on_gpu else PROGRAM + (threads - 1) * FORK
    weights_and_moments = 3 * parameters
    return program + FLOAT * (weights_and_moments + threads * (parameters + activations))


def activation_floats(
    model: GPTConfig, micro_batch: int, recompute_blocks: bool, on_gpu: bool = False
) -> float:
    """Floats that a micro-batch needs at its peak: what the blocks keep, and the largest temporary arrays."""
    C, V, T, H = model.n_embd, model.vocab_size, model.block_size, model.n_head
    tokens = micro_batch * T

    if on_gpu:
        scores = 2 * H  # per token: two numbers for each row of weights, which are computed again
        masks = 0  # drawn again in the backward pass instead of kept
        # Temporary arrays of a block's backward pass: around the MLP, or around attention with the scores of
        # some queries and their gradients. By then what the MLP kept is free. (CuPy's pool was seen to take
        # room for both where blocks are computed again.)
        in_mlp = 10 * C * tokens
        in_attention = 3 * C * tokens + 2 * micro_batch * H * queries_at_once(micro_batch, H, T) * T
        in_block = in_mlp + in_attention if recompute_blocks else max(in_mlp, in_attention)
        beside = C
        logits = min(max(256 * V, GPU_LOGITS_AT_ONCE), tokens * V)
    else:
        scores = H * _keys_per_query(T)
        masks = (2 * C + H * T) / 4 if model.dropout else 0  # a byte for each element
        in_block, beside = 12 * C * tokens + 3 * micro_batch * H * min(query_block(T), T) * T, 4 * C
        rows = rows_at_once(C, V)
        logits = rows * V if tokens > rows else max(0, tokens - C) * V  # beside two arrays like the weight

    # what a block keeps per token
    norms, qkv, attended = 2 * 2 * C, 3 * C, C
    hidden = 4 * C if model.activation == "relu" else 8 * C
    block = norms + qkv + scores + attended + hidden + masks
    if recompute_blocks:  # each block keeps its input only; one at a time has its activations
        blocks = model.n_layer * C + block
    else:
        blocks = model.n_layer * block

    # temporary arrays: those of a block's backward pass, or those of the head with the loss
    in_head = 2 * V * C + logits
    return tokens * (blocks + beside) + max(in_block + 4 * C * C, in_head)


def _keys_per_query(T):
    """How many attention weights a query has on average on a CPU.

    A block of queries is computed at once, each with all keys up to the last of these queries.
    """
    weights, size = 0, query_block(T)
    for start in range(0, T, size):
        stop = min(start + size, T)
        weights += (stop - start) * stop
    return weights / T


def available_memory() -> int | None:
    """Bytes that a process can still take without swapping, or None where the system does not say."""
    return _bytes_in("/proc/meminfo", "MemAvailable")


def peak_memory(workers=None) -> int:
    """The most bytes that this process and the forks of its Workers have held so far.

    Of the GPU's memory, if the Workers use one.
    """
    if workers and is_on_gpu(workers):
        return array_module(workers.optimizer.gradient).get_default_memory_pool().total_bytes()
    # What a fork has freed it keeps for the next step, so what it holds now is its peak.
    return _own_peak() + (workers.forks.private_memory() if workers and workers.forks else 0)


def _own_peak():
    # Linux's getrusage also counts what the parent held when it started this process, so this comes first.
    peak = _bytes_in("/proc/self/status", "VmHWM")
    if peak is not None:
        return peak

    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _bytes_in(path, name):
    """The number, in bytes, on the line `name: 123 kB` of one of Linux's files; None without that line."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(f"{name}:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


# --- what train.py prints -------------------------------------------------------------------------


def report(config: TrainConfig, workers, dataset, stream: Stream, steps: int, evaluation_steps: float) -> str:
    """The lines about memory and time that train.py prints, with advice if the memory is too small.

    evaluation_steps: what all evaluations will take, in training steps (Job.evaluation_steps).

    It runs a few micro-batches, so all ranks must call it together.
    """
    needed, available = needed_and_available(workers)
    if is_on_gpu(workers):
        memory = f"memory: about {needed / 1e6:,.0f} MB on the GPU"
    else:
        needed = max(needed, peak_memory(workers))  # learning a tokenizer may have taken more
        memory = f"memory: about {needed / 1e6:,.0f} MB"
    if workers.ranks.size > 1:
        memory += " for each rank"
    if available and needed > available:
        memory += f", but only {available / 1e6:,.0f} MB are free; {advice_for(workers, available)}"
    seconds = seconds_per_step(config, workers, dataset, stream)
    training, evaluating = duration(seconds * steps), duration(seconds * evaluation_steps)
    return f"{memory}\ntime: about {training} of training, and {evaluating} of evaluations"


def is_on_gpu(workers) -> bool:
    return device_of(workers.optimizer.gradient) != "cpu"


def needed_and_available(workers) -> tuple[float, float]:
    """Bytes that a training step of these Workers needs, and bytes that it can have.

    The second is 0 where the system does not say.
    """
    model, on_gpu = workers.replicas[0], is_on_gpu(workers)
    needed = training_memory(
        model.config, workers.threads, workers.micro_batch, model.transformer.recompute_blocks, on_gpu
    )
    if on_gpu:
        return needed, gpu_memory()
    return needed, (available_memory() or 0) / workers.ranks.local_size


def out_of_gpu_memory(workers) -> str:
    """The error message for a step that found too little memory: what it needs, and what to try."""
    needed, available = needed_and_available(workers)
    return (
        f"the GPU's memory is full: a step needs about {needed / 1e6:,.0f} MB, and {available / 1e6:,.0f} MB "
        f"are available; {advice_for(workers, available)}"
    )


def advice_for(workers, available: float) -> str:
    model = workers.replicas[0].config
    if is_on_gpu(workers):
        return gpu_advice(model, workers.micro_batch, available)
    return advice(model, available)


def advice(model: GPTConfig, available: float) -> str:
    """The smallest change with which a step on a CPU would fit into so many bytes."""
    for threads, recompute, flags in (
        (2, False, "--micro-batch 1 --threads 2"),
        (1, False, "--micro-batch 1 --threads 1"),
        (1, True, "--micro-batch 1 --threads 1 --activation-checkpointing"),
    ):
        if training_memory(model, threads, 1, recompute) < 0.9 * available:
            return f"try {flags}"
    return _smaller_model(model, available, on_gpu=False)


def gpu_advice(model: GPTConfig, micro_batch: int, available: float) -> str:
    """The same for a GPU that had no room for `micro_batch` sequences at once: halve them until they fit."""
    sequences = micro_batch // 2
    while sequences:
        if training_memory(model, 1, sequences, recompute_blocks=False, on_gpu=True) < 0.9 * available:
            return f"try --micro-batch {sequences}"
        sequences //= 2
    if training_memory(model, 1, 1, recompute_blocks=True, on_gpu=True) < 0.9 * available:
        return "try --micro-batch 1 --activation-checkpointing"
    return _smaller_model(model, available, on_gpu=True)


def _smaller_model(model, available, on_gpu):
    half = dataclasses.replace(model, block_size=math.ceil(model.block_size / 2))
    if training_memory(half, 1, 1, True, on_gpu) < 0.9 * available:
        return f"try --block-size {half.block_size}"
    return "try a smaller model"


def seconds_per_step(config: TrainConfig, workers, dataset, stream: Stream) -> float:
    """Seconds that a step will take, measured on one round of micro-batches and scaled up to the whole batch.

    It is the second round that counts: the first one fills caches. All ranks must call this together.
    """
    rows = min(config.batch_size, workers.threads * workers.micro_batch * workers.ranks.size)
    ids, targets = dataset.batch("train", rows, stream.at(step=0, site=BATCH_SITE))
    for _ in range(2):
        began = time.perf_counter()
        float(workers.loss_and_gradients(ids, targets, stream))  # float() waits for a GPU
        seconds = time.perf_counter() - began
    return seconds * config.batch_size / rows


def duration(seconds: float) -> str:
    """A time as a person would say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
