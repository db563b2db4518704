"""Training on several ranks: what it takes here, a model of a step, and what that predicts elsewhere.

`python -m benchmarks.ranks` measures sums over 2 and 4 ranks and steps on 1, 2 and 4 ranks of one thread. It
trains the laptop preset on 2 ranks of one thread and in one process of 2 threads. Then it fits

    step(n) = compute / n + update + communication(n)
    communication(n) = 2 log2(n) latency + 2 (n - 1) / n * bytes / bandwidth

with the communication of the best algorithms for a sum. It writes results/ranks.json and, from that alone,
ranks.md and results/ranks.png. `--quick` does a little of each and writes into --out only. `--page` writes
the page again, with the GPU's step from results/gpu.json if it has been measured.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import RESULTS, ROOT, processor, save
from benchmarks.step import CONFIGURATIONS, Step, floor_flops
from benchmarks.training import metrics
from tinygpt.config import PRESETS
from tinygpt.parallel.ranks import ALONE, start_ranks

SUMS = [2**k for k in range(12, 28, 3)]  # bytes
COUNTS = [2**k for k in range(11)]  # ranks to predict for: 1 to 1,024
MODELS = {"10.8 M": ("shakespeare", 64), "124 M": ("gpt2", 512)}  # configuration, sequences of a usual batch
WORTH, GOOD = 0.5, 0.8  # efficiencies: below the first, ranks are wasted; the second is worth aiming at

# Not measured here: (bytes per second in each direction, seconds per message). The rates are four fifths of
# the nominal ones.
NETWORKS = {"10 Gbit/s": (1e9, 30e-6), "100 Gbit/s": (10e9, 5e-6), "NVLink": (360e9, 3e-6)}
GPU_FLOPS = 100e12  # until results/gpu.json says better: an H200 in TF32 at a fifth of its peak
GPU_BYTES = 3.8e12  # bytes per second of its memory, four fifths of the nominal rate
UPDATE_BYTES = 28  # per parameter that AdamW reads and writes: gradient, and value and two moments twice


# --- on the ranks ---------------------------------------------------------------------------------


def measure_sum(ranks, size, repeats):
    """Median seconds that adding up `size` bytes takes."""
    array, times = np.zeros(size // 4, np.float32), []
    for _ in range(repeats + 2):
        ranks.barrier()
        began = time.perf_counter()
        ranks.all_reduce(array)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


class TimedRanks:
    """Ranks that note how long their sums took, waiting for the others included."""

    def __init__(self, ranks):
        self.ranks, self.seconds = ranks, 0.0

    def __getattr__(self, name):
        return getattr(self.ranks, name)

    def all_reduce(self, array):
        began = time.perf_counter()
        total = self.ranks.all_reduce(array)
        self.seconds += time.perf_counter() - began
        return total


def measure_step(ranks, configuration, steps, threads):
    """Median seconds of a step and of its parts, after one step that is not counted."""
    timed = TimedRanks(ranks)
    step = Step(*CONFIGURATIONS[configuration], ranks=timed, threads=threads)
    # one, even if one rank of one thread leaves cores idle
    threadpool_limits(1, user_api="blas")
    rows = []
    for _ in range(steps + 1):
        timed.seconds, began = 0.0, time.perf_counter()
        step.compute()
        added = time.perf_counter()
        step.update()
        ended = time.perf_counter()
        rows.append(
            dict(
                compute=added - began - timed.seconds,
                update=ended - added,
                sums=timed.seconds,
                step=ended - began,
            )
        )
    return {part: statistics.median(row[part] for row in rows[1:]) for part in rows[0]}


# --- starting them --------------------------------------------------------------------------------


def start_command(ranks):
    """The beginning of a command that starts Python on this many ranks."""
    if ranks == 1:
        return [sys.executable]
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not mpiexec:
        raise SystemExit("no mpiexec: pip install -e '.[mpi]'")
    return [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py"]


def on_ranks(ranks, function, *arguments):
    """Call a function of this module on this many ranks. Returns the result of rank 0."""
    call = json.dumps([function.__name__, arguments])
    command = [*start_command(ranks), "-m", "benchmarks.ranks", "--call", call]
    environment = dict(os.environ)
    if ranks > ALONE.cores():
        environment["MPIR_CVAR_POLLS_BEFORE_YIELD"] = "1"  # or a rank that waits keeps its core
    result = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def train_laptop(ranks, threads, steps):
    """A run of the laptop preset: tokens per second, the last validation loss and all losses."""
    preset = PRESETS["laptop"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*start_command(ranks), "train.py", "--preset", "laptop", "--threads", str(threads)]
        command += ["--stop-after", str(steps), "--out", f"{folder}/run"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        lines = metrics(f"{folder}/run")
    last = [line for line in lines if line["event"] == "evaluation"][-1]
    tokens = steps * preset["batch_size"] * preset["block_size"]
    return dict(
        tokens_per_second=tokens / last["training_seconds"],
        val_loss=last["val_loss"],
        losses=[line[name] for line in lines for name in ("loss", "train_loss", "val_loss") if name in line],
    )


def measure(quick):
    report = dict(processor=processor(), cores=ALONE.cores(), sums=[], steps=[])
    for ranks in (2, 4):
        for size in SUMS:
            seconds = on_ranks(ranks, measure_sum, size, 5 if quick else 40)
            report["sums"].append(dict(ranks=ranks, bytes=size, seconds=seconds))
            print(f"{ranks} ranks add up {size:>11,} bytes in {1e3 * seconds:8.3f} ms", flush=True)
    whole = [(1, report["cores"])]  # one process with a thread per core
    every = [(1, 1), (2, 1), (4, 1), *whole]
    for configuration, steps, settings in (
        ("laptop", 5 if quick else 100, every),
        ("shakespeare", 1 if quick else 4, whole if quick else every),
        ("gpt2", 1, whole),
    ):
        for ranks, threads in settings:
            row = on_ranks(ranks, measure_step, configuration, steps, threads)
            report["steps"].append(dict(configuration=configuration, ranks=ranks, threads=threads, **row))
            print(
                f"{configuration}, {ranks} ranks of {threads} threads: {1e3 * row['step']:.1f} ms a step",
                flush=True,
            )
    steps = 30 if quick else PRESETS["laptop"]["max_steps"]
    ranks, threads = train_laptop(2, 1, steps), train_laptop(1, 2, steps)
    losses = zip(ranks.pop("losses"), threads.pop("losses"), strict=True)
    difference = max(abs(a - b) for a, b in losses)
    report["laptop"] = dict(steps=steps, ranks=ranks, threads=threads, largest_difference=difference)
    return report


# --- the model ------------------------------------------------------------------------------------


def communication(ranks, size, bandwidth, latency):
    """Seconds to add up `size` bytes of every rank."""
    return 2 * math.log2(ranks) * latency + 2 * (ranks - 1) / ranks * size / bandwidth


def sharing(report, ranks, threads=1):
    """How many of the ranks' threads take turns on each core of this machine."""
    return max(1.0, ranks * threads / report["cores"])


def fit_network(report):
    """(bandwidth, latency) between processes here: least squares of the relative errors of all sums."""
    rows = []
    for row in report["sums"]:
        at_once = [communication(row["ranks"], row["bytes"], 1, 0), communication(row["ranks"], 0, 1, 1)]
        rows.append([sharing(report, row["ranks"]) * x / row["seconds"] for x in at_once])
    (per_byte, latency), *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)), rcond=None)
    return 1 / per_byte, latency


def fit_step(report, configuration, threads):
    """(seconds per sequence, seconds of the update) of one rank with so many threads and cores to itself."""
    batch, _ = CONFIGURATIONS[configuration]
    rows = [
        row for row in report["steps"] if (row["configuration"], row["threads"]) == (configuration, threads)
    ]
    shares = [sharing(report, row["ranks"], threads) for row in rows]
    compute = [row["compute"] * row["ranks"] / batch / share for row, share in zip(rows, shares, strict=True)]
    update = [row["update"] / share for row, share in zip(rows, shares, strict=True)]
    return statistics.median(compute), statistics.median(update)


def gpu_step(report, configuration):
    """The same for a GPU, from its rate of arithmetic and of memory."""
    per_sequence = floor_flops(1, CONFIGURATIONS[configuration][1]) / report.get("gpu_flops", GPU_FLOPS)
    return per_sequence, UPDATE_BYTES * CONFIGURATIONS[configuration][1].num_parameters() / GPU_BYTES


def gpu_flops():
    """{"gpu_flops": FLOP/s of the GPU's measured step}, or {} if none was measured."""
    file = RESULTS / "gpu.json"
    if not file.is_file():
        return {}
    steps = json.loads(file.read_text(encoding="utf-8")).get("step of reference run", {})
    step = steps.get("ours, tf32", {})
    if "ms" not in step:
        return {}
    return {"gpu_flops": floor_flops(*CONFIGURATIONS["shakespeare"]) / (step["ms"] / 1e3)}


def predict(report):
    """What each model, device and network would bring: a dict for each."""
    rows = []
    for model, (configuration, _) in MODELS.items():
        cpu, gpu = fit_step(report, configuration, report["cores"]), gpu_step(report, configuration)
        rows += [predict_one(model, "CPU", *cpu, network) for network in ("10 Gbit/s", "100 Gbit/s")]
        rows += [predict_one(model, "GPU", *gpu, network) for network in NETWORKS]
    return rows


def predict_one(model, device, compute, update, network):
    """compute: seconds per sequence; update: seconds."""
    configuration, batch = MODELS[model]
    size = 4 * CONFIGURATIONS[configuration][1].num_parameters()
    alone = batch * compute + update
    cost = {n: communication(n, size, *NETWORKS[network]) for n in COUNTS}
    speedup = {n: alone / (batch / n * compute + update + cost[n]) for n in COUNTS if n <= batch}
    largest = cost[COUNTS[-1]]
    needed = GOOD / (1 - GOOD) * largest  # seconds of work beside a sum of all that make its efficiency GOOD
    return dict(
        name=f"{model}, {device}",
        model=model,
        device=device,
        network=network,
        alone=alone,
        speedup=speedup,
        largest=largest,
        pays_up_to=max(n for n, gain in speedup.items() if gain >= WORTH * n),
        sequences=max(1, math.ceil((needed - update) / compute)),
        steps_between=max(1, math.ceil(needed / (compute + update))),
    )


# --- the page -------------------------------------------------------------------------------------


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def sums_table(report):
    network, rows = fit_network(report), {}
    for row in report["sums"]:
        fitted = sharing(report, row["ranks"]) * communication(row["ranks"], row["bytes"], *network)
        line = rows.setdefault(row["bytes"], [f"{row['bytes']:,}"])
        line.append(f"{1e3 * row['seconds']:.3f} ({1e3 * fitted:.3f})")
    return table(["bytes", "2 ranks", "4 ranks"], rows.values())


def steps_table(report):
    rows = []
    for row in report["steps"]:
        batch, shape = CONFIGURATIONS[row["configuration"]]
        compute, update = fit_step(report, row["configuration"], row["threads"])
        sums = communication(row["ranks"], 4 * shape.num_parameters(), *fit_network(report))
        alone = batch / row["ranks"] * compute + update + sums  # if no rank had to share its core
        modelled = sharing(report, row["ranks"], row["threads"]) * alone
        times = [row["compute"], row["update"], row["sums"], row["step"], modelled]
        rows.append(
            [
                row["configuration"],
                f"{row['ranks']} × {row['threads']}",
                *[f"{1e3 * seconds:,.1f}" for seconds in times],
                f"{batch * shape.block_size / row['step']:,.0f}",
            ]
        )
    head = "configuration, ranks × threads, compute, update, sums, step, the model says, tokens/s"
    return table(head.split(", "), rows)


def speedup_table(report):
    counts = (2, 8, 16, 64, 128, 512)
    rows = []
    for row in predict(report):
        gains = [f"{row['speedup'][n]:.3g}" if n in row["speedup"] else "–" for n in counts]
        rows.append([row["name"], row["network"], f"{row['alone']:,.3f} s", *gains, row["pays_up_to"]])
    return table(["", "network", "a step alone", *counts, "pays up to"], rows)


def remedies_table(report):
    rows = []
    for row in predict(report):
        efficiency = row["alone"] / (row["alone"] + row["largest"])
        rows.append(
            [
                row["name"],
                row["network"],
                f"{1e3 * row['largest']:.3g} ms",
                f"{row['sequences']:,}",
                f"{COUNTS[-1] * row['sequences']:,}",
                f"{row['steps_between']:,}",
                f"{efficiency:.1%}",
            ]
        )
    head = ["", "network", "a sum", "sequences per rank", "batch", "or steps between sums"]
    return table([*head, "efficiency with a usual batch each"], rows)


def page(report):
    """The text of ranks.md."""
    bandwidth, latency = fit_network(report)
    laptop = report["laptop"]
    ranks, threads = laptop["ranks"], laptop["threads"]
    networks = "; ".join(
        f"{name}: {rate / 1e9:g} GB/s, {1e6 * delay:g} µs" for name, (rate, delay) in NETWORKS.items()
    )
    batches = " and ".join(f"{batch} sequences for {model}" for model, (_, batch) in MODELS.items())
    gpu = f"{report.get('gpu_flops', GPU_FLOPS) / 1e12:.0f} TFLOP/s, "
    gpu += "as its measured step at 10.8 M" if "gpu_flops" in report else "an assumption,"
    return f"""# Training on many machines: measured here, predicted elsewhere

Written by `python -m benchmarks.ranks` from [results/ranks.json](results/ranks.json). Everything was measured
on one machine, {report["processor"]} with {report["cores"]} cores, where more ranks than cores take turns.
The predictions were not tested.

## The model

    step(n) = compute / n + update + communication(n)
    communication(n) = 2 log2(n) latency + 2 (n - 1) / n * bytes / bandwidth

`n` ranks share a batch, so each computes an n-th of it. Every rank updates all weights. The gradients, 4
bytes for each parameter, are added up once a step. With the best algorithms, a rank sends nearly twice their
bytes, for any number of ranks, in 2 log2(n) messages one after another. Nothing overlaps, since the sum waits
for the last micro-batch.

## Measured

Between processes here: bandwidth {bandwidth / 1e9:.2f} GB/s, latency {1e6 * latency:.0f} µs, fitted.
Milliseconds to add up, measured (and fitted):

{sums_table(report)}

Milliseconds of a step; sums include waiting for the slowest rank:

{steps_table(report)}

The laptop preset, {laptop["steps"]:,} steps: **{ranks["tokens_per_second"]:,.0f} tokens/s on 2 ranks of one
thread, {threads["tokens_per_second"]:,.0f} tokens/s in one process of 2 threads**, validation loss
{ranks["val_loss"]:.4f} and {threads["val_loss"]:.4f}. The largest difference between any two losses of the
runs is {laptop["largest_difference"]:.1g}.

## Predicted

Assumed: {networks}.
A CPU node is this machine. A GPU computes {gpu}
and updates at {GPU_BYTES / 1e12:.1f} TB/s. NVLink joins 8 GPUs, in some machines 72. Beyond that, its rows
are a limit.

**A usual batch, shared by more and more ranks** ({batches}):
how many times as fast as one rank, and the last number of ranks that is at least {WORTH:.0%} efficient. There
can be no more ranks than sequences.

{speedup_table(report)}

**On {COUNTS[-1]:,} ranks** there are two ways to be {GOOD:.0%} efficient. Either each rank computes this many
sequences a step, which makes the batch this large. Or each rank computes one sequence a step, and this many
steps pass between two sums. The last column: a usual batch for every rank.

{remedies_table(report)}

![speed-up predicted](results/ranks.png)

## When it stops paying

- **Take a larger batch first.** It costs nothing to send, since the gradient stays as large as it was. It
  helps as long as the loss per token does not suffer: raise the learning rate with it, and look at the
  validation loss.
- **Then add up less often.** Let each rank take several steps on its own, then average the weights (local
  SGD). The run is no longer the same as on one rank, which is why this program does not do it.
- **Or send less.** Gradients in 16 bits halve the bytes.
- Where *update* takes more time than *compute*, ranks have too few sequences: use fewer ranks with more
  threads each, or let each rank update only its part of the weights.
"""


def plot(report, file):
    """Speed-up against ranks, a panel per model and device."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    predictions = predict(report)
    panels = [(model, device) for model in MODELS for device in ("CPU", "GPU")]
    for axes, (model, device) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        batch = MODELS[model][1]
        for row in predictions:
            if (row["model"], row["device"]) == (model, device):
                counts, gains = list(row["speedup"]), list(row["speedup"].values())
                axes.loglog(counts, gains, marker="o", label=row["network"])
        most = [n for n in COUNTS if n <= batch]
        axes.loglog(most, most, color="black", linewidth=0.8, label="ideal")
        axes.set(
            title=f"{model}, {device}, {batch} sequences a step", xlabel="ranks", ylabel="times one rank"
        )
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=100)


def write(report, folder):
    """ranks.json and ranks.png in folder/results, ranks.md in folder."""
    save("ranks.json", report, folder / "results")
    (folder / "ranks.md").write_text(page(report), encoding="utf-8")
    plot(report, folder / "results" / "ranks.png")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a little of each, within a minute; needs --out")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--out", type=Path, default=RESULTS.parent, help="folder of ranks.md and results/")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        name, arguments = json.loads(args.call)
        print(json.dumps(globals()[name](start_ranks(), *arguments)))
        return
    if args.quick and args.out == RESULTS.parent:
        parser.error("--quick is for trying the program: give another --out")
    if args.page:
        report = json.loads((args.out / "results" / "ranks.json").read_text(encoding="utf-8"))
    else:
        report = measure(args.quick)
    write(report | gpu_flops(), args.out)
    print(f"wrote {args.out / 'ranks.md'}")


if __name__ == "__main__":
    main()
