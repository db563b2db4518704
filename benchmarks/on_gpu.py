"""What benchmarks.gpu measures on a GPU, each function in a process of its own."""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from autograd import PRECISIONS, set_precision
from autograd.cuda.products import product
from benchmarks.estimate import Row, watching
from benchmarks.step import GPU_CONFIGURATIONS, Step


@dataclass(frozen=True)
class Competitor:
    """A form of PyTorch's step.

    attention: a class in peers.py; products: PyTorch's word for the precision of float32 products.
    """

    attention: str
    products: str = "high"
    bf16: bool = False  # autocast to bfloat16
    compiled: bool = False


COMPETITORS = {
    "SDPA, TF32": Competitor("ScaledDotProduct"),
    "SDPA, fp32": Competitor("ScaledDotProduct", products="highest"),
    "SDPA, bf16": Competitor("ScaledDotProduct", bf16=True),
    "lecture, TF32": Competitor("HeadByHead"),
    "SDPA, TF32, compiled": Competitor("ScaledDotProduct", compiled=True),
    "SDPA, bf16, compiled": Competitor("ScaledDotProduct", bf16=True, compiled=True),
}
WARM_UP, HOST_STEPS = 10, 5  # steps


def training_step(configuration, precision):
    """A function that queues one training step."""
    set_precision(precision)
    return Step(*GPU_CONFIGURATIONS[configuration], device="cuda")


def timed(step, synchronize, steps):
    """Milliseconds per step, and of the host: its time to queue a step when nothing else is queued.

    A GPU takes about a thousand launches before the host has to wait for it. So the host's time is that of
    single steps, each after a wait.
    """
    for number in range(WARM_UP):
        step(number)
    synchronize()
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    synchronize()
    ms, host_ms = (time.perf_counter() - began) * 1e3 / steps, []
    for number in range(HOST_STEPS):
        began = time.perf_counter()
        step(number)
        host_ms.append((time.perf_counter() - began) * 1e3)
        synchronize()
    return dict(ms=ms, host_ms=min(host_ms))


def measure_ours(configuration, precision, steps=100):
    """Milliseconds per step, those of the host, and the MB of the GPU's memory that are in use."""
    import cupy

    times = timed(training_step(configuration, precision), cupy.cuda.get_current_stream().synchronize, steps)
    return dict(**times, mb=memory_in_use(*cupy.cuda.runtime.memGetInfo()))


def memory_in_use(free, total):
    """MB. The driver counts everything: arrays that wait for reuse, cuBLAS's workspace, CUDA itself."""
    return (total - free) / 1e6


def measure_torch(configuration, competitor_name, steps=100):
    """The same for one of PyTorch's forms."""
    import torch

    from benchmarks import peers

    batch, shape = GPU_CONFIGURATIONS[configuration]
    competitor = COMPETITORS[competitor_name]
    torch.set_float32_matmul_precision(competitor.products)
    model = peers.TorchGPT(shape, getattr(peers, competitor.attention)).cuda()
    loss = torch.compile(model) if competitor.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, shape.vocab_size, (batch, shape.block_size + 1), device="cuda")

    def step(number):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=competitor.bf16):
            value = loss(ids[:, :-1], ids[:, 1:])
        value.backward()
        optimizer.step()

    times = timed(step, torch.cuda.synchronize, steps)
    return dict(**times, mb=memory_in_use(*torch.cuda.mem_get_info()), version=torch.__version__)


def measure_card(n=8192):
    """What the card reaches.

    TFLOP/s of a large product in each precision, GB/s of a large copy (read and written).
    """
    import cupy

    device = cupy.cuda.Device()
    card = dict(name=cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode(), cupy=cupy.__version__)
    a = cupy.sin(cupy.arange(n * n, dtype=cupy.float32)).reshape(n, n)
    out = cupy.empty((n, n), cupy.float32)
    for precision in PRECISIONS:
        set_precision(precision)
        ms = milliseconds(cupy, lambda: product(cupy, a, a, out=out))
        card[f"{precision}_tflops"] = 2e-9 * n**3 / ms
    many = cupy.empty((8, n, n), cupy.float32)
    ms = milliseconds(cupy, lambda: cupy.copyto(many[:4], many[4:]))
    card["copy_gb_per_s"] = 2e-6 * many[:4].nbytes / ms
    return card


def milliseconds(cupy, function, repeats=10):
    """On the GPU's clock, the best of several, after two that do not count."""
    times = []
    for _ in range(repeats + 2):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        function()
        stop.record()
        stop.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, stop))
    return min(times[2:])


SPIN = """extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}"""


def hold(cupy, cycles=100_000_000):
    """Keep the GPU busy for so many cycles (that many take about 0.06 s): what is queued waits until then."""
    cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(cycles),))


def profile(configuration, precision="tf32", steps=5):
    """{kernel or product: its launches, milliseconds and GB/s in a step}, the slowest first.

    This is what our own launches take on the GPU's clock. Before each step the host waits, and then holds the
    GPU until it is ahead: no launch is measured with the host's time for it. What is missing from the whole
    step are CuPy's own kernels.
    """
    import cupy

    synchronize = cupy.cuda.get_current_stream().synchronize
    step, spans = training_step(configuration, precision), []
    step()

    def observe(call, describe):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        result = call()
        stop.record()
        spans.append((describe(result), start, stop))
        return result

    with watching(observe):
        for number in range(steps):
            synchronize()
            hold(cupy)
            step(number)
    synchronize()
    totals = defaultdict(Row)
    for work, start, stop in spans:
        totals[work.label].add(work, cupy.cuda.get_elapsed_time(start, stop), "")
    return {
        label: dict(
            launches=row.launches / steps,
            ms=row.ms / steps,
            gb_per_s=1e-6 * row.bytes / max(row.ms, 1e-9),
        )
        for label, row in sorted(totals.items(), key=lambda item: -item[1].ms)
    }
