"""Ours against PyTorch on this CPU: `python -m benchmarks.cpu` (full), `--quick` (two minutes), `--profile`.

Every measurement runs in a process of its own, so that its peak memory is its own, and the competitors take
turns (A B C, A B C), so that a slow minute of the machine hits them all. Times are the best of all steps of a
competitor. Writes benchmarks/results/cpu.json and cpu.png; PyTorch has to be installed for the comparison.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

from benchmarks import in_own_process
from tinygpt.config import ARCHITECTURES, GPTConfig

RESULTS = Path(__file__).parent / "results"
REFERENCE, GPT2 = ARCHITECTURES["reference"], ARCHITECTURES["gpt2"]
CONFIGURATIONS = {  # name -> (batch, model)
    "shakespeare": (64, GPTConfig(65, 256, 6, 6, 384, 0.2, **REFERENCE)),
    "laptop": (12, GPTConfig(65, 64, 4, 4, 128, 0.0, **REFERENCE)),
    "gpt2": (4, GPTConfig(50_257, 1024, 12, 12, 768, 0.0, **GPT2)),
}
STEPS = {"shakespeare": 2, "laptop": 60, "gpt2": 1}  # timed steps per process, after one that warms up
VARIANTS = {  # name -> (attention form, sequences per micro-batch, compiled)
    "lecture": ("HeadByHead", None, False),
    "lecture, micro-batches": ("HeadByHead", 4, False),
    "SDPA": ("ScaledDotProduct", None, False),
    "SDPA, micro-batches": ("ScaledDotProduct", 4, False),
    "SDPA, compiled": ("ScaledDotProduct", None, True),
}
GROWTH = {  # what is varied around the laptop's model, batch 12
    "batch": [("batch", n) for n in (3, 6, 12, 24, 48)],
    "context": [("block_size", n) for n in (32, 64, 128, 256, 512)],
    "width": [("n_embd", n) for n in (64, 128, 256, 512)],
    "depth": [("n_layer", n) for n in (1, 2, 4, 8)],
    "vocabulary": [("vocab_size", n) for n in (65, 1000, 4000, 16_000, 50_000)],
}


# --- in a process of its own ----------------------------------------------------------------------


def measure_ours(configuration, steps, threads=0, micro_batch=0, **changes):
    """Milliseconds of each step, and the process's peak memory in MB."""
    import dataclasses

    from autograd import AdamW, Stream
    from tinygpt.config import TrainConfig
    from tinygpt.model import GPT
    from tinygpt.parallel import estimate
    from tinygpt.parallel.workers import Workers, choose_division

    batch, model_config = CONFIGURATIONS[configuration]
    batch = changes.pop("batch", batch)
    model_config = dataclasses.replace(model_config, **changes)
    model = GPT(model_config)
    optimizer = AdamW(model.parameter_groups(0.01), lr=3e-4)
    shape = {name: getattr(model_config, name) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    config = TrainConfig(batch_size=batch, threads=threads, micro_batch=micro_batch, **shape)
    chosen = choose_division(config, model_config)
    workers = Workers(model, optimizer, *chosen)
    ids = (
        Stream(0).integers(batch * (model_config.block_size + 1), model_config.vocab_size).reshape(batch, -1)
    )
    stream = Stream(1) if model_config.dropout else None

    def step():
        workers.loss_and_gradients(ids[:, :-1], ids[:, 1:], stream)
        optimizer.step(workers.run)

    times = timed(step, steps)
    predicted = estimate.training_memory(model_config, *chosen, recompute_blocks=False)
    return dict(
        ms=times,
        mb=estimate.peak_memory() / 1e6,
        predicted_mb=predicted / 1e6,
        threads=chosen[0],
        micro_batch=chosen[1],
    )


def measure_torch(configuration, steps, variant):
    import torch

    from benchmarks import peers
    from tinygpt.parallel.estimate import peak_memory

    batch, config = CONFIGURATIONS[configuration]
    attention, micro_batch, compiled = VARIANTS[variant]
    micro_batch = min(micro_batch or batch, batch) if configuration != "gpt2" or not micro_batch else 1
    model = peers.TorchGPT(config, getattr(peers, attention))
    loss = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    ids = torch.randint(0, config.vocab_size, (batch, config.block_size + 1))

    def step():
        optimizer.zero_grad()
        for part in ids.split(micro_batch):
            (loss(part[:, :-1], part[:, 1:]) * (len(part) / batch)).backward()
        optimizer.step()

    times = timed(step, steps)
    return dict(ms=times, mb=peak_memory() / 1e6)


def sample_ours(tokens, full):
    """Milliseconds per token for one sequence at 10.8M: until the context is full, or with a full one."""
    from autograd import Stream
    from tinygpt.generate import generate
    from tinygpt.model import GPT
    from tinygpt.parallel.estimate import peak_memory

    config = CONFIGURATIONS["shakespeare"][1]
    model, prompt = GPT(config), Stream(0).integers(config.block_size if full else 1, 65)
    return dict(
        ms=[t / tokens for t in timed(lambda: list(generate(model, prompt, tokens)), 1)],
        mb=peak_memory() / 1e6,
    )


def sample_torch(tokens, full):
    import torch

    from benchmarks import peers
    from tinygpt.parallel.estimate import peak_memory

    config = CONFIGURATIONS["shakespeare"][1]
    model = peers.TorchGPT(config, peers.HeadByHead).eval()
    prompt = torch.randint(0, 65, (1, config.block_size if full else 1))
    return dict(
        ms=[t / tokens for t in timed(lambda: model.generate(prompt, tokens), 1)], mb=peak_memory() / 1e6
    )


def timed(function, repeats):
    """Milliseconds of each call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def measure_rate(cores):
    """GFLOP/s of float32 matrix products of the sizes that occur, one BLAS thread on each core."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from threadpoolctl import threadpool_info, threadpool_limits

    shapes = [(1024, 384, 1536), (1024, 1536, 384), (384, 1024, 1536), (1024, 384, 1152)]

    def work(_):
        rates = []
        for n, k, m in shapes:
            x, y = np.ones((n, k), np.float32), np.ones((k, m), np.float32)
            out = np.empty((n, m), np.float32)
            rates.append(
                2e-6 * n * k * m / min(timed(lambda x=x, y=y, out=out: np.matmul(x, y, out=out), 40))
            )
        return sum(rates) / len(rates)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        rate = max(sum(pool.map(work, range(cores))) for _ in range(3))
    return dict(
        gflops=rate, kernels=sorted({i["architecture"] for i in threadpool_info() if i["user_api"] == "blas"})
    )


def profile(configuration, steps):
    """Milliseconds per step in each operation, forward and backward, with one worker."""
    from collections import defaultdict

    import autograd as ag

    spent = defaultdict(float)

    def watch(name, function):
        def watched(*args, **kwargs):
            began = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name] += time.perf_counter() - began
            return result

        return watched

    def watch_operation(operation):
        forward, name = (
            watch(operation.__name__ + ", forward", operation.raw),
            operation.__name__ + ", backward",
        )

        def raw(*args, **kwargs):
            output, vjps = forward(*args, **kwargs)
            vjps = (vjps,) if callable(vjps) else vjps
            return output, tuple(vjp and watch(name, vjp) for vjp in vjps)

        operation.raw = raw

    for operation in vars(ag).values():
        if hasattr(operation, "raw"):
            watch_operation(operation)
    micro_batch = max(1, 1024 // CONFIGURATIONS[configuration][1].block_size)
    result = measure_ours(configuration, steps, threads=1, micro_batch=micro_batch)
    total = sum(result["ms"]) / len(result["ms"])
    per_step = {name: 1e3 * seconds / (steps + 1) for name, seconds in spent.items()}
    return dict(total_ms=total, operations=dict(sorted(per_step.items(), key=lambda item: -item[1])))


# --- the comparison -------------------------------------------------------------------------------


def merge(results):
    """The best time and the largest memory of a competitor's turns."""
    results = [result for result in results if result]
    if not results:
        return None
    return results[0] | dict(ms=min(min(r["ms"]) for r in results), mb=max(r["mb"] for r in results))


def compare(ours, peers, rounds):
    """Let all competitors take turns; ours is a call, peers a dict of calls.

    A summary with PyTorch's best variant.
    """
    turns = {name: [] for name in ["ours", *peers]}
    for _ in range(rounds):
        for name, call in {"ours": ours, **peers}.items():
            turns[name].append(call())
    merged = {name: merge(results) for name, results in turns.items()}
    mine, theirs = merged.pop("ours"), {name: result for name, result in merged.items() if result}
    summary = dict(
        ours_ms=mine["ms"], ours_mb=mine["mb"], pytorch_ms=None, pytorch_mb=None, ratio=None, variants=theirs
    )
    summary |= {key: mine[key] for key in ("threads", "micro_batch", "predicted_mb") if key in mine}
    if theirs:
        best = min(theirs, key=lambda name: theirs[name]["ms"])
        summary |= dict(best_variant=best, pytorch_ms=theirs[best]["ms"], pytorch_mb=theirs[best]["mb"])
        summary["ratio"] = summary["pytorch_ms"] / mine["ms"]
        whole = [result["mb"] for name, result in theirs.items() if "micro-batches" not in name]
        # as people run it, without micro-batches
        summary["pytorch_whole_batch_mb"] = min(whole, default=None)
    return summary


def floor_flops(batch, config):
    """Floating-point operations of a step's matrix products: 6 per weight and token, and the full square of
    attention.
    """
    C, L, T = config.n_embd, config.n_layer, config.block_size
    weights = 12 * L * C * C + C * config.vocab_size
    return batch * T * (6 * weights + 12 * L * T * C)


def print_row(name, row):
    if row["ratio"] is None:
        print(f"{name:16} ours {row['ours_ms']:10.1f} ms {row['ours_mb']:7.0f} MB   (no PyTorch)", flush=True)
        return
    for variant, result in row["variants"].items():
        print(f"{name:16}      {result['ms']:10.1f} ms {result['mb']:7.0f} MB   PyTorch, {variant}")
    print(
        f"{name:16} ours {row['ours_ms']:10.1f} ms {row['ours_mb']:7.0f} MB   {row['ratio']:.2f} times as "
        f"fast as PyTorch's best, in 1/{row['pytorch_mb'] / row['ours_mb']:.1f} of its memory",
        flush=True,
    )


def run_all(quick, compiled):
    cores = len(os.sched_getaffinity(0))
    rate = in_own_process(measure_rate, cores)
    report = dict(
        machine=dict(cores=cores, processor=processor(), python=platform.python_version(), **rate),
        configurations={},
    )
    print(
        f"{processor()}, {cores} cores, OpenBLAS kernels {rate['kernels']}: {rate['gflops']:.0f} GFLOP/s in "
        "matrix products"
    )
    rows = report["configurations"]
    variants = [name for name in VARIANTS if compiled or "compiled" not in name]
    for name in ("laptop", "shakespeare", "gpt2"):
        chosen = (
            ["lecture", "SDPA"]
            if quick and name == "laptop"
            else ["SDPA, micro-batches"]
            if quick
            else variants
        )
        if name == "gpt2":
            if quick:
                continue
            chosen = ["SDPA", "SDPA, micro-batches"]
        steps = 1 if quick and name == "shakespeare" else STEPS[name]
        peers = {
            v: lambda v=v, name=name, steps=steps: in_own_process(measure_torch, name, steps, v)
            for v in chosen
        }
        rounds = 1 if quick or name == "gpt2" else 2
        rows[name] = compare(
            lambda name=name, steps=steps: in_own_process(measure_ours, name, steps), peers, rounds
        )
        rows[name]["floor_ms"] = floor_flops(*CONFIGURATIONS[name]) / rate["gflops"] / 1e6
        print_row(name, rows[name])
        print(f"{name:16} its matrix products alone would take {rows[name]['floor_ms']:.1f} ms", flush=True)
        save(report)
    for name, full, tokens in (("sampling", False, 255), ("sampling_full", True, 24)):
        peers = {"lecture": lambda full=full, tokens=tokens: in_own_process(sample_torch, tokens, full)}
        rows[name] = compare(
            lambda full=full, tokens=tokens: in_own_process(sample_ours, tokens, full),
            peers,
            1 if quick else 2,
        )
        print_row(name, rows[name])
        save(report)
    if not quick:
        report["profile"] = {name: in_own_process(profile, name, 1) for name in ("shakespeare", "laptop")}
        report["growth"] = {
            what: [growth_point(*point) for point in points] for what, points in GROWTH.items()
        }
        save(report)
    plot(report)


def growth_point(name, value):
    changes = {name: value} | ({"n_head": max(1, value // 32)} if name == "n_embd" else {})
    result = in_own_process(measure_ours, "laptop", 10, **changes)
    print(f"  {name} {value}: {min(result['ms']):.1f} ms, {result['mb']:.0f} MB", flush=True)
    return dict(value=value, ms=min(result["ms"]), mb=result["mb"], predicted_mb=result["predicted_mb"])


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def save(report):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cpu.json").write_text(json.dumps(report, indent=1) + "\n")


def plot(report):
    """cpu.png: time and memory relative to ours, and how our step grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    rows = {name: row for name, row in report["configurations"].items() if row["ratio"]}
    bars, lines = figure.subplots(1, 2)
    positions = range(len(rows))
    bars.bar([p - 0.2 for p in positions], [row["ratio"] for row in rows.values()], 0.4, label="time")
    memory = [row["pytorch_mb"] / row["ours_mb"] for row in rows.values()]
    bars.bar([p + 0.2 for p in positions], memory, 0.4, label="memory")
    bars.axhline(1, color="black", linewidth=0.8)
    bars.set_xticks(list(positions), list(rows), rotation=15)
    bars.set(title="PyTorch's best variant, as a multiple of ours", ylabel="times ours")
    bars.legend()
    for what, points in report.get("growth", {}).items():
        lines.loglog([p["value"] for p in points], [p["ms"] for p in points], marker="o", label=what)
    lines.set(title="our step around the laptop configuration", xlabel="batch, context, ...", ylabel="ms")
    if lines.lines:
        lines.legend()
    figure.savefig(RESULTS / "cpu.png", dpi=110)


def print_profile():
    for name in ("shakespeare", "laptop"):
        result = in_own_process(profile, name, 1)
        print(f"{name}, one worker: {result['total_ms']:.0f} ms per step")
        for operation, ms in result["operations"].items():
            print(f"  {operation:36} {ms:9.2f} ms {100 * ms / result['total_ms']:5.1f} %")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer competitors and steps, no 124M model: two minutes"
    )
    parser.add_argument(
        "--compile", action="store_true", help="add PyTorch's compiled form (minutes of compiling)"
    )
    parser.add_argument("--profile", action="store_true", help="only show where our step spends its time")
    args = parser.parse_args()
    if args.profile:
        print_profile()
    else:
        run_all(args.quick, args.compile)


if __name__ == "__main__":
    main()
