"""Ours against PyTorch on this CPU: `python -m benchmarks.cpu` (half an hour), `--quick` (two minutes).

Every measurement runs in a process of its own, so that its peak memory is its own. The competitors take
turns (A B C, A B C), so that a slow minute of the machine hits them all. The time of a competitor is the best
of all its steps. Writes benchmarks/results/cpu-NAME.json and .png, with the processor's name, and prints the
same table as `--table` does of all such files. The comparison needs PyTorch.
"""

import argparse
import dataclasses
import os
import platform
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from autograd import optim
from benchmarks import RESULTS, cpu_facts, in_own_process, processor, save
from benchmarks import cpu_tables as tables
from benchmarks.step import CONFIGURATIONS, Step, floor_flops
from tinygpt.parallel import estimate


@dataclass(frozen=True)
class Variant:
    """A form of PyTorch's GPT: its attention (a class in peers.py) and how it is run."""

    attention: str
    micro_batches: bool = False
    compiled: bool = False
    bf16: bool = False  # other arithmetic: matrix products of numbers with 8 significant bits


VARIANTS = {
    "lecture": Variant("HeadByHead"),
    "lecture, micro-batches": Variant("HeadByHead", micro_batches=True),
    "SDPA": Variant("ScaledDotProduct"),
    "SDPA, micro-batches": Variant("ScaledDotProduct", micro_batches=True),
    "SDPA, compiled": Variant("ScaledDotProduct", compiled=True),
    "SDPA, bf16": Variant("ScaledDotProduct", bf16=True),
    "SDPA, micro-batches, bf16": Variant("ScaledDotProduct", micro_batches=True, bf16=True),
}
MICRO_BATCH = {"shakespeare": 4, "laptop": 4, "gpt2": 1}  # sequences, where PyTorch uses micro-batches
STEPS = {"laptop": 60, "shakespeare": 2, "gpt2": 1}  # timed steps per process, after one that warms up
QUICK_BATCH = {"shakespeare": 16, "laptop": 12, "gpt2": 1}  # a step's time grows with the batch
ROUNDS = 3
HOPELESS = 1.3  # who was so many times slower than the best in the first round does not run again
SAMPLING = {"sampling": (False, 255), "sampling_full": (True, 24)}  # starts with a full context, tokens
GROWTH = {  # what is varied around the laptop's model, batch 12
    "batch": [("batch", n) for n in (3, 6, 12, 24, 48)],
    "context": [("block_size", n) for n in (32, 64, 128, 256, 512)],
    "width": [("n_embd", n) for n in (64, 128, 256, 512)],
    "depth": [("n_layer", n) for n in (1, 2, 4, 8)],
    "vocabulary": [("vocab_size", n) for n in (65, 1000, 4000, 16_000, 50_000)],
}


# --- in a process of its own ----------------------------------------------------------------------


def measure_ours(configuration, steps, threads=0, micro_batch=0, batch=None, **changes):
    """Milliseconds of each step, and the process's peak memory in MB.

    batch and changes (of the model's shape) differ from the configuration.
    """
    usual_batch, shape = CONFIGURATIONS[configuration]
    shape = dataclasses.replace(shape, **changes)
    step = Step(batch or usual_batch, shape, threads=threads, micro_batch=micro_batch)
    times = timed(step, steps)
    predicted = estimate.training_memory(shape, step.threads, step.micro_batch, recompute_blocks=False)
    return dict(
        ms=times,
        mb=estimate.peak_memory(step.workers) / 1e6,
        predicted_mb=predicted / 1e6,
        threads=step.threads,
        micro_batch=step.micro_batch,
    )


def measure_torch(configuration, steps, variant_name, batch=None):
    """The same for a variant of PyTorch's."""
    import torch

    from benchmarks import peers

    usual_batch, shape = CONFIGURATIONS[configuration]
    batch, variant = batch or usual_batch, VARIANTS[variant_name]
    micro_batch = MICRO_BATCH[configuration] if variant.micro_batches else batch
    model = peers.TorchGPT(shape, getattr(peers, variant.attention))
    loss = torch.compile(model) if variant.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    ids = torch.randint(0, shape.vocab_size, (batch, shape.block_size + 1))

    def step():
        optimizer.zero_grad()
        for part in ids.split(micro_batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=variant.bf16):
                mean = loss(part[:, :-1], part[:, 1:])
            (mean * (len(part) / batch)).backward()
        optimizer.step()

    return dict(ms=timed(step, steps), mb=estimate.peak_memory() / 1e6)


def sample_ours(tokens, full):
    """Milliseconds per token for one sequence at 10.8 M: until the context is full, or with a full one."""
    from autograd import Stream
    from tinygpt.generate import generate
    from tinygpt.model import GPT

    shape = CONFIGURATIONS["shakespeare"][1]
    model = GPT(shape)
    prompt = Stream(0).integers(shape.block_size if full else 1, shape.vocab_size)
    (ms,) = timed(lambda: list(generate(model, prompt, tokens)), 1)
    return dict(ms=[ms / tokens], mb=estimate.peak_memory() / 1e6)


def sample_torch(tokens, full):
    """The same for the lecture's way in PyTorch."""
    import torch

    from benchmarks import peers

    shape = CONFIGURATIONS["shakespeare"][1]
    model = peers.TorchGPT(shape, peers.HeadByHead).eval()
    prompt = torch.randint(0, shape.vocab_size, (1, shape.block_size if full else 1))
    (ms,) = timed(lambda: model.generate(prompt, tokens), 1)
    return dict(ms=[ms / tokens], mb=estimate.peak_memory() / 1e6)


def timed(function, repeats):
    """Milliseconds of each call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def measure_checks(steps):
    """Milliseconds of a laptop's step, and of what AdamW checks and counts in it."""
    batch, shape = CONFIGURATIONS["laptop"]
    step = Step(batch, shape)

    def checks():
        for group in step.optimizer.groups:
            optim._updates(group)

    return dict(step=min(timed(step, steps)), checks=min(timed(checks, 10 * steps)))


def measure_rate(cores):
    """GFLOP/s of float32 matrix products of the sizes that occur, one BLAS thread on each core."""
    shapes = [(1024, 384, 1536), (1024, 1536, 384), (384, 1024, 1536), (1024, 384, 1152)]

    def rate_of(n, k, m):
        x, y, out = np.ones((n, k), np.float32), np.ones((k, m), np.float32), np.empty((n, m), np.float32)
        return 2e-6 * n * k * m / min(timed(lambda: np.matmul(x, y, out=out), 40))

    def mean_rate(_):
        return sum(rate_of(*shape) for shape in shapes) / len(shapes)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        rate = max(sum(pool.map(mean_rate, range(cores))) for _ in range(3))
    kernels = {library["architecture"] for library in threadpool_info() if library["user_api"] == "blas"}
    return dict(gflops=rate, kernels=sorted(kernels))


def profile(configuration, steps):
    """Milliseconds per step in each operation, forward and backward, with one worker."""
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
        forward = watch(f"{operation.__name__}, forward", operation.raw)

        def raw(*args, **kwargs):
            output, pullbacks = forward(*args, **kwargs)
            pullbacks = (pullbacks,) if callable(pullbacks) else pullbacks
            name = f"{operation.__name__}, backward"
            return output, tuple(pullback and watch(name, pullback) for pullback in pullbacks)

        operation.raw = raw

    for operation in vars(ag).values():
        if hasattr(operation, "raw"):
            watch_operation(operation)
    micro_batch = max(1, 1024 // CONFIGURATIONS[configuration][1].block_size)
    times = measure_ours(configuration, steps, threads=1, micro_batch=micro_batch)["ms"]
    # the step that warms up is watched too
    per_step = {name: 1e3 * seconds / (steps + 1) for name, seconds in spent.items()}
    slowest_first = sorted(per_step.items(), key=lambda item: -item[1])
    return dict(total_ms=sum(times) / len(times), operations=dict(slowest_first))


# --- the comparison -------------------------------------------------------------------------------


def best_of(results):
    """The best time and the largest memory of a competitor's turns; None if all failed."""
    results = [result for result in results if result]
    if not results:
        return None
    return results[0] | dict(ms=min(min(r["ms"]) for r in results), mb=max(r["mb"] for r in results))


def compare(ours, peers, rounds):
    """Let all competitors take turns; ours is a call, peers a dict of calls.

    A summary with PyTorch's best variant in float32; those in bf16 stand beside it.
    """
    turns = {name: [] for name in ["ours", *peers]}
    for number in range(rounds):
        for name, call in {"ours": ours, **peers}.items():
            if number == 0 or not _is_hopeless(name, turns):
                turns[name].append(call())
    best = {name: best_of(results) for name, results in turns.items()}
    mine = best.pop("ours")
    theirs = {name: result for name, result in best.items() if result}
    summary = dict(
        ours_ms=mine["ms"], ours_mb=mine["mb"], pytorch_ms=None, pytorch_mb=None, ratio=None, variants=theirs
    )
    summary |= {key: mine[key] for key in ("threads", "micro_batch", "predicted_mb") if key in mine}
    same_arithmetic = {name: result for name, result in theirs.items() if not _is_bf16(name)}
    if same_arithmetic:
        fastest = min(same_arithmetic, key=lambda name: theirs[name]["ms"])
        summary |= dict(
            best_variant=fastest, pytorch_ms=theirs[fastest]["ms"], pytorch_mb=theirs[fastest]["mb"]
        )
        summary["ratio"] = summary["pytorch_ms"] / mine["ms"]
        # as people run it, without micro-batches
        whole = [result["mb"] for name, result in same_arithmetic.items() if "micro-batches" not in name]
        summary["pytorch_whole_batch_mb"] = min(whole, default=None)
    return summary


def _is_bf16(name):
    return name in VARIANTS and VARIANTS[name].bf16


def _is_hopeless(name, turns):
    """Whether a variant of PyTorch was far slower in the first round than another of its arithmetic."""
    first = {other: results[0] for other, results in turns.items() if other != "ours" and results[0]}
    if name == "ours" or name not in first:
        return name != "ours"
    rivals = [min(result["ms"]) for other, result in first.items() if _is_bf16(other) == _is_bf16(name)]
    return min(first[name]["ms"]) > HOPELESS * min(rivals)


def variants_of(configuration, quick, compiled):
    """The names of PyTorch's variants that compete; those in bf16 only where the processor has it."""
    has_bf16 = {"amx_bf16", "avx512_bf16"} & set(cpu_facts().get("flags", "").split())
    if quick:
        names = ["lecture", "SDPA"] if configuration == "laptop" else ["SDPA, micro-batches"]
    elif configuration == "gpt2":
        names = ["SDPA", "SDPA, micro-batches", "SDPA, micro-batches, bf16"]
    else:
        names = [name for name in VARIANTS if compiled or not VARIANTS[name].compiled]
    if quick and configuration == "laptop":
        names.append("SDPA, bf16")
    return [name for name in names if has_bf16 or not VARIANTS[name].bf16]


def compare_training(configuration, quick, compiled):
    steps = 1 if quick and configuration == "shakespeare" else STEPS[configuration]
    batch = QUICK_BATCH[configuration] if quick else CONFIGURATIONS[configuration][0]
    ours = partial(in_own_process, measure_ours, configuration, steps, batch=batch)
    peers = {
        name: partial(in_own_process, measure_torch, configuration, steps, name, batch=batch)
        for name in variants_of(configuration, quick, compiled)
    }
    return compare(ours, peers, 1 if quick else ROUNDS) | dict(batch=batch)


def compare_sampling(full, tokens, quick):
    ours = partial(in_own_process, sample_ours, tokens, full)
    peers = {"lecture": partial(in_own_process, sample_torch, tokens, full)}
    return compare(ours, peers, 1 if quick else ROUNDS)


def run_all(quick, compiled):
    cores = len(os.sched_getaffinity(0))
    rate = in_own_process(measure_rate, cores)
    machine = dict(cores=cores, processor=processor(), python=platform.python_version(), **rate)
    rows = {}
    report = dict(machine=machine, configurations=rows)

    def keep():
        if not quick:
            save(f"{tables.file_name(report)}.json", report)

    for name in STEPS:
        rows[name] = compare_training(name, quick, compiled)
        rows[name]["floor_ms"] = (
            floor_flops(rows[name]["batch"], CONFIGURATIONS[name][1]) / rate["gflops"] / 1e6
        )
        print(tables.progress(name, rows[name]), flush=True)
        keep()
    for name, (full, tokens) in SAMPLING.items():
        rows[name] = compare_sampling(full, tokens, quick)
        print(tables.progress(name, rows[name]), flush=True)
        keep()
    print(tables.table_of(report))
    if not quick:
        report["profile"] = {name: in_own_process(profile, name, 1) for name in ("shakespeare", "laptop")}
        report["growth"] = {
            what: [growth_point(*point) for point in points] for what, points in GROWTH.items()
        }
        keep()
        plot(report)


def growth_point(name, value):
    changes = {name: value}
    if name == "n_embd":
        changes["n_head"] = max(1, value // 32)
    result = in_own_process(measure_ours, "laptop", 10, **changes)
    print(f"  {name} {value}: {min(result['ms']):.1f} ms, {result['mb']:.0f} MB", flush=True)
    return dict(value=value, ms=min(result["ms"]), mb=result["mb"], predicted_mb=result["predicted_mb"])


def plot(report):
    """Time and memory relative to ours, and how our step grows."""
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
    figure.savefig(RESULTS / f"{tables.file_name(report)}.png", dpi=110)


def print_profile():
    for name in ("shakespeare", "laptop"):
        result = in_own_process(profile, name, 1)
        print(f"{name}, one worker: {result['total_ms']:.0f} ms per step")
        for operation, ms in result["operations"].items():
            print(f"  {operation:36} {ms:9.2f} ms {100 * ms / result['total_ms']:5.1f} %")
    times = in_own_process(measure_checks, 60)
    share = times["checks"] / times["step"]
    checks, step = f"{times['checks'] * 1e3:.0f} µs", f"{times['step']:.1f} ms"
    print(f"laptop: AdamW checks and counts for {checks} of a step of {step}, {share:.2%}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the same table in two minutes, from smaller batches and one round; writes nothing",
    )
    parser.add_argument(
        "--compile", action="store_true", help="add PyTorch's compiled form (minutes of compiling)"
    )
    parser.add_argument("--profile", action="store_true", help="only show where our step spends its time")
    parser.add_argument("--table", action="store_true", help="only print the tables of all recorded runs")
    args = parser.parse_args()
    if args.table:
        print(tables.all_tables())
    elif args.profile:
        print_profile()
    else:
        run_all(args.quick, args.compile)


if __name__ == "__main__":
    main()
