"""On a GPU: is it right, how fast is it, and the reference run.

On a machine with a GPU one command runs everything; it needs no network if FILE is Tiny Shakespeare:
    python -m benchmarks.gpu --full --data FILE --out FOLDER
FOLDER then has gpu.json and gpu.png, and in reference/ the record of the reference run (reference_run.py),
which belongs in benchmarks/reference/. Exit code 1: a part failed; the others are there.

The parts, in this order: what large products and copies reach on this card; the parity tests; the kernels of
a training step one by one, beside their estimate; with --full the 5,000 steps of the reference run and 10,000
characters of its text; a step of three configurations, ours and PyTorch's in turns. Each measurement runs in
a process of its own and has a time limit. A part that fails does not end the rest. What is known is written
after each. Without PyTorch, its steps are left out.

`--estimate` prints how long a step would take by its bytes and flops. That needs no GPU.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from autograd import PRECISIONS
from autograd.backend import choose_device
from benchmarks import RESULTS, ROOT, call_command, on_gpu
from benchmarks.estimate import CARDS, NUMBERS, card_from, estimate, print_estimate
from benchmarks.reference_run import BEST_PUBLISHED, record
from benchmarks.step import GPU_CONFIGURATIONS, floor_flops
from benchmarks.training import evaluations
from tinygpt.config import UserError, require
from tinygpt.run import files
from tinygpt.text.corpus import load_documents

RUN = Path("runs/gpu-reference")
PROFILED = ("reference run", "GPT-2, 124 M")
TURNS = 2
LIMITS = dict(measurement=200, compiling=400, parity=900, run=3600, sample=600)  # seconds
SCHEDULE = ["--learning-rate", "1e-3", "--warmup-steps", "100", "--min-lr", "1e-4"]  # of --warm-up


class Failed(Exception):
    """A part that could not be measured, and why, in one line."""


# --- other processes ------------------------------------------------------------------------------


def run_within(seconds, command, **options):
    """The finished process of a command. Failed if it takes longer; then all its processes are ended."""
    with subprocess.Popen(command, start_new_session=True, text=True, **options) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except BaseException as problem:  # Ctrl-C too, which a process in its own session does not get
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(problem, subprocess.TimeoutExpired):
                raise Failed(f"took more than {seconds} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def measured(function, *args, limit=LIMITS["measurement"], **kwargs):
    """What a function returns in a process of its own. Failed if it raises, or takes too long."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    result = run_within(limit, call_command(function, args, kwargs), cwd=ROOT, **pipes)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise Failed(lines[-1] if lines else f"ended with code {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


# --- the parts ------------------------------------------------------------------------------------


def parity():
    """The tests marked gpu."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command.append("tests/autograd/cuda/test_gpu.py")
    result = run_within(LIMITS["parity"], command, cwd=ROOT, stdout=subprocess.PIPE)
    lines = result.stdout.strip().splitlines() or [""]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print("\n".join([*failures, "parity: " + lines[-1]]), flush=True)
    seconds = time.perf_counter() - began
    found = dict(summary=lines[-1], failures=failures, seconds=seconds)
    if result.returncode:
        found["failed"] = lines[-1] or f"pytest ended with code {result.returncode}"
    return found


def kernels(configuration, card):
    """The kernels and products of a step as measured, and as estimated for the card that this one is."""
    name = next((known for known in CARDS if known in card.get("name", "").upper().replace(" ", "")), None)
    rows, expected = measured(on_gpu.profile, configuration), {"rows": {}}
    try:
        expected = measured(estimate_for, configuration, name) if name else expected
    except Failed as error:  # what was measured counts more
        expected["failed"] = str(error)
    print_kernels(rows, expected["rows"])
    return dict(estimate=expected, rows=rows)


def estimate_for(configuration, card_name):
    """The estimate, in a process of its own: it takes CuPy's place."""
    return estimate(configuration, CARDS[card_name])


def reference_run(data, folder, extra=()):
    """Train the reference configuration with train.py itself, and sample 10,000 characters from it."""
    train = [sys.executable, ROOT / "train.py", "--preset", "shakespeare", "--device", "cuda", "--data", data]
    train += ["--out", RUN, "--overwrite", "--sample-tokens", "500", *extra]
    began = time.perf_counter()
    code = run_within(LIMITS["run"], train).returncode
    if code:
        raise Failed(f"train.py ended with code {code}")
    seconds, points = time.perf_counter() - began, evaluations(RUN)
    losses = [point["val_loss"] for point in points]
    return dict(
        seconds=seconds,
        training_seconds=points[-1]["training_seconds"],
        best_val_loss=min(losses),
        last_val_loss=losses[-1],
        evaluations=[{key: point[key] for key in ("step", "train_loss", "val_loss")} for point in points],
        sample=sample(folder / "sample.txt"),
    )


def sample(file):
    """{"seconds": those of 10,000 characters of the reference run}, or why there are none."""
    command = [sys.executable, "-m", "tinygpt", "sample", RUN.resolve(), "--device", "cuda"]
    command += ["--tokens", "10000", "--out", file.resolve()]
    file.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        code = run_within(LIMITS["sample"], command, cwd=ROOT).returncode
    except Failed as error:
        return dict(failed=str(error))
    return dict(failed=f"ended with code {code}") if code else dict(seconds=time.perf_counter() - began)


def steps(configuration, keep):
    """{name: its fastest turn}: ours in each precision and PyTorch's forms, in turns (A B C, A B C).

    keep(what is known so far) is called after each turn. One that fails is tried no more.
    """
    ours = on_gpu.measure_ours
    calls = {f"ours, {each}": partial(measured, ours, configuration, each) for each in PRECISIONS}
    if importlib.util.find_spec("torch"):
        for name, competitor in on_gpu.COMPETITORS.items():
            limit = LIMITS["compiling" if competitor.compiled else "measurement"]
            calls[name] = partial(measured, on_gpu.measure_torch, configuration, name, limit=limit)
    flops, best = floor_flops(*GPU_CONFIGURATIONS[configuration]), {}
    for _ in range(TURNS):
        for name, call in calls.items():
            if "failed" in best.get(name, {}):
                continue
            try:
                turn = call()
                turn["tflops"] = flops * 1e-9 / turn["ms"]
                best[name] = min(turn, best.get(name, turn), key=lambda each: each["ms"])
                print(f"  {name:24} {turn['ms']:8.2f} ms {turn['mb']:8.0f} MB", flush=True)
            except Failed as error:
                best[name] = best.get(name, {}) | {"failed": str(error)}
                print(f"  {name:24} {error}", flush=True)
            keep(best)
    return best


# --- the report -----------------------------------------------------------------------------------


class Report:
    """What is known so far, in FOLDER/gpu.json and gpu.png. A part that failed says so under "failed"."""

    def __init__(self, folder):
        self.folder, self.parts = folder, {}

    def add(self, name, function, *args):
        """Carry out a part and write down what it found, or why it failed."""
        print(f"--- {name}", flush=True)
        try:
            self.keep(name, function(*args))
        except Exception as error:  # whatever it is, the other parts can still be measured
            reason = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            print(f"  {reason}", flush=True)
            self.keep(name, self.parts.get(name, {}) | {"failed": reason})

    def keep(self, name, found):
        self.parts[name] = found
        text = json.dumps(self.parts, indent=1, ensure_ascii=False) + "\n"
        files.write(self.folder / "gpu.json", text)

    def failures(self):
        """["part: reason"], also of what is inside a part."""
        return list(_failures(self.parts, ""))


def _failures(found, place):
    for key, value in found.items():
        if key == "failed":
            yield f"{place}: {value}"
        elif isinstance(value, dict):
            yield from _failures(value, f"{place}, {key}" if place else key)


def run_all(report, data, full, warm_up):
    """Carry out all parts."""
    report.add("card", measured, on_gpu.measure_card)
    print(json.dumps(report.parts["card"]), flush=True)
    report.add("parity", parity)
    for configuration in PROFILED:
        report.add(f"kernels of {configuration}", kernels, configuration, report.parts["card"])
    if full:
        folder = report.folder / "reference"
        report.add("reference run", reference_run, data, folder)
        if "failed" not in report.parts["reference run"]:
            card = report.parts["card"].get("name", "a GPU")
            report.add("record of the reference run", record, RUN, folder, card)
    for configuration in GPU_CONFIGURATIONS:
        name = f"step of {configuration}"
        report.add(name, steps, configuration, partial(report.keep, name))
    if warm_up:
        report.add("warm-up and cosine", reference_run, data, report.folder / "warm-up", SCHEDULE)
    report.add("picture", plot, report)


def plot(report):
    """gpu.png: the steps of each configuration, and the curve of the reference run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    *bars, curve = figure.subplots(2, 2).flat
    for axes, (configuration, (batch, shape)) in zip(bars, GPU_CONFIGURATIONS.items(), strict=True):
        rows = turns_of(report, configuration)[::-1]
        colors = ["C1" if "ours" in name else "C0" for name, _ in rows]
        axes.barh([name for name, _ in rows], [row["ms"] for _, row in rows], color=colors)
        axes.set(xlabel="ms", title=f"a step of {configuration}, {batch} × {shape.block_size}")
    figure.suptitle(report.parts["card"].get("name", "an unknown card"))
    if "evaluations" in (run := report.parts.get("reference run", {})):
        each = run["evaluations"]
        for key, label in (("train_loss", "train"), ("val_loss", "validation")):
            curve.plot([e["step"] for e in each], [e[key] for e in each], marker="o", label=label)
        label = f"the published run's best, {BEST_PUBLISHED}"
        curve.axhline(BEST_PUBLISHED, color="black", linewidth=0.8, label=label)
        title = f"{run['seconds']:.0f} s, best {run['best_val_loss']:.4f}"
        curve.set(xlabel="step", ylabel="nats per character", title=title)
        curve.legend()
    else:
        curve.set_axis_off()
    figure.savefig(report.folder / "gpu.png", dpi=110)
    return {}


def turns_of(report, configuration):
    """[(name, its fastest turn)] of a configuration, the fastest first, without those that failed."""
    found = report.parts[f"step of {configuration}"].items()
    rows = [(name, row) for name, row in found if isinstance(row, dict) and "ms" in row]
    return sorted(rows, key=lambda item: item[1]["ms"])


def print_kernels(rows, expected):
    print(f"  {'measured, and estimated':56}       ms        ms")
    for label, row in rows.items():
        beside = f"{expected[label]['ms']:8.3f}" if label in expected else " " * 8
        print(f"  {label:50} {row['launches']:4.0f} x {row['ms']:8.3f} {beside} {row['gb_per_s']:8.0f} GB/s")


def print_table(report):
    for configuration in GPU_CONFIGURATIONS:
        print(f"a step of {configuration}")
        for name, row in turns_of(report, configuration):
            print(
                f"  {name:24} {row['ms']:8.2f} ms, host {row['host_ms']:6.2f} ms, "
                f"{row['tflops']:6.1f} TFLOP/s, {row['mb']:6.0f} MB"
            )
    for name in ("reference run", "warm-up and cosine"):
        if "seconds" in (run := report.parts.get(name, {})):
            print(
                f"{name}: {run['seconds']:.1f} s, validation loss {run['best_val_loss']:.4f} (last "
                f"{run['last_val_loss']:.4f})"
            )


# --- the command ----------------------------------------------------------------------------------


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--full", action="store_true", help="also the reference run, 5,000 steps")
    add("--warm-up", action="store_true", help="and once more with warm-up, cosine and lr 1e-3")
    add("--data", default="shakespeare", help="the text of the reference run (default: shakespeare)")
    text = "for the report (default: benchmarks/results)"
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help=text)
    text = f"print the estimate for a card (default: H100; known: {', '.join(CARDS)}) and do nothing else"
    add("--estimate", nargs="?", const="H100", choices=tuple(CARDS), metavar="CARD", help=text)
    add("--precision", default="tf32", choices=PRECISIONS, help="of the estimate (default: tf32)")
    for name in NUMBERS:
        add("--" + name.replace("_", "-"), type=float, help="of the card, instead of what is known of it")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    numbers = {name: getattr(args, name) for name in NUMBERS}
    for name, value in numbers.items():
        flag = "--" + name.replace("_", "-")
        require(value is None or value > 0, f"{flag} is {value}; it must be more than 0")
        require(value is None or args.estimate, f"{flag} is for --estimate")
    if args.estimate:
        for configuration in GPU_CONFIGURATIONS:
            found = estimate(configuration, card_from(args.estimate, **numbers), args.precision)
            print_estimate(configuration, found)
        return
    os.environ.setdefault("CUPY_CACHE_DIR", str(Path.home() / ".cupy" / "kernel_cache"))
    try:
        choose_device("cuda")
    except RuntimeError as error:
        raise UserError(str(error)) from None
    if args.full or args.warm_up:  # an hour later would be a bad time to learn that there is none
        load_documents(args.data)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {args.out}: {error.strerror}") from None
    report = Report(args.out)
    run_all(report, args.data, args.full, args.warm_up)
    print_table(report)
    if report.failures():
        print("\n".join(["not everything could be measured:", *report.failures()]))
        sys.exit(1)


if __name__ == "__main__":
    from tinygpt.cli import exit_with_code

    exit_with_code(main)
