"""The results of benchmarks.cpu as Markdown, for README and for users who send theirs."""

import json
import re

from benchmarks import RESULTS

WHAT = {
    "shakespeare": "a step at 10.8 M parameters, batch {batch} × 256",
    "laptop": "a step at 0.8 M, batch {batch} × 64",
    "gpt2": "a step of GPT-2, 124 M, batch {batch} × 1,024",
    "sampling": "a sampled token, 10.8 M, until the context is full",
    "sampling_full": "a sampled token with a full context, exact",
}
USUAL_BATCH = {"shakespeare": 64, "laptop": 12, "gpt2": 4}


def file_name(report):
    """A name for a machine's files: cpu-amd-epyc-zen-4-2-cores."""
    machine = report["machine"]
    return "cpu-" + re.sub(r"\W+", "-", f"{machine['processor']} {machine['cores']} cores".lower()).strip("-")


def recorded():
    """The reports of all machines, fastest first."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("cpu-*.json")]
    return sorted(reports, key=lambda report: -report["machine"]["gflops"])


def all_tables():
    """How many times as fast as PyTorch on each machine, and each machine's own table."""
    return "\n\n".join([comparison(recorded()), *map(table_of, recorded())])


def comparison(reports):
    """A row per machine: PyTorch's time as a multiple of ours."""
    lines = [
        "| processor, cores | 10.8 M | 0.8 M | GPT-2, 124 M | sampling | with a full context |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        rows = report["configurations"]
        ratios = [f"{rows[name]['ratio']:.2f} ×" if rows.get(name, {}).get("ratio") else "" for name in WHAT]
        lines.append(f"| {_machine(report)} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def table_of(report):
    """A machine's table: times, memory, and how far the step is from its matrix products alone."""
    machine, rows = report["machine"], report["configurations"]
    lines = [
        f"{_machine(report)}: {machine['gflops']:.0f} GFLOP/s in matrix products, OpenBLAS's kernels "
        f"{', '.join(machine['kernels'])}",
        "",
        "| | ours | PyTorch's best | faster | products alone | our memory | PyTorch's | in bf16 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(name, rows[name]) for name in WHAT if name in rows)])


def _line(name, row):
    theirs, ratio, their_memory = "", "", ""
    if row["ratio"]:
        variant = row["best_variant"].replace("lecture", "gpt.py's way")
        theirs, ratio = f"{_time(row['pytorch_ms'])} ({variant})", f"**{row['ratio']:.2f} ×**"
        their_memory = f"{row['pytorch_mb']:,.0f} MB"
        whole = row.get("pytorch_whole_batch_mb")
        if whole and "micro-batches" in row["best_variant"]:
            their_memory += f"; whole batch {whole:,.0f} MB"
    floor = (
        f"{_time(row['floor_ms'])}, ours is {row['ours_ms'] / row['floor_ms']:.2f} ×"
        if "floor_ms" in row
        else ""
    )
    bf16 = [result["ms"] for variant, result in row["variants"].items() if variant.endswith("bf16")]
    cells = [
        WHAT[name].format(batch=row.get("batch", USUAL_BATCH.get(name))),
        _time(row["ours_ms"]),
        theirs,
        ratio,
        floor,
        f"{row['ours_mb']:,.0f} MB",
        their_memory,
        _time(min(bf16)) if bf16 else "",
    ]
    return f"| {' | '.join(cells)} |"


def progress(name, row):
    """A line while the benchmark runs."""
    line = f"{name:16} ours {_time(row['ours_ms'])}"
    if not row["ratio"]:
        return f"{line} (no PyTorch: pip install -e '.[bench]')"
    others = ", ".join(f"{variant} {_time(result['ms'])}" for variant, result in row["variants"].items())
    return f"{line}; PyTorch: {others}"


def _machine(report):
    return f"{report['machine']['processor']}, {report['machine']['cores']} cores"


def _time(ms):
    return f"{ms / 1e3:.1f} s" if ms >= 1000 else f"{ms:.1f} ms"
