"""How long a training step would take on a GPU, from the bytes and flops of everything that it launches.

`python -m benchmarks.gpu --estimate` prints it. A step is walked once, with its real code, on arrays that
have shapes but no values (shapes.py). So the list of launches, and what each is given, are those of the
program as it is. A launch takes the longest of: its bytes at the memory's rate, its flops at the rate of
matrix products, its integer instructions, and SHORTEST. This is a prediction, to hold a first measurement
against; no figure here was measured by this program.
"""

import contextlib
import functools
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from autograd.cuda import launch as launching
from autograd.cuda import products
from benchmarks import shapes
from benchmarks.shapes import Work
from benchmarks.step import GPU_CONFIGURATIONS, Step


@dataclass(frozen=True)
class Card:
    """What the maker says that a card can do at most: dense products, without sparsity."""

    fp32_tflops: float
    tf32_tflops: float
    bf16_tflops: float
    gb_per_s: float  # of its memory
    int_tops: float  # integer instructions, in units of 10^12 a second
    launch_us: float = 13.0  # the host's time for a launch, which depends on the host


CARDS = {
    "H100": Card(67, 495, 989, 3350, 15),
    "H200": Card(67, 495, 989, 4800, 15),
    "A100": Card(19.5, 156, 312, 2039, 9.7),
    "L4": Card(30, 60, 121, 300, 7.6),
    "RTX4090": Card(82.6, 82.6, 165, 1008, 20),
}

# How much of that a good program gets.
OF_BANDWIDTH = 0.85
OF_BANDWIDTH_BY_FLOATS = 0.65  # a kernel that loads 4 bytes at a time
OF_PRODUCTS = 0.7
OF_UNALIGNED_PRODUCTS = 0.3  # cuBLAS has no good kernels for rows at odd places
CACHE = 1.8  # the cache's rate, in those of the memory
DIVISION = 20  # instructions of a division of two long long
PHILOX = 15  # instructions for the random byte of an element, of which a warp draws 32 at once
SHORTEST = 3e-3  # ms that the smallest kernel takes


# --- what each kernel does ------------------------------------------------------------------------


@dataclass
class Cost:
    """What a launch of a kernel costs beyond moving each of its arrays once.

    passes: how often an array is moved, where that is not once; instructions and cached_bytes: of a launch.
    All are functions of the launch's arguments, as an object with the kernel's parameters. because: a piece
    of the kernel's source that makes it so; without it the cost would be another.
    """

    because: str = ""
    passes: Callable = lambda a: {}
    instructions: Callable = lambda a: 0
    cached_bytes: Callable = lambda a: 0


def _in_place(*names):
    """Each of these arrays is read and written."""
    return lambda a: dict.fromkeys(names, 2)


def _seen(a):
    """What part of a block's scores belongs to keys that its queries see: the others are only written."""
    return (a.first + (a.t + 1) / 2) / a.K


def _philox(array):
    """Random bits for all elements of an array, if there is dropout."""
    return lambda a: (a.dropped > 0) * PHILOX * getattr(a, array).size


COSTS = {  # every kernel: tests/benchmarks/test_estimate.py compares this with the sources
    # In place if the array is the same, and otherwise one array is read, and another is written.
    "bias_activation_forward": Cost(
        "store(out + row * M + j, x)", lambda a: {"out": 2 if a.out.data.ptr == a.pre.data.ptr else 1}
    ),
    "activation_backward": Cost(),
    # A division of two long long for each vector, of four numbers.
    "dropout": Cost("group % groups * 32", instructions=lambda a: (PHILOX + DIVISION / 2) * a.x.size),
    "residual_forward": Cost("store(y + row * C + j, sum)", _in_place("y"), _philox("y")),
    "residual_backward": Cost("row % T * C", instructions=lambda a: (PHILOX + DIVISION) * a.dout.size),
    "column_sums": Cost(),
    "heads_from_rows": Cost("j / D % H", instructions=lambda a: DIVISION / 2 * a.rows.size),
    "rows_from_heads": Cost("j / D % H", instructions=lambda a: DIVISION / 2 * a.rows.size),
    "layer_norm_forward": Cost(),
    "layer_norm_backward": Cost(),
    "layer_norm_weight_gradients": Cost(),
    # Of keys that are not seen, scores are written and not read.
    "attention_forward": Cost("j < row.length", lambda a: {"scores": 1 + _seen(a)}, _philox("scores")),
    "attention_backward": Cost(
        "store(slopes + j, dx)",
        lambda a: dict(scores=1 + _seen(a), gradient=1 + _seen(a), out=a.t / a.T, dout=a.t / a.T),
        _philox("scores"),
    ),
    "share_of_counted": Cost(),
    # Two passes read the logits, and one writes them. Only short rows stay in the cache.
    "cross_entropy": Cost("j + i == target", lambda a: {"logits": 3 if a.V > 8192 else 2}),
    "sum_all": Cost(),
    "embedding_forward": Cost("weight + id * C", lambda a: {"weight": len(a.ids) / a.V}),
    # One block, on one of the card's 132 or so processors.
    "sort_by_id": Cost("counts[16 * SORTERS]", instructions=lambda a: 132 * 100 * a.N * a.passes),
    "embedding_backward": Cost("dweight + key * C", lambda a: {"dweight": 2 * min(1, a.N / a.V)}),
    "adamw": Cost("store(p + at, value)", _in_place("p", "m", "v")),
    "sums_of_squares": Cost(),
}


class Arguments:
    """A launch's arguments by name."""

    def __init__(self, arguments):
        vars(self).update(arguments)


def work_of_launch(args, arguments, result):
    """The Work of launch(xp, kernel, blocks, threads, **arguments)."""
    kernel, cost, given = args[1], COSTS.get(args[1], Cost()), Arguments(arguments)
    passes, moved = cost.passes(given), {}
    for name, value in arguments.items():
        if hasattr(value, "nbytes"):  # one array may stand for two parameters
            size = value.nbytes * passes.get(name, 1)
            moved[value.data.ptr] = max(size, moved.get(value.data.ptr, 0))
    return Work(
        kernel,
        bytes=sum(moved.values()),
        cached_bytes=cost.cached_bytes(given),
        instructions=cost.instructions(given),
    )


def work_of_product(args, options, result):
    """The Work of product(xp, a, b, ...), with its result."""
    _, a, b = args[:3]
    added = options.get("add_to") is not None
    rows = [max(x.strides[-2:]) for x in (a, b, result)]
    return Work(
        f"product {a.shape} {b.shape}",
        bytes=a.nbytes + b.nbytes + (1 + added) * result.nbytes,
        flops=2 * a.size * b.shape[-1],
        aligned=all(row % 16 == 0 for row in rows),
    )


@contextlib.contextmanager
def watching(observe):
    """Inside this block every kernel and product goes through observe(call, describe).

    call() carries it out and returns its result; describe(result) is its Work.
    """
    kinds = {launching.launch: work_of_launch, products.product: work_of_product}
    before = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("autograd.cuda"):
            continue
        for attribute, function in list(vars(module).items()):
            describe = kinds.get(function) if callable(function) else None
            if describe:
                before.append((module, attribute, function))
                setattr(module, attribute, _watched(function, describe, observe))
    try:
        yield
    finally:
        for module, attribute, function in before:
            setattr(module, attribute, function)


def _watched(function, describe, observe):
    def watched(*args, **kwargs):
        return observe(lambda: function(*args, **kwargs), lambda result: describe(args, kwargs, result))

    return watched


# --- a step on shapes -----------------------------------------------------------------------------


@dataclass
class Walk:
    """All launches of a training step, and the bytes of memory that it needs at most."""

    work: list[Work]
    memory: float


@functools.cache
def walk(configuration: str) -> Walk:
    """Take a step of one of GPU_CONFIGURATIONS on arrays without values."""
    with shapes.installed() as cupy:
        work, memory = cupy.ndarray.work, cupy.ndarray.memory

        def observe(call, describe):
            result = call()
            work.append(describe(result))
            return result

        step = Step(*GPU_CONFIGURATIONS[configuration], device="cuda", seed=None)
        step(0)
        work.clear()
        memory.most = memory.now
        with watching(observe):
            step(1)
        return Walk(list(work), memory.most)


# --- time -----------------------------------------------------------------------------------------


def time_of(work: Work, card: Card, precision: str = "tf32") -> tuple[float, str]:
    """(milliseconds of a launch on a card, what they are spent on)."""
    by_floats = work.label in COSTS and not loads_wide(work.label)
    bandwidth = card.gb_per_s * 1e6 * (OF_BANDWIDTH_BY_FLOATS if by_floats else OF_BANDWIDTH)  # per ms
    products = getattr(card, f"{precision}_tflops") * 1e9
    products *= OF_PRODUCTS if work.aligned else OF_UNALIGNED_PRODUCTS
    return max(
        (work.bytes / bandwidth, "memory"),
        (work.flops / products, "products" if work.aligned else "unaligned products"),
        (work.cached_bytes / (CACHE * card.gb_per_s * 1e6), "cache"),
        (work.instructions / (card.int_tops * 1e9), "integers"),
        (SHORTEST, "launching"),
    )


def loads_wide(kernel: str) -> bool:
    """Whether a kernel loads 16 bytes at a time, as its source says."""
    text = launching.source()
    begin = text.index(f"void {kernel}(")
    return "float4" in text[begin : text.index("\n}", begin)]


@dataclass
class Row:
    """All launches with one label."""

    launches: int = 0
    ms: float = 0.0
    bytes: float = 0.0
    flops: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # what for -> ms

    def add(self, work, ms, what):
        self.launches += 1
        self.ms += ms
        self.bytes += work.bytes
        self.flops += work.flops
        self.parts[what] += ms

    @property
    def bound(self):
        return max(self.parts, key=self.parts.get)


def estimate(configuration: str, card: Card, precision: str = "tf32") -> dict:
    """The prediction for a step, for JSON: launches, ms on the GPU and of the host, MB, and rows by label."""
    walked, rows = walk(configuration), defaultdict(Row)
    for work in walked.work:
        rows[work.label].add(work, *time_of(work, card, precision))
    slowest_first = sorted(rows.items(), key=lambda item: -item[1].ms)
    launches = len(walked.work)
    gpu_ms, host_ms = sum(row.ms for row in rows.values()), launches * card.launch_us * 1e-3
    return dict(
        ms=max(gpu_ms, host_ms),
        gpu_ms=gpu_ms,
        host_ms=host_ms,
        launches=launches,
        mb=walked.memory / 1e6,
        gb_moved=sum(row.bytes for row in rows.values()) / 1e9,
        tflop=sum(row.flops for row in rows.values()) / 1e12,
        rows={
            label: dict(launches=row.launches, ms=row.ms, gb=row.bytes / 1e9, bound=row.bound)
            for label, row in slowest_first
        },
    )


def print_estimate(configuration: str, found: dict) -> None:
    """A table of what `estimate` returns."""
    print(
        f"{configuration}: {found['ms']:.1f} ms a step (GPU {found['gpu_ms']:.1f}, host "
        f"{found['host_ms']:.1f}), {found['launches']} launches, {found['gb_moved']:.1f} GB moved, "
        f"{found['tflop']:.2f} TFLOP, {found['mb']:,.0f} MB"
    )
    for label, row in found["rows"].items():
        print(f"  {label:50} {row['launches']:4} x {row['ms']:8.3f} ms {row['gb']:8.3f} GB  {row['bound']}")


def card_from(name: str, **numbers: float | None) -> Card:
    """A card of CARDS, with other numbers where they are given."""
    return replace(CARDS[name], **{key: value for key, value in numbers.items() if value is not None})


NUMBERS = [each.name for each in fields(Card)]
