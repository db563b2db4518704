"""The model of a step in benchmarks/ranks.py, and the page written from what it measured."""

import json

import pytest

from benchmarks import RESULTS, ranks
from benchmarks.step import CONFIGURATIONS


def report(bandwidth=2e9, latency=1e-5, compute=0.1, update=0.02, cores=2):
    """What would be measured where the model is exact."""
    sums = [
        dict(
            ranks=n, bytes=size, seconds=max(1, n / cores) * ranks.communication(n, size, bandwidth, latency)
        )
        for n in (2, 4)
        for size in ranks.SUMS
    ]
    steps = []
    for configuration in ("laptop", "shakespeare", "gpt2"):
        for n, threads in ((1, 1), (2, 1), (4, 1), (1, cores)):
            taking_turns = max(1, n * threads / cores)
            parts = dict(
                compute=CONFIGURATIONS[configuration][0] / n * compute * taking_turns,
                update=update * taking_turns,
            )
            steps.append(
                dict(
                    configuration=configuration,
                    ranks=n,
                    threads=threads,
                    sums=0.0,
                    step=sum(parts.values()),
                    **parts,
                )
            )
    run = dict(tokens_per_second=1.0, val_loss=1.0)
    laptop = dict(steps=1, ranks=run, threads=run, largest_difference=0.0)
    return dict(processor="a test", cores=cores, sums=sums, steps=steps, laptop=laptop)


def test_the_fit_finds_what_made_the_measurements():
    assert ranks.fit_network(report()) == pytest.approx((2e9, 1e-5))
    assert ranks.fit_step(report(), "laptop", 1) == pytest.approx((0.1, 0.02))


def test_predictions():
    assert ranks.communication(1, 1000, 1e9, 1e-5) == 0
    assert ranks.communication(4, 1000, 1e3, 0.5) == pytest.approx(2 * 2 * 0.5 + 2 * 3 / 4)
    rows = {(row["model"], row["device"], row["network"]): row for row in ranks.predict(report())}
    assert len(rows) == 10
    row = rows["10.8 M", "CPU", "10 Gbit/s"]
    size = 4 * 10_788_929  # bytes
    step = 64 / 32 * 0.1 + 0.02 + ranks.communication(32, size, *ranks.NETWORKS["10 Gbit/s"])
    assert row["speedup"][32] == pytest.approx((64 * 0.1 + 0.02) / step) and max(row["speedup"]) == 64
    needed = row["sequences"]  # the smallest number for which the sum takes at most a fifth of the step
    assert needed * 0.1 + 0.02 >= 4 * row["largest"] > (needed - 1) * 0.1 + 0.02
    assert all(row["speedup"][row["pays_up_to"]] >= row["pays_up_to"] / 2 for row in rows.values())


def test_the_page_is_that_of_the_measurements():
    file = RESULTS / "ranks.json"
    if not file.exists():
        pytest.skip("not measured yet: python -m benchmarks.ranks")
    written = (RESULTS.parent / "ranks.md").read_text(encoding="utf-8")
    assert written == ranks.page(json.loads(file.read_text())), "run python -m benchmarks.ranks --page"


def test_a_page_can_be_written(tmp_path):
    ranks.write(report() | {"gpu_flops": 5e13}, tmp_path)
    text = (tmp_path / "ranks.md").read_text(encoding="utf-8")
    assert "bandwidth 2.00 GB/s, latency 10 µs" in text and "50 TFLOP/s, as its measured step" in text
    assert (tmp_path / "results" / "ranks.png").read_bytes().startswith(b"\x89PNG")
