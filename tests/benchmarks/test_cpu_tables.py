"""The comparison with PyTorch: who wins, who drops out, and that the texts show what was recorded."""

from pathlib import Path

import pytest

import benchmarks
from benchmarks import cpu, cpu_tables

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("report", cpu_tables.recorded(), ids=cpu_tables.file_name)
def test_the_table_of_each_machine_stands_in_the_text(report):
    assert cpu_tables.table_of(report) in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert (benchmarks.RESULTS / f"{cpu_tables.file_name(report)}.json").exists()


def test_the_ratios_of_all_machines_stand_in_the_readme():
    table = cpu_tables.comparison(cpu_tables.recorded())
    assert table.count("\n") > 1 and table in (ROOT / "README.md").read_text(encoding="utf-8")


def turns(calls, name, *milliseconds):
    """A competitor that takes these times, one a round, and notes that it ran."""
    times = iter(milliseconds)

    def call():
        calls.append(name)
        return dict(ms=[next(times)], mb=100.0)

    return call


def test_the_best_of_all_rounds_counts_and_bf16_stands_beside_it():
    calls = []
    peers = {
        "SDPA": turns(calls, "SDPA", 20, 12, 30),
        "lecture": turns(calls, "lecture", 27),  # more than 1.3 times as slow: one round is enough
        "SDPA, bf16": turns(calls, "bf16", 3, 4, 5),
    }
    row = cpu.compare(turns(calls, "ours", 10, 8, 9), peers, rounds=3)
    assert (row["ours_ms"], row["pytorch_ms"], row["best_variant"], row["ratio"]) == (8, 12, "SDPA", 1.5)
    assert row["variants"]["SDPA, bf16"]["ms"] == 3
    assert [calls.count(name) for name in ("ours", "SDPA", "lecture", "bf16")] == [3, 3, 1, 3]
    table = cpu_tables.table_of(dict(machine=MACHINE, configurations=dict(laptop=row | dict(batch=12))))
    assert "| 8.0 ms | 12.0 ms (SDPA) | **1.50 ×** |  | 100 MB | 100 MB | 3.0 ms |" in table


MACHINE = dict(processor="AMD EPYC (Zen 4)", cores=2, gflops=200.0, kernels=["SkylakeX"])


def test_without_pytorch_the_table_has_our_times_alone():
    row = cpu.compare(turns([], "ours", 10, 8), {"SDPA": lambda: None}, rounds=2)
    assert row["ratio"] is None
    assert "| 8.0 ms |  |  |  | 100 MB |  |  |" in cpu_tables.table_of(
        dict(machine=MACHINE, configurations=dict(laptop=row))
    )


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [(25, 17, "X (Zen 4)"), (25, 1, "X (Zen 3)"), (26, 2, "X (Zen 5)"), (6, 143, "X (Sapphire Rapids)"),
     (6, 151, "X (family 6, model 151)")],
)  # fmt: skip
def test_a_processor_is_called_by_its_generation(family, model, name, monkeypatch):
    facts = {"model name": "X", "cpu family": str(family), "model": str(model)}
    monkeypatch.setattr(benchmarks, "cpu_facts", lambda: facts)
    assert benchmarks.processor() == name
    machines = [dict(machine=dict(processor=name, cores=cores)) for cores in (2, 4)]
    assert len({cpu_tables.file_name(machine) for machine in machines}) == 2
