"""On a GPU: is it right, how fast is it, and the reference run. `python -m benchmarks.gpu` (`--full` for the
run).

In this order, each part in a process of its own and written to benchmarks/results/gpu.json and gpu.png as
soon as it is there: the parity tests, a training step of the reference configuration and its kernels one by
one against what large products and copies reach on this card, with --full the 5,000 steps of the reference
run and 10,000 characters of its text, then PyTorch's step in several forms, the slow ones to compile last.
PyTorch is left out where it is missing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

from autograd.backend import choose_device
from autograd.cuda.products import COMPUTE_TYPES, set_precision
from benchmarks import in_own_process
from benchmarks.cpu import CONFIGURATIONS, floor_flops
from tinygpt.config import UserError

RESULTS = Path(__file__).parent / "results"
RUN = Path("runs/gpu-reference")
REFERENCE_LOSS = 1.4787  # of the run that this one repeats
COMPETITORS = {  # name -> (attention form, float32 products, autocast to bfloat16, compiled)
    "SDPA, TF32": ("ScaledDotProduct", "high", False, False),
    "SDPA, fp32": ("ScaledDotProduct", "highest", False, False),
    "SDPA, bf16": ("ScaledDotProduct", "high", True, False),
    "lecture, TF32": ("HeadByHead", "high", False, False),
    "SDPA, TF32, compiled": ("ScaledDotProduct", "high", False, True),
    "SDPA, bf16, compiled": ("ScaledDotProduct", "high", True, True),
}


# --- in a process of its own ----------------------------------------------------------------------


def training(precision="tf32"):
    """A function that queues one training step of the reference configuration, and the module cupy."""
    import cupy

    from autograd import AdamW, Stream
    from tinygpt.model import GPT
    from tinygpt.parallel.workers import Workers

    batch, config = CONFIGURATIONS["shakespeare"]
    set_precision(precision)
    model = GPT(config).to("cuda")
    optimizer = AdamW(model.parameter_groups(0.01), lr=3e-4)
    workers = Workers(model, optimizer, threads=1, micro_batch=batch)
    ids = cupy.asarray(Stream(0).integers(batch * (config.block_size + 1), config.vocab_size)).reshape(
        batch, -1
    )

    def step(number=0):
        workers.loss_and_gradients(ids[:, :-1], ids[:, 1:], Stream(1, step=number))
        optimizer.step(workers.run)

    return step, cupy


def measure_ours(precision, steps=100):
    """Milliseconds per step, the host's share of them, and the GPU memory in MB that was ever in use."""
    step, cupy = training(precision)
    for number in range(10):
        step(number)
    cupy.cuda.get_current_stream().synchronize()
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    queued = time.perf_counter() - began
    cupy.cuda.get_current_stream().synchronize()
    ms = (time.perf_counter() - began) * 1e3 / steps
    return dict(ms=ms, host_ms=queued * 1e3 / steps, mb=cupy.get_default_memory_pool().total_bytes() / 1e6)


def measure_torch(competitor, steps=100):
    import torch

    from benchmarks import peers

    batch, config = CONFIGURATIONS["shakespeare"]
    attention, products, autocast, compiled = COMPETITORS[competitor]
    torch.set_float32_matmul_precision(products)
    model = peers.TorchGPT(config, getattr(peers, attention)).cuda()
    loss = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, config.vocab_size, (batch, config.block_size + 1), device="cuda")

    def step():
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            value = loss(ids[:, :-1], ids[:, 1:])
        value.backward()
        optimizer.step()

    for _ in range(10):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    ms = (time.perf_counter() - began) * 1e3 / steps
    return dict(ms=ms, mb=torch.cuda.max_memory_reserved() / 1e6, version=torch.__version__)


def measure_card(n=8192):
    """What the card reaches: TFLOP/s of a large product in each precision, GB/s of a large copy (read and
    written).
    """
    import cupy

    from autograd.cuda.products import product

    device = cupy.cuda.Device()
    card = dict(name=cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode(), cupy=cupy.__version__)
    a, out = cupy.sin(cupy.arange(n * n, dtype=cupy.float32)).reshape(n, n), cupy.empty((n, n), cupy.float32)
    for precision in COMPUTE_TYPES:
        set_precision(precision)
        card[f"{precision}_tflops"] = 2e-9 * n**3 / milliseconds(cupy, lambda: product(cupy, a, a, out=out))
    many = cupy.empty((8, n, n), cupy.float32)
    card["copy_gb_per_s"] = (
        2e-6 * 4 * many[:4].size / milliseconds(cupy, lambda: cupy.copyto(many[:4], many[4:]))
    )
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


def profile(precision="tf32", steps=5):
    """{kernel or product: its launches, milliseconds and GB/s in a step}: what our own launches take on the
    GPU's clock.

    GB/s counts each array that a launch is given once. What is missing from the whole step are CuPy's own
    kernels.
    """
    from autograd.cuda import ops, optim

    step, cupy = training(precision)
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
            spans.append((label(*args), start, stop, sum({x.data.ptr: x.nbytes for x in arrays}.values())))
            return result

        setattr(module, name, watched)

    watch(ops, "launch", lambda xp, name, *rest: name)
    watch(optim, "launch", lambda xp, name, *rest: name)
    watch(ops, "product", lambda xp, a, b, **options: f"product {a.shape} {b.shape}")
    for number in range(steps):
        step(number)
    cupy.cuda.get_current_stream().synchronize()
    totals = defaultdict(lambda: [0, 0.0, 0])
    for label, start, stop, size in spans:
        total = totals[label]
        total[:] = total[0] + 1, total[1] + cupy.cuda.get_elapsed_time(start, stop), total[2] + size
    slowest_first = sorted(totals.items(), key=lambda item: -item[1][1])
    return {
        k: dict(launches=n / steps, ms=ms / steps, gb_per_s=1e-6 * size / max(ms, 1e-9))
        for k, (n, ms, size) in slowest_first
    }


# --- the report -----------------------------------------------------------------------------------


def parity():
    """The tests marked gpu, in a process of their own."""
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/autograd/cuda/test_gpu.py",
    ]
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
    command = [sys.executable, "train.py", "--preset", "shakespeare", "--device", "cuda", "--data", data]
    command += ["--out", str(RUN), "--overwrite", "--sample-tokens", "500", *extra]
    began = time.perf_counter()
    if subprocess.run(command).returncode:
        return None
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    losses = [line["val_loss"] for line in evaluations]
    text = RESULTS / "gpu_sample.txt"
    began = time.perf_counter()
    sample = [
        sys.executable,
        "-m",
        "tinygpt",
        "sample",
        str(RUN),
        "--device",
        "cuda",
        "--tokens",
        "10000",
        "--out",
        str(text),
    ]
    sampled = subprocess.run(sample).returncode == 0
    return dict(
        seconds=seconds,
        training_seconds=evaluations[-1]["training_seconds"],
        best_val_loss=min(losses),
        last_val_loss=losses[-1],
        sample_seconds=time.perf_counter() - began if sampled else None,
        evaluations=[{key: line[key] for key in ("step", "train_loss", "val_loss")} for line in evaluations],
    )


def best_of_turns(calls, turns):
    """{name: the turn with the least time} of calls that take turns (A B C, A B C); those that fail are left
    out.
    """
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
    save(report)
    ours = {f"ours, {p}": partial(in_own_process, measure_ours, p) for p in COMPUTE_TYPES}
    report["step"] = best_of_turns(ours, turns=1)
    report["profile"] = in_own_process(profile)
    save(report)
    if full:
        report["reference_run"] = reference_run(data)
        save(report)
    if warm_up:
        schedule = ["--learning-rate", "1e-3", "--warmup-steps", "100", "--min-lr", "1e-4"]
        report["warm_up_and_cosine"] = reference_run(data, schedule)
        save(report)
    theirs = {name: partial(in_own_process, measure_torch, name, timeout=200) for name in COMPETITORS}
    compiled = {name: call for name, call in theirs.items() if COMPETITORS[name][3]}
    for calls, turns in (
        (ours | {name: theirs[name] for name in theirs if name not in compiled}, 2),
        (compiled, 1),
    ):
        report["step"] |= best_of_turns(calls, turns)
        save(report)
    return report


def save(report):
    """gpu.json and gpu.png as far as they are known."""
    RESULTS.mkdir(exist_ok=True)
    flops = floor_flops(*CONFIGURATIONS["shakespeare"])
    for row in report.get("step", {}).values():
        row["tflops"] = flops * 1e-9 / row["ms"]
    (RESULTS / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
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
