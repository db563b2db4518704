"""On a GPU: is it right, how fast is it, and the reference run.

`python -m benchmarks.gpu`, with `--full` for the run. The parts, in this order: the parity tests; a training
step of the reference configuration and its kernels one by one, against what large products and copies reach
on this card; with --full the 5,000 steps of the reference run and 10,000 characters of its text; then
PyTorch's step in several forms, and last those that are slow to compile. Each part runs in a process of its
own and is written to benchmarks/results/gpu.json and gpu.png as soon as it is done. Without PyTorch, its part
is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autograd import PRECISIONS, set_precision
from autograd.backend import choose_device
from benchmarks import RESULTS, in_own_process, save
from benchmarks.step import CONFIGURATIONS, Step, floor_flops
from benchmarks.training import evaluations
from tinygpt.config import UserError

RUN = Path("runs/gpu-reference")
REFERENCE_LOSS = 1.4787  # of the run that this one repeats


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


# --- in a process of its own ----------------------------------------------------------------------


def training_step(precision):
    """A function that queues one training step of the reference configuration."""
    set_precision(precision)
    return Step(*CONFIGURATIONS["shakespeare"], device="cuda")


def timed(step, synchronize, steps):
    """Milliseconds per step, and the host's share of them: the time to queue it. Ten steps warm up."""
    for number in range(10):
        step(number)
    synchronize()
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    queued = time.perf_counter() - began
    synchronize()
    return dict(ms=(time.perf_counter() - began) * 1e3 / steps, host_ms=queued * 1e3 / steps)


def measure_ours(precision, steps=100):
    """Milliseconds per step, the host's share of them, and the largest GPU memory in use, in MB."""
    import cupy

    times = timed(training_step(precision), cupy.cuda.get_current_stream().synchronize, steps)
    return dict(**times, mb=cupy.get_default_memory_pool().total_bytes() / 1e6)


def measure_torch(competitor_name, steps=100):
    """The same for one of PyTorch's forms."""
    import torch

    from benchmarks import peers

    batch, shape = CONFIGURATIONS["shakespeare"]
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
    return dict(**times, mb=torch.cuda.max_memory_reserved() / 1e6, version=torch.__version__)


def measure_card(n=8192):
    """What the card reaches.

    TFLOP/s of a large product in each precision, GB/s of a large copy (read and written).
    """
    import cupy

    from autograd.cuda.products import product

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


@dataclass
class Launches:
    """What all launches of a kernel, or all products of some shapes, took together."""

    count: int = 0
    ms: float = 0.0
    bytes: int = 0


def profile(precision="tf32", steps=5):
    """{kernel or product: its launches, milliseconds and GB/s in a step}, the slowest first.

    This is what our own launches take on the GPU's clock. GB/s counts each array that a launch is given once.
    What is missing from the whole step are CuPy's own kernels.
    """
    import cupy

    from autograd.cuda import ops, optim

    step = training_step(precision)
    step()
    spans = []

    def watch(module, name, label):
        function = getattr(module, name)

        def watched(*args, **kwargs):
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            result = function(*args, **kwargs)
            stop.record()
            arrays = [x for x in [*args, result, *kwargs.values()] if isinstance(x, cupy.ndarray)]
            size = sum({x.data.ptr: x.nbytes for x in arrays}.values())
            spans.append((label(*args), start, stop, size))
            return result

        setattr(module, name, watched)

    def kernel_name(xp, kernel, *rest):
        return kernel

    def shapes(xp, a, b, *rest):
        return f"product {a.shape} {b.shape}"

    watch(ops, "launch", kernel_name)
    watch(optim, "launch", kernel_name)
    watch(ops, "product", shapes)
    for number in range(steps):
        step(number)
    cupy.cuda.get_current_stream().synchronize()
    totals = defaultdict(Launches)
    for label, start, stop, size in spans:
        total = totals[label]
        total.count += 1
        total.ms += cupy.cuda.get_elapsed_time(start, stop)
        total.bytes += size
    slowest_first = sorted(totals.items(), key=lambda item: -item[1].ms)
    return {
        label: dict(
            launches=total.count / steps,
            ms=total.ms / steps,
            gb_per_s=1e-6 * total.bytes / max(total.ms, 1e-9),
        )
        for label, total in slowest_first
    }


# --- the report -----------------------------------------------------------------------------------


def parity():
    """The tests marked gpu, in a process of their own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command.append("tests/autograd/cuda/test_gpu.py")
    result = subprocess.run(command, capture_output=True, text=True)
    lines = result.stdout.strip().splitlines() or [""]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print("\n".join([*failures, "parity: " + lines[-1]]), flush=True)
    return dict(
        passed=result.returncode == 0,
        summary=lines[-1],
        failures=failures,
        seconds=time.perf_counter() - began,
    )


def reference_run(data, extra=()):
    """Train the reference configuration with train.py itself, and sample 10,000 characters from it."""
    train = [sys.executable, "train.py", "--preset", "shakespeare", "--device", "cuda", "--data", data]
    train += ["--out", str(RUN), "--overwrite", "--sample-tokens", "500", *extra]
    began = time.perf_counter()
    if subprocess.run(train).returncode:
        return None
    seconds = time.perf_counter() - began
    points = evaluations(RUN)
    losses = [point["val_loss"] for point in points]
    sample = [sys.executable, "-m", "tinygpt", "sample", str(RUN), "--device", "cuda", "--tokens", "10000"]
    sample += ["--out", str(RESULTS / "gpu_sample.txt")]
    began = time.perf_counter()
    sampled = subprocess.run(sample).returncode == 0
    return dict(
        seconds=seconds,
        training_seconds=points[-1]["training_seconds"],
        best_val_loss=min(losses),
        last_val_loss=losses[-1],
        sample_seconds=time.perf_counter() - began if sampled else None,
        evaluations=[{key: point[key] for key in ("step", "train_loss", "val_loss")} for point in points],
    )


def best_of_turns(calls, turns):
    """{name: its fastest turn} of calls that take turns (A B C, A B C). Calls that fail are left out."""
    best = {}
    for _ in range(turns):
        for name, call in calls.items():
            if result := call():
                print(f"  {name:24} {result['ms']:8.2f} ms {result['mb']:8.0f} MB", flush=True)
                best[name] = min(result, best.get(name, result), key=lambda turn: turn["ms"])
    return best


def run_all(full, warm_up, data):
    report = dict(card=in_own_process(measure_card))
    print(json.dumps(report["card"]), flush=True)
    report["parity"] = parity()
    write(report)
    ours = {f"ours, {name}": partial(in_own_process, measure_ours, name) for name in PRECISIONS}
    report["step"] = best_of_turns(ours, turns=1)
    report["profile"] = in_own_process(profile)
    write(report)
    if full:
        report["reference_run"] = reference_run(data)
        write(report)
    if warm_up:
        schedule = ["--learning-rate", "1e-3", "--warmup-steps", "100", "--min-lr", "1e-4"]
        report["warm_up_and_cosine"] = reference_run(data, schedule)
        write(report)
    theirs = {True: {}, False: {}}  # compiled or not -> name -> call
    for name, competitor in COMPETITORS.items():
        theirs[competitor.compiled][name] = partial(in_own_process, measure_torch, name, timeout=200)
    for calls, turns in ((ours | theirs[False], 2), (theirs[True], 1)):
        report["step"] |= best_of_turns(calls, turns)
        write(report)
    return report


def write(report):
    """gpu.json and gpu.png, with what is known so far."""
    flops = floor_flops(*CONFIGURATIONS["shakespeare"])
    for row in report.get("step", {}).values():
        row["tflops"] = flops * 1e-9 / row["ms"]
    save("gpu.json", report)
    if "step" in report:
        plot(report)


def plot(report):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    bars, curve = figure.subplots(1, 2)
    rows = sorted(report["step"].items(), key=lambda item: -item[1]["ms"])
    bars.barh(
        [name for name, _ in rows],
        [row["ms"] for _, row in rows],
        color=["C1" if "ours" in n else "C0" for n, _ in rows],
    )
    bars.set(xlabel="ms", title=f"a step of the reference run, {report['card']['name']}")
    if run := report.get("reference_run"):
        steps = [e["step"] for e in run["evaluations"]]
        for key, label in (("train_loss", "train"), ("val_loss", "validation")):
            curve.plot(steps, [e[key] for e in run["evaluations"]], marker="o", label=label)
        curve.axhline(
            REFERENCE_LOSS, color="black", linewidth=0.8, label=f"the original's best, {REFERENCE_LOSS}"
        )
        curve.set(
            xlabel="step",
            ylabel="nats per character",
            title=f"{run['seconds']:.0f} s, best {run['best_val_loss']:.4f}",
        )
        curve.legend()
    figure.savefig(RESULTS / "gpu.png", dpi=110)


def print_table(report):
    for name, row in sorted(report["step"].items(), key=lambda item: item[1]["ms"]):
        print(f"{name:24} {row['ms']:8.2f} ms {row['tflops']:7.1f} TFLOP/s {row['mb']:8.0f} MB")
    for name, row in (report["profile"] or {}).items():
        print(f"  {name:60} {row['launches']:5.0f} x {row['ms']:8.3f} ms {row['gb_per_s']:8.0f} GB/s")
    for name in ("reference_run", "warm_up_and_cosine"):
        if run := report.get(name):
            print(
                f"{name}: {run['seconds']:.1f} s, validation loss {run['best_val_loss']:.4f} (last "
                f"{run['last_val_loss']:.4f})"
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="also the reference run, 5,000 steps")
    parser.add_argument(
        "--warm-up", action="store_true", help="and once more with warm-up, cosine and lr 1e-3"
    )
    parser.add_argument(
        "--data", default="shakespeare", help="the text of the reference run (default: shakespeare)"
    )
    args = parser.parse_args()
    os.environ.setdefault("CUPY_CACHE_DIR", str(Path.home() / ".cupy" / "kernel_cache"))
    try:
        choose_device("cuda")
    except RuntimeError as error:
        raise UserError(str(error)) from None
    print_table(run_all(args.full, args.warm_up, args.data))


if __name__ == "__main__":
    from tinygpt.cli import exit_with_code

    exit_with_code(main)
