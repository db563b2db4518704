"""Notebook 12: the engine's layer norm in CUDA C, run in the emulator, and pictures of what a GPU does."""

import functools
import textwrap

import numpy as np
from matplotlib.patches import Rectangle

from autograd.cuda import launch
from workbook import cuda, emulator, kernels
from workbook.checking import judge
from workbook.cuda import ORDERS, bare
from workbook.kernels import blocks_for
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels
from workbook.reading import READINGS

# What its maker says of an H100, and what benchmarks/estimate.py takes of that. All times here are estimates.
H100 = {
    "gb_per_s": 3350,  # of its memory
    "of_bandwidth": 0.85,  # how much of that a good kernel gets
    "shortest_us": 3.0,  # the shortest launch
    "launch_us": 13.0,  # the host's time for a launch
}


def say_ready():
    """Say whether kernels can be run here, and what to install if not."""
    reason = emulator.why_not()
    print(
        textwrap.fill(
            f"Kernels cannot be run here: {reason}. Where the notebook runs one, NumPy takes its place.", 100
        )
        if reason
        else "The emulator is ready: kernels run on the CPU."
    )


# --- the engine's kernels, run --------------------------------------------------------------------


@functools.cache
def engine(without=None):
    """The Program of the engine's layer norm, with what all kernels share; without: as in `experiment`."""
    texts = {name: launch.text_of(name) for name in (launch.COMMON, "layer_norm.cu")}
    if without:
        file, text = _without(*without)
        texts[file] = text
    return emulator.compile("".join(f'#line 1 "{name}"\n{text}\n' for name, text in texts.items()))


def _without(which, line, function):
    """(file, its text) without the "first" or "second" such line of a function of the engine, or "every"."""
    file, first, last, _ = READINGS[function]
    text = launch.text_of(file)
    begin = text.index(first)
    end = text.index(last, begin)
    parts = text[begin:end].split(line)
    if which == "every":
        changed = "".join(parts)
    else:
        number = {"first": 1, "second": 2}[which]
        changed = line.join(parts[:number]) + line.join(parts[number:])
    return file, text[:begin] + changed + text[end:]


def forward(x, weight, bias, eps=1e-5, order="ascending"):
    """out (N, C) and moments (3, N) of the engine's kernel; of NumPy, in float32, where it cannot be run."""
    N, C = x.shape
    x, weight, bias = (np.ascontiguousarray(a, np.float32) for a in (x, weight, bias))
    out, moments = bare(N, C), bare(3, N)
    if emulator.why_not():
        mean, rstd = x.mean(1, keepdims=True), 1 / np.sqrt(x.var(1, keepdims=True) + np.float32(eps))
        return (x - mean) * rstd * weight + bias, np.stack([mean[:, 0], 0 * mean[:, 0], rstd[:, 0]])
    sizes = (np.int64(N), np.int64(C), np.int64(1), np.float32(eps))
    arguments = (x, weight, bias, out, moments, *sizes)
    _checked(engine().run("layer_norm_forward", blocks_for(N, 4), 128, arguments, order))
    return out, moments


def backward(dout, x, weight, moments, order="ascending"):
    """dx (N, C) of the engine's kernel; of NumPy where it cannot be run."""
    N, C = x.shape
    dout, x, weight = (np.ascontiguousarray(a, np.float32) for a in (dout, x, weight))
    if emulator.why_not():
        mean, rest, rstd = moments[:, :, None]
        xhat, dxhat, m = (x - mean - rest) * rstd, dout * weight, lambda a: a.mean(1, keepdims=True)
        return rstd * (dxhat - m(dxhat) - xhat * m(dxhat * xhat))
    dx = bare(N, C)
    arguments = (dout, x, weight, moments, dout, dx, np.int64(N), np.int64(C), np.int64(0))
    _checked(engine().run("layer_norm_backward", blocks_for(N, 4), 128, arguments, order))
    return dx


def weight_gradients(dout, x, moments, order="ascending", without=None):
    """dweight, dbias (C,) of the engine's kernel, and its Launch; NumPy's and None where it cannot run."""
    N, C = x.shape
    dout, x = (np.ascontiguousarray(a, np.float32) for a in (dout, x))
    if emulator.why_not():
        mean, rest, rstd = moments[:, :, None]
        return (dout * (x - mean - rest) * rstd).sum(0), dout.sum(0), None
    sets = 2  # of rows, each for blocks of its own
    partial, arrived = bare(2, sets, C), np.zeros(blocks_for(C, 32), np.int32)
    dweight, dbias = bare(C), bare(C)
    sizes = (np.int64(N), np.int64(C), np.int64(0), np.int64(0))
    arguments = (dout, x, moments, partial, arrived, dweight, dbias, *sizes)
    name, grid = "layer_norm_weight_gradients", (blocks_for(C, 32), sets)
    return dweight, dbias, engine(without).run(name, grid, (32, 8), arguments, order)


def _checked(done):
    if done.problem:
        raise RuntimeError(done.problem)


# --- break it and watch ---------------------------------------------------------------------------


def watch(name, text):
    """Run CUDA C for an exercise in all orders; print what comes out, and what is wrong with it."""
    if emulator.why_not():
        print("Not run: see the first cell.")
        return
    exercise = kernels.check.exercises[name]
    case = exercise.cases[0]
    true = exercise.compute(exercise.reference, *case)
    diagnosis = judge(exercise, lambda: text).diagnosis
    try:
        result = cuda.run(name, text, case)
    except emulator.emulate().KernelError:
        print(diagnosis)
        return
    output, right = next(iter(true.items()))
    print(f"{'order of the threads':22} {output}[0], should be {right.flat[0]:g}")
    for order, outputs in result.outputs.items():
        print(f"{order:22} {outputs[output].flat[0]:g}")
    print("\n" + textwrap.fill(diagnosis or "Nothing is wrong.", 100))


def experiment(dout, x, moments, *without):
    """Run the engine's `layer_norm_weight_gradients` without one of its lines, and say what is noticed.

    without: which ("first", "second", "every"), line, function; nothing for the whole kernel.
    """
    if emulator.why_not():
        print("Not run: see the first cell.")
        return
    mean, _, rstd = moments.astype(float)[:, :, None]
    true = (dout * (x - mean) * rstd).sum(0)
    errors, seen = [], None
    for order in ORDERS.values():
        dweight, _, done = weight_gradients(dout, x, moments, order, without or None)
        errors.append(np.abs(dweight - true).max())
        seen = seen or done.problem or done.events.get("race")
    which, line, function = without or ("", "", "")
    wrong = sum(not error < 1e-5 for error in errors)
    print(f"taken out: {which} {line} of {function}" if without else "taken out: nothing")
    print(f"  wrong numbers in {wrong} of {len(errors)} orders of the threads")
    found = seen if isinstance(seen, str) else _race(seen) if seen else "the watch finds nothing"
    print(textwrap.fill(found, 98, initial_indent="  ", subsequent_indent="  "))


def _race(event):
    """A race in the engine, in words."""
    sides = [
        f"thread ({a.thread % 32}, {a.thread // 32}) {'writes' if a.writes else 'reads'} in {_at(a)}"
        for a in (event.first, event.second)
    ]
    return f"a race: {sides[0]}, {sides[1]}, without a barrier"


def _at(access):
    if not access.line:
        return "a line unknown"
    file, number = access.line
    return f"`{launch.text_of(file).splitlines()[number - 1].strip()}`"


# --- bytes and launches ---------------------------------------------------------------------------


def microseconds(moved, launches=1):
    """The estimated time on an H100 of this many launches that move so many bytes in all."""
    rate = H100["gb_per_s"] * 1e3 * H100["of_bandwidth"]  # bytes in a microsecond
    return max(moved / rate, launches * H100["shortest_us"])


def plot_fusing(composed, fused, N, C):
    """Composed and fused operations: bytes moved, and time against the number of rows.

    composed, fused: {operation: arrays of N * C floats that it reads or writes}.
    """
    figure, (left, right) = panels(2, width=9.5, height=3.4)
    array = 4 * N * C / 1e6
    colors = [BLUE, GOLD, GREEN, RED, GREY]
    for x, operations in enumerate((composed, fused)):
        below = 0.0
        for i, (name, count) in enumerate(operations.items()):
            left.bar(x, count * array, bottom=below, color=colors[i % len(colors)], width=0.62, edgecolor="w")
            if count * array > 8:
                left.text(x, below + count * array / 2, name, ha="center", va="center", fontsize=8, color="w")
            below += count * array
        launches = "1 launch" if len(operations) == 1 else f"{len(operations)} launches"
        left.text(x, below, f"{below:.0f} MB, {launches}", ha="center", va="bottom", fontsize=9)
    left.set(
        xticks=[0, 1], xticklabels=["composed", "fused"], ylabel="MB to and from memory", xlim=(-0.6, 1.6)
    )
    left.set(title=f"layer norm, forward: {N:,} rows of {C}")
    left.margins(y=0.12)
    rows = 2.0 ** np.arange(4, 19)
    for operations, color, name in ((composed, RED, "composed"), (fused, BLUE, "fused")):
        times = [sum(microseconds(4 * n * C * count) for count in operations.values()) for n in rows]
        right.loglog(rows, times, color=color, label=f"GPU, {name}")
        host = H100["launch_us"] * len(operations)
        right.axhline(host, color=color, ls=":", lw=1)
        right.text(rows[0], host * 1.06, f"the host's launches, {name}", color=color, fontsize=8)
    right.axvline(N, color=GREY, lw=0.8)
    right.text(1.2 * N, 3.2, "rows in a step of\nthe reference run", fontsize=8, color=GREY)
    right.set(xlabel="rows", ylabel="µs, estimated", title="time on an H100 (not measured)")
    right.legend(loc="upper left", fontsize=8, bbox_to_anchor=(0.0, 0.86))
    return Picture(figure, "bytes and launches of a composed and of a fused layer norm")


# --- pictures -------------------------------------------------------------------------------------


def plot_gpu():
    """A launch: a grid of blocks, a block of warps, a warp of lanes, and the memory that each can see."""
    figure, (left, right) = panels(2, width=9.5, height=3.7, gridspec_kw={"width_ratios": [1.15, 1]})
    for axes in (left, right):
        axes.axis("off")
        axes.set(xlim=(0, 10), ylim=(0, 10))

    def box(axes, x, y, width, height, color, text="", **style):
        axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="k", lw=0.6, **style))
        if text:
            axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5)

    left.text(0, 9.6, "a launch is a grid of blocks", fontsize=10)
    for i in range(8):
        box(left, 0.1 + 1.22 * i, 8.2, 1.1, 1.0, "#f3e3b5" if i == 2 else "#f6f3ea", f"block {i}")
    left.plot([2.54, 0.1], [8.2, 7.3], [3.64, 9.75], [8.2, 7.3], color=GREY, lw=0.7)
    left.text(0.1, 6.6, "a block: up to 32 warps (here 4), with shared memory and a barrier", fontsize=9)
    for warp in range(4):
        y = 5.3 - 1.05 * warp
        left.text(0.1, y + 0.4, f"warp {warp}", fontsize=8.5, va="center")
        for lane in range(32):
            color = BLUE if warp == 3 and lane == 5 else "#cfe0f3"
            box(left, 1.4 + 0.26 * lane, y, 0.26, 0.8, color)
    left.annotate(
        "one thread: threadIdx.x = 101,\nlane 5 of warp 3", (2.83, 2.15), (3.3, 1.0), fontsize=8.5,
        arrowprops={"arrowstyle": "->", "color": BLUE}, color=BLUE,
    )  # fmt: skip
    left.text(0.1, 0.2, "the 32 lanes of a warp run the same instruction at the same time", fontsize=9)
    right.text(0, 9.6, "who sees which memory (H100)", fontsize=10)
    rows = [
        ("registers", "one thread", "up to 255 numbers", "#cfe0f3", 3.2),
        ("shared memory", "one block", "up to 227 KB", "#f3e3b5", 4.8),
        ("cache (L2)", "all blocks", "50 MB", "#e6e6e6", 6.6),
        ("memory", "all blocks, the host", "80 GB, 3,350 GB/s at most", "#d8d8d8", 9.8),
    ]
    for i, (name, who, size, color, width) in enumerate(rows):
        y = 7.4 - 2.2 * i
        box(right, 0.1, y, width, 1.5, color, name)
        right.text(0.15, y - 0.35, f"{who}: {size}", fontsize=8.5, va="center")
    right.text(9.9, 8.9, "fast, small", fontsize=8.5, color=GREY, ha="right")
    right.text(9.9, 3.4, "slow, large", fontsize=8.5, color=GREY, ha="right")
    right.annotate("", (9.3, 3.8), (9.3, 8.7), arrowprops={"arrowstyle": "->", "color": GREY})
    return Picture(figure, "a grid of blocks of warps of threads, and the memories of a GPU")


def plot_lanes(C=64):
    """Which lane takes which element of a row: in strides of 32, or each lane a piece of its own."""
    figure, axes = panels(rows=2, width=9.5, height=2.5, sharex=True)
    ways = {
        "in strides: j = lane, lane + 32, ...": np.arange(C) % 32,
        f"in pieces: lane 0 takes 0 to {C // 32 - 1}, lane 1 the next ...": np.arange(C) // (C // 32),
    }
    for ax, (name, lanes) in zip(axes, ways.items(), strict=True):
        first = np.array([np.flatnonzero(lanes == lane)[0] for lane in range(32)])
        for j, lane in enumerate(lanes):
            now = j in first
            ax.add_patch(Rectangle((j, 0), 1, 1, facecolor=BLUE if now else "#dfe9f5", edgecolor="w", lw=0.6))
            ax.text(
                j + 0.5,
                0.5,
                str(lane),
                ha="center",
                va="center",
                fontsize=6.5,
                color="w" if now else "#5b7ba5",
            )
        for piece in range(C // 32):
            hit = ((first >= 32 * piece) & (first < 32 * piece + 32)).any()
            ax.plot(
                [32 * piece + 0.2, 32 * piece + 31.8], [-0.25, -0.25], lw=4, color=RED if hit else "#e0e0e0"
            )
        count = len({j // 32 for j in first.tolist()})
        ax.set(xlim=(0, C), ylim=(-0.6, 1), yticks=[], xticks=range(0, C + 1, 32))
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_title(
            f"{name}   fetched for the first 32 numbers: {128 * count} bytes", loc="left", fontsize=9.5
        )
    axes[1].set_xlabel(
        "element of the row; blue: what the 32 lanes read first; red: memory that is fetched for it"
    )
    return Picture(figure, "which lane reads which element, and what is fetched for it")


def plot_tree(n=8):
    """Sums of n numbers: by a tree in shared memory, and by exchanges within a warp."""
    figure, (left, right) = panels(2, width=9.5, height=3.3)
    sums = [[1 << i for i in range(n)]]  # which numbers are in a place: bits
    half = n // 2
    while half:
        last = sums[-1]
        sums.append([last[i] | last[i + half] if i < half else last[i] for i in range(n)])
        half //= 2
    _draw_steps(left, sums, n, lambda step, i, half: [i, i + half] if i < half else [])
    left.set_title("in shared memory: a tree, a barrier after each step", fontsize=10)
    sums, half = [[1 << i for i in range(n)]], n // 2
    while half:
        last = sums[-1]
        sums.append([last[i] | last[i ^ half] for i in range(n)])
        half //= 2
    _draw_steps(right, sums, n, lambda step, i, half: [i, i ^ half])
    right.set_title("in a warp: exchanges with lane ^ offset", fontsize=10)
    return Picture(figure, "a sum by a tree, and by exchanges")


def _draw_steps(axes, sums, n, sources):
    """Steps from top to bottom; a place is the darker the more numbers are in it."""
    for step, row in enumerate(sums):
        for i, bits in enumerate(row):
            count = bits.bit_count()
            shade = 0.12 + 0.88 * np.log2(count) / np.log2(n)
            color = (1 - shade * (1 - 0.18), 1 - shade * (1 - 0.43), 1 - shade * (1 - 0.70))
            axes.add_patch(Rectangle((i, -1.6 * step), 0.86, 0.8, facecolor=color, edgecolor=GREY, lw=0.5))
            axes.text(
                i + 0.43, -1.6 * step + 0.4, str(count), ha="center", va="center", fontsize=9,
                color="w" if shade > 0.6 else "k",
            )  # fmt: skip
            for source in sources(step, i, n >> step) if step else []:
                start, end = (source + 0.43, -1.6 * (step - 1)), (i + 0.43, -1.6 * step + 0.8)
                axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.8})
    axes.set(xlim=(-0.1, n), ylim=(-1.6 * (len(sums) - 1) - 0.3, 1.5))
    for i in range(n):
        axes.text(i + 0.43, 0.95, str(i), ha="center", fontsize=8, color=GREY)
    axes.text(-0.1, 1.3, "thread", fontsize=8, color=GREY)
    axes.axis("off")


def plot_race(with_barrier, without, threads=64):
    """Who touches which place of shared memory, as time goes by, for two texts of `row_sum`."""
    if emulator.why_not():
        print("Not drawn: see the first cell.")
        return None
    figure, axes = panels(2, width=9.5, height=3.4, sharey=True)
    for ax, text, name in zip(axes, (with_barrier, without), ("with the barrier", "without it"), strict=True):
        launch_ = cuda.run("row_sum", text, (2, 5, threads)).launches["0, 1, 2, ..."]
        log = launch_.log[: np.argmax(launch_.log[:, 0] == 0) + len(launch_.log)][: 64 + 32 * 3 + 40]
        time = np.arange(len(log))
        writes, early = log[:, 2] == 1, log[:, 3] == 1
        cell = log[:, 1] - log[:, 1].min()
        for which, color, label in (
            (writes, BLUE, "writes"),
            (~writes & ~early, GOLD, "reads"),
            (early, RED, "reads what nobody has written"),
        ):
            ax.scatter(cell[which], time[which], s=7, color=color, label=label, marker="s", linewidths=0)
        ax.set(title=name, xlabel="place in shared memory (that of thread 0, 1, ...)")
    axes[0].set(ylabel="time: one access after the other")
    axes[0].invert_yaxis()
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, markerscale=2)
    return Picture(figure, "accesses to shared memory with and without a barrier")
