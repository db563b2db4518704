"""Notebook 12: a kernel for the GPU."""

import numpy as np

from workbook.cuda import ROUNDED, KernelChecks, Task, bare, kernel_exercise

check = KernelChecks()


def _add(task, *exercise, **options):
    """The exercise of this name: the task, and what kernel_exercise takes."""
    check.add(task.name, kernel_exercise(task, *exercise, **options))


def quarters(seed, *shape):
    """Multiples of 1/4, of which float32 adds thousands without an error. None is 0."""
    values = np.random.default_rng(seed).integers(1, 9, size=shape)
    return (values * np.random.default_rng(seed + 1).choice([-0.25, 0.25], size=shape)).astype(np.float32)


def blocks_for(count, each):
    return -(-count // each)


# --- affine ---------------------------------------------------------------------------------------


def affine():
    return """
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N * C) out[i] = xhat[i] * weight[i % C] + bias[i % C];
    """


def _launch_affine(N, C):
    arguments = dict(xhat=quarters(1, N * C), weight=quarters(3, C), bias=quarters(5, C), out=bare(N * C))
    return blocks_for(N * C, 64), 64, arguments | dict(N=N, C=C)


def _affine(index=None, channel=lambda i, N, C: i % C, of_bias=None, value=None):
    """The kernel in NumPy. index: which elements are written, from (block, thread, blocks)."""
    value = value or (lambda x, w, b: x * w + b)

    def wrong(xhat, weight, bias, N, C, grid):
        out = np.full(N * C, np.nan)
        block, thread = np.divmod(np.arange(grid * 64), 64)
        i = index(block, thread, grid, N, C) if index else block * 64 + thread
        i = np.unique(i[i < N * C])
        at = lambda a, which: np.take(np.append(a, np.nan), which(i, N, C), mode="clip")
        out[i] = value(xhat[i], at(weight, channel), at(bias, of_bias or channel))
        return {"out": out}

    return wrong


_add(
    Task(
        "affine",
        'extern "C" __global__ void affine(const float* xhat, const float* weight, const float* bias,\n'
        "                                  float* out, int N, int C)",
        _launch_affine,
    ),
    affine,
    [(5, 30), (4, 32), (1, 7)],
    _affine(),
    {
        "Each block does the same elements again: threadIdx.x counts from 0 in every block. The elements of "
        "the blocks before it come first, blockIdx.x * blockDim.x of them.": _affine(
            lambda block, thread, blocks, N, C: thread
        ),
        "The blocks overlap: block 1 begins at element 1, and not behind the 64 of block 0. There are "
        "blockDim.x elements in a block: blockIdx.x * blockDim.x + threadIdx.x.": _affine(
            lambda block, thread, blocks, N, C: block + thread
        ),
        "gridDim.x is the number of blocks. The number of threads in a block is blockDim.x.": _affine(
            lambda block, thread, blocks, N, C: block * blocks + thread
        ),
        "Block and thread have changed places: a block of threads takes neighbours, so it is blockIdx.x * "
        "blockDim.x + threadIdx.x.": _affine(lambda block, thread, blocks, N, C: thread * 64 + block),
        "Only one element of each block is written: the index lacks threadIdx.x.": _affine(
            lambda block, thread, blocks, N, C: block
        ),
        "Only the first row is written: there are N * C elements, not C.": _affine(
            lambda block, thread, blocks, N, C: np.arange(min(C, blocks * 64))
        ),
        "Only the first N elements are written: there are N * C.": _affine(
            lambda block, thread, blocks, N, C: np.arange(N)
        ),
        "i / C is the row of element i. Its channel is what is left over: i % C.": _affine(
            channel=lambda i, N, C: i // C
        ),
        "i % N is not the channel: a row has C elements, so the channel is i % C.": _affine(
            channel=lambda i, N, C: i % N
        ),
        "i / N is neither the row of element i nor its channel. A row has "
        "C elements: the channel is i % C.": _affine(channel=lambda i, N, C: i // N),
        "The bias comes from the wrong channel: bias[i % C], as with the weight.": _affine(
            of_bias=lambda i, N, C: i // C
        ),
        "The weight comes from the wrong channel: weight[i % C], as with the bias.": _affine(
            channel=lambda i, N, C: i // C, of_bias=lambda i, N, C: i % C
        ),
        "The bias is not added.": _affine(value=lambda x, w, b: x * w),
        "The weight does not multiply.": _affine(value=lambda x, w, b: x + b),
        "The bias is added before the weight multiplies. The bias comes last.": _affine(
            value=lambda x, w, b: (x + b) * w
        ),
        "weight and bias have changed places: times weight, plus bias.": _affine(
            value=lambda x, w, b: x * b + w
        ),
    },
)


# --- row_sum --------------------------------------------------------------------------------------


def row_sum():
    return """
    __shared__ float part[256];
    float total = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) total += x[blockIdx.x * C + j];
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
    """


def _launch_row_sum(rows, C, threads):
    return rows, threads, dict(x=quarters(7, rows, C), out=bare(rows), C=C)


def _row_sum(parts=None, tree=lambda p: p.sum(), row=lambda x, r, C, T: x[r], after=lambda total, C: total):
    """The kernel in NumPy. parts: what each thread finds, from (the row, threads); tree: the sum of them."""
    parts = parts or (lambda row, T: np.array([row[t::T].sum() for t in range(T)]))

    def wrong(x, C, block):
        rows = [row(x, r, C, block) for r in range(len(x))]
        return {"out": np.array([after(tree(parts(values, block)), C) for values in rows])}

    return wrong


def _truncated(numbers):
    total = 0
    for number in numbers:
        total = int(total + number)
    return total


def _tree(steps):
    """The sum by steps of these distances, from the number of threads."""

    def tree(p):
        p = np.append(p, np.full(len(p), np.nan))
        for half in steps(len(p) // 2):
            p[:half] = p[:half] + p[half : 2 * half]
        return p[0]

    return tree


_add(
    Task("row_sum", 'extern "C" __global__ void row_sum(const float* x, float* out, int C)', _launch_row_sum),
    row_sum,
    [(2, 300, 128), (3, 128, 128), (2, 5, 64), (1, 257, 256)],
    _row_sum(),
    {
        "The tail is missing: a thread takes one element, but C can be larger than the block. Go on in "
        "strides of blockDim.x: j = threadIdx.x, then j += blockDim.x.": _row_sum(
            lambda row, T: np.append(row[:T], np.zeros(max(0, T - len(row))))
        ),
        "The tail is missing: C / blockDim.x of two ints forgets the "
        "rest. Let a loop run while j < C.": _row_sum(lambda row, T: row[: len(row) // T * T]),
        "Each thread goes on with the next element, so many are added more than once. The other threads "
        "take those: the stride is blockDim.x.": _row_sum(
            lambda row, T: np.array([row[t:].sum() for t in range(T)])
        ),
        "The stride is 32, but there are blockDim.x threads: some "
        "elements are added more than once.": _row_sum(
            lambda row, T: np.array([row[t::32].sum() for t in range(T)])
        ),
        "Every block adds up the first row. Row number blockIdx.x begins at x[blockIdx.x * C].": _row_sum(
            row=lambda x, r, C, T: x[0]
        ),
        "A row begins blockDim.x elements behind the one before. It is C: x[blockIdx.x * C + j].": _row_sum(
            row=lambda x, r, C, T: np.append(x.ravel(), np.full(T * len(x), np.nan))[r * T : r * T + C]
        ),
        (
            "A row begins blockDim.x elements behind the one before. It is C: x[blockIdx.x * C + j].",
            "And the tail is missing: a thread takes one element, but C can be larger than the block.",
        ): _row_sum(
            lambda row, T: row,
            row=lambda x, r, C, T: np.append(x.ravel(), np.full(T * len(x), np.nan))[r * T : r * T + T],
        ),
        "A thread keeps only its last element: add with +=.": _row_sum(
            lambda row, T: np.array([row[t::T][-1] if t < len(row) else 0 for t in range(T)])
        ),
        "The tree ends too early: the step with distance 1 is missing, "
        "so the odd threads are left out.": _row_sum(tree=lambda p: p[::2].sum()),
        "The tree begins at a quarter of the block, so the upper half of the threads is left out.": _row_sum(
            tree=lambda p: p[: len(p) // 2].sum()
        ),
        "The distance goes down by 1 each time, so most are added again and again. Halve it: half /= 2.": (
            _row_sum(tree=_tree(lambda T: range(T // 2, 0, -1)))
        ),
        "There is only one step of the tree. Go on with half the distance, until 1.": _row_sum(
            tree=_tree(lambda T: [T // 2])
        ),
        "The sum of a warp is taken, but not that of the warps: the result misses all threads beyond 31.": (
            _row_sum(tree=lambda p: p[:32].sum())
        ),
        "This is what the first thread found alone. Is the tree missing? Or is part not __shared__, so that "
        "each thread has one of its own?": _row_sum(tree=lambda p: p[0]),
        "The total is an int: what stands behind the point is lost at "
        "every +=. It should be a float.": _row_sum(
            lambda row, T: np.array([_truncated(row[t::T]) for t in range(T)])
        ),
        "This is the mean. The sum is asked for.": _row_sum(after=lambda total, C: total / C),
    },
)


# --- warp_sum -------------------------------------------------------------------------------------


def warp_sum():
    return """
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL_WARP, x, offset);
    """


def _launch_warp_sum(threads):
    return 1, threads, dict(x=quarters(11, threads), out=bare(threads))


def _shuffled(*sources, keep=True):
    """x after `x += shuffle` for each of these functions from a lane to the lane that it reads."""

    def wrong(x):
        lanes, x = np.arange(32), x.reshape(-1, 32)  # (threads,) -> (warps, 32)
        for source in sources:
            from_lane = source(lanes)
            from_lane = np.where((from_lane < 0) | (from_lane > 31), lanes, from_lane)
            x = x[:, from_lane] + (x if keep else 0)
        return {"out": x.ravel()}

    return wrong


_by_xor = lambda *offsets: [lambda lane, k=k: lane ^ k for k in offsets]
_by_down = lambda *offsets: [lambda lane, k=k: lane + k for k in offsets]
_by_up = lambda *offsets: [lambda lane, k=k: lane - k for k in offsets]
HALVES = (16, 8, 4, 2, 1)
FIRST_LANE = (
    "Only lane 0 has the whole sum. With __shfl_down_sync the lanes at the end have nobody to read from. "
    "Each lane needs the sum: __shfl_xor_sync."
)
LAST_LANE = (
    "Only lane 31 has the whole sum. With __shfl_up_sync the first lanes have nobody to read from. Each "
    "lane needs the sum: __shfl_xor_sync."
)


def _advise_warp_sum(run):
    if "__shared__" in run.text:
        return "it works, but a shuffle needs neither shared memory nor a barrier, and is faster."
    return ""


_add(
    Task(
        "warp_sum",
        "__device__ float warp_sum(float x)",
        _launch_warp_sum,
        last="return x;",
        helpers="#define FULL_WARP 0xffffffffu\n",
        parameters="const float* x, float* out",
        call="out[threadIdx.x] = warp_sum(x[threadIdx.x]);",
    ),
    warp_sum,
    [(32,), (64,)],
    _shuffled(*_by_xor(*HALVES)),
    {
        FIRST_LANE: _shuffled(*_by_down(*HALVES)),
        (FIRST_LANE,): _shuffled(*_by_down(*reversed(HALVES))),  # a tuple: the same words again
        LAST_LANE: _shuffled(*_by_up(*HALVES)),
        (LAST_LANE,): _shuffled(*_by_up(*reversed(HALVES))),
        "It begins at 32, where there is no other lane: so each lane adds its own number, and the sum is "
        "twice as large. Begin at 16.": _shuffled(*_by_xor(32, *HALVES)),
        "The step with offset 1 is missing: each lane has the sum of every second one.": _shuffled(
            *_by_xor(16, 8, 4, 2)
        ),
        "The step with offset 16 is missing: each lane has the sum of its own half of the warp.": _shuffled(
            *_by_xor(8, 4, 2, 1)
        ),
        "There is only the step with offset 16. Go on with 8, 4, 2, 1.": _shuffled(*_by_xor(16)),
        "There is only the step with offset 1. Go on with 2, 4, 8, 16.": _shuffled(*_by_xor(1)),
        "The number of the other lane replaces x. It must be added: +=.": _shuffled(
            *_by_xor(*HALVES), keep=False
        ),
        "The offset goes down by 1 each time. Halve it: 16, 8, 4, 2, 1.": _shuffled(
            *_by_xor(*range(16, 0, -1))
        ),
        "__shfl_sync reads from the lane with this number, the same for all. You want the lane at this "
        "distance: __shfl_xor_sync.": _shuffled(*[lambda lane, k=k: np.full(32, k) for k in HALVES]),
        "The offset is always 1, so two lanes exchange the same sum five times.": _shuffled(
            *_by_xor(1, 1, 1, 1, 1)
        ),
        "This is x itself: nothing was added.": _shuffled(),
        "Only lane 0 has the sum. Hand it to the others: `x = __shfl_sync(FULL_WARP, x, 0)`.": lambda x: {
            "out": np.where(np.arange(x.size) % 32 == 0, x.reshape(-1, 32).sum(1).repeat(32), x)
        },
    },
    advise=_advise_warp_sum,
)


# --- moments --------------------------------------------------------------------------------------

A_WARP_PER_ROW = """\
int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
if (row >= N) return;"""


def moments():
    return """
    float total = 0.0f, squares = 0.0f;
    for (int j = lane; j < C; j += 32) total += x[row * C + j];
    float m = warp_sum(total) / C;
    for (int j = lane; j < C; j += 32) {
        float difference = x[row * C + j] - m;
        squares += difference * difference;
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / C + eps);
    if (lane == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
    """


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _launch_moments(N, C, eps, around):
    x = (around + _normal(13, N, C)).astype(np.float32)
    return blocks_for(N, 2), 64, dict(x=x, mean=bare(N), rstd=bare(N), N=N, C=C, eps=eps)


def _lane_sum(values):
    """What each lane finds for itself, at its own columns."""
    return np.stack([values[:, j % 32 :: 32].sum(1) for j in range(values.shape[1])], 1)


def _lane_mean(values):
    return _lane_sum(values) / values.shape[1]


def _moments(
    mean=lambda x, C: x.sum(1) / C,
    var=lambda x, m, C: ((x - m[:, None]) ** 2).sum(1) / C,
    rstd=lambda v, eps: 1 / np.sqrt(v + eps),
    seen=lambda x: x,
):
    """The kernel in NumPy, from its parts. seen: the elements of the rows that it takes."""

    def wrong(x, C, eps):
        x = seen(x)
        m = mean(x, C)
        return {"mean": m, "rstd": rstd(var(x, m, C), eps)}

    return wrong


def _explain_moments(right):
    *around_0, around_500 = right
    if all(around_0) and not around_500:
        return (
            "It is right for rows around 0, but not for those around 500. Do you take mean(x * x) - mean * "
            "mean? That is the difference of two large numbers, and float32 keeps only 7 digits of each. "
            "Subtract the mean first, in a second pass."
        )
    return ""


_every = lambda stride: lambda x: np.concatenate([x[:, j : j + 32] for j in range(0, x.shape[1], stride)], 1)

_add(
    Task(
        "moments",
        'extern "C" __global__ void moments(const float* x, float* mean, float* rstd,\n'
        "                                   int N, int C, float eps)",
        _launch_moments,
        given=A_WARP_PER_ROW,
    ),
    moments,
    [(3, 70, 0.5, 0.0), (5, 32, 1e-5, 1.0), (2, 6, 1e-5, 0.0), (2, 70, 1e-5, 500.0)],
    _moments(),
    {
        "The mean is 0, and so is the variance: C is an int, and 1 / C of two ints is 0. Divide the sum by "
        "C, or write 1.0f / C.": _moments(lambda x, C: 0 * x.sum(1), lambda x, m, C: 0 * m),
        "The mean is 0: C is an int, and 1 / C of two ints is 0. Divide "
        "the sum by C, or write 1.0f / C.": _moments(lambda x, C: 0 * x.sum(1)),
        "The variance is 0. Do you multiply by 1 / C? Of two ints that is 0. Or are the deviations not "
        "squared, so that they add up to 0?": _moments(var=lambda x, m, C: 0 * m),
        "The mean is the sum: it is not divided by C.": _moments(lambda x, C: x.sum(1)),
        "The mean is divided by 32, the number of lanes. A row has C elements.": _moments(
            lambda x, C: x.sum(1) / 32
        ),
        "The sum of squares is not divided by C.": _moments(
            var=lambda x, m, C: ((x - m[:, None]) ** 2).sum(1)
        ),
        "The sum of squares is divided by C - 1 (Bessel's correction). Layer norm divides by C.": _moments(
            var=lambda x, m, C: ((x - m[:, None]) ** 2).sum(1) / (C - 1)
        ),
        "This is the mean of x * x, not the variance: subtract the mean before squaring.": _moments(
            var=lambda x, m, C: (x**2).sum(1) / C
        ),
        "eps stands outside the root. It belongs inside, added to the variance.": _moments(
            rstd=lambda v, eps: 1 / (np.sqrt(v) + eps)
        ),
        "eps is added to rstd. It belongs inside of the root, added to the variance.": _moments(
            rstd=lambda v, eps: 1 / np.sqrt(v) + eps
        ),
        "eps is missing.": _moments(rstd=lambda v, eps: 1 / np.sqrt(v)),
        "The root is missing: rstd is 1 / sqrtf(variance + eps).": _moments(
            rstd=lambda v, eps: 1 / (v + eps)
        ),
        "rstd holds the standard deviation. It should be 1 divided by it.": _moments(
            rstd=lambda v, eps: np.sqrt(v + eps)
        ),
        "rstd holds the variance. It should be 1 / sqrtf(variance + eps).": _moments(rstd=lambda v, eps: v),
        "The sum of squares is that of lane 0 alone: it must go through warp_sum, too.": _moments(
            var=lambda x, m, C: ((x[:, ::32] - m[:, None]) ** 2).sum(1) / C
        ),
        "The mean is made of the sum of lane 0 alone: it must go through warp_sum.": _moments(
            lambda x, C: x[:, ::32].sum(1) / C
        ),
        "The mean is that of each lane's own elements: its sum must go through warp_sum, too.": _moments(
            lambda x, C: x[:, ::32].sum(1) / C, lambda x, m, C: ((x - _lane_mean(x)) ** 2).sum(1) / C
        ),
        "These are the sums of lane 0 alone: both sums must go through warp_sum.": _moments(
            seen=lambda x: x[:, ::32]
        ),
        "The tail is missing: C / 32 of two ints forgets the rest. Let the loops run while j < C.": _moments(
            seen=lambda x: x[:, : x.shape[1] // 32 * 32]
        ),
        "The tail is missing: a lane takes one element, but C can be "
        "larger than 32. Go on with j += 32.": _moments(seen=lambda x: x[:, :32]),
        "The stride is blockDim.x = 64, but a row has one warp: 32 lanes.": _moments(seen=_every(64)),
        "The lanes take the next element, and so elements of each other. The stride is 32.": _moments(
            lambda x, C: (x * np.minimum(np.arange(1, x.shape[1] + 1), 32)).sum(1) / C,
            lambda x, m, C: ((x - m[:, None]) ** 2 * np.minimum(np.arange(1, x.shape[1] + 1), 32)).sum(1) / C,
        ),
        "Each lane adds up the whole row, and warp_sum adds up that of 32 lanes. Begin at lane, stride "
        "32.": _moments(
            lambda x, C: 32 * x.sum(1) / C, lambda x, m, C: 32 * ((x - m[:, None]) ** 2).sum(1) / C
        ),
        "All warps read the first row. Row number `row` begins at x[row * C].": lambda x, C, eps: _moments()(
            np.repeat(x[:1], len(x), 0), C, eps
        ),
        "mean and rstd have changed places.": lambda x, C, eps: dict(
            zip(("rstd", "mean"), _moments()(x, C, eps).values(), strict=True)
        ),
    },
    tolerance=ROUNDED,
    explain=_explain_moments,
)


# --- input_gradient -------------------------------------------------------------------------------


def input_gradient():
    return """
    float m = mean[row], r = rstd[row], along_ones = 0.0f, along_xhat = 0.0f;
    for (int j = lane; j < C; j += 32) {
        float dxhat = dout[row * C + j] * weight[j];
        along_ones += dxhat;
        along_xhat += dxhat * (x[row * C + j] - m) * r;
    }
    along_ones = warp_sum(along_ones) / C;
    along_xhat = warp_sum(along_xhat) / C;
    for (int j = lane; j < C; j += 32) {
        float dxhat = dout[row * C + j] * weight[j], xhat = (x[row * C + j] - m) * r;
        dx[row * C + j] = r * (dxhat - along_ones - xhat * along_xhat);
    }
    """


def _launch_input_gradient(N, C):
    x = _normal(17, N, C) * 2 + 1
    arrays = dict(dout=_normal(19, N, C), x=x, weight=_normal(23, C) + 2)
    arrays |= dict(mean=x.mean(1), rstd=1 / np.sqrt(x.var(1) + 1e-5))
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    return blocks_for(N, 2), 64, arrays | dict(dx=bare(N, C), N=N, C=C)


def _row_mean(values):
    return values.mean(1, keepdims=True)


def _input_gradient(
    dxhat=lambda dout, weight: dout * weight,
    xhat=lambda x, m, r: (x - m) * r,
    along_ones=_row_mean,
    along_xhat=lambda d, xhat: xhat * _row_mean(d * xhat),
    factor=lambda r, weight: r,
    x_in_sum=False,
):
    """The kernel in NumPy, from its parts."""

    def wrong(dout, x, weight, mean, rstd):
        r = rstd[:, None]
        d, h = dxhat(dout, weight), xhat(x, mean[:, None], r)
        if x_in_sum:
            return {"dx": r * (d - along_ones(d) - h * _row_mean(d * x))}
        return {"dx": factor(r, weight) * (d - along_ones(d) - along_xhat(d, h))}

    return wrong


_nothing = lambda *arguments: 0.0
_add(
    Task(
        "input_gradient",
        'extern "C" __global__ void input_gradient(const float* dout, const float* x, const float* weight,\n'
        "                                          const float* mean, const float* rstd, float* dx,\n       "
        "                                   int N, int C)",
        _launch_input_gradient,
        given=A_WARP_PER_ROW,
    ),
    input_gradient,
    [(3, 70), (4, 32), (1, 5)],
    _input_gradient(),
    {
        "dx lacks the part of both means. Are they missing, or 0? (1 / C of two ints is 0.)": _input_gradient(
            along_ones=_nothing, along_xhat=_nothing
        ),
        "The standard deviation is held constant: the term with the mean of dxhat * xhat is missing, or its "
        "mean is 0.": _input_gradient(along_xhat=_nothing),
        "The mean is held constant: the mean of dxhat is missing, or is 0.": _input_gradient(
            along_ones=_nothing
        ),
        "Each lane goes on with its own two sums. They must be those of the row: warp_sum.": _input_gradient(
            along_ones=_lane_mean, along_xhat=lambda d, h: h * _lane_mean(d * h)
        ),
        "The sum of dxhat is that of each lane alone: it must go through warp_sum, too.": _input_gradient(
            along_ones=_lane_mean
        ),
        "The sum of dxhat * xhat is that of each lane alone: it "
        "must go through warp_sum, too.": _input_gradient(along_xhat=lambda d, h: h * _lane_mean(d * h)),
        "The sum of dxhat is that of each lane alone, and not "
        "divided by C: warp_sum(...) / C.": _input_gradient(along_ones=_lane_sum),
        "The sum of dxhat * xhat is that of each lane alone, and not divided by C: warp_sum(...) / C.": (
            _input_gradient(along_xhat=lambda d, h: h * _lane_sum(d * h))
        ),
        "Both sums are those of each lane alone, and not divided by C: warp_sum(...) / C.": _input_gradient(
            along_ones=_lane_sum, along_xhat=lambda d, h: h * _lane_sum(d * h)
        ),
        "There are sums where means belong: divide both by C.": _input_gradient(
            along_ones=lambda d: d.sum(1, keepdims=True),
            along_xhat=lambda d, h: h * (d * h).sum(1, keepdims=True),
        ),
        "The sum of dxhat is not divided by C.": _input_gradient(
            along_ones=lambda d: d.sum(1, keepdims=True)
        ),
        "The sum of dxhat * xhat is not divided by C.": _input_gradient(
            along_xhat=lambda d, h: h * (d * h).sum(1, keepdims=True)
        ),
        "The sums are divided by 32, the number of lanes. A row has C elements.": _input_gradient(
            along_ones=lambda d: d.sum(1, keepdims=True) / 32,
            along_xhat=lambda d, h: h * (d * h).sum(1, keepdims=True) / 32,
        ),
        "xhat is missing in front of the second mean: xhat * mean(dxhat * xhat).": _input_gradient(
            along_xhat=lambda d, h: _row_mean(d * h)
        ),
        "The second mean is that of dxhat alone. It should be that of dxhat * xhat.": _input_gradient(
            along_xhat=lambda d, h: h * _row_mean(d)
        ),
        "The weight is missing: dxhat = dout * weight.": _input_gradient(dxhat=lambda dout, weight: dout),
        "The weight comes too late. It belongs into dxhat, before the means.": _input_gradient(
            dxhat=lambda dout, weight: dout, factor=lambda r, weight: r * weight
        ),
        "The factor rstd in front is missing.": _input_gradient(factor=lambda r, weight: 1.0),
        "dx is divided by rstd. rstd is 1 / std: multiply.": _input_gradient(factor=lambda r, weight: 1 / r),
        "x stands where xhat belongs: xhat = (x - mean) * rstd.": _input_gradient(xhat=lambda x, m, r: x),
        "In the second sum x stands where xhat belongs: dxhat * (x - mean) * rstd.": _input_gradient(
            x_in_sum=True
        ),
        "xhat lacks the factor rstd: (x - mean) * rstd.": _input_gradient(xhat=lambda x, m, r: x - m),
        "A plus where a minus belongs: - xhat * mean(dxhat * xhat).": _input_gradient(
            along_xhat=lambda d, h: -h * _row_mean(d * h)
        ),
        "A plus where a minus belongs: - mean(dxhat).": _input_gradient(along_ones=lambda d: -_row_mean(d)),
        "A Bessel slip: the mean of dxhat * xhat divides by C - 1.": _input_gradient(
            along_xhat=lambda d, h: h * (d * h).sum(1, keepdims=True) / (h.shape[1] - 1)
        ),
    },
    tolerance=ROUNDED,
)


# --- weight_gradient ------------------------------------------------------------------------------


def weight_gradient():
    return """
    __shared__ float part[8][32];
    float total = 0.0f;
    if (column < C)
        for (int n = threadIdx.y; n < N; n += 8) total += dout[n * C + column] * xhat[n * C + column];
    part[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < C) {
        for (int i = 1; i < 8; i++) total += part[i][threadIdx.x];
        dweight[column] = total;
    }
    """


def _launch_weight_gradient(N, C):
    arrays = dict(dout=quarters(29, N, C), xhat=quarters(31, N, C), dweight=np.zeros(C, np.float32))
    return blocks_for(C, 32), (32, 8), arrays | dict(N=N, C=C)


def _weight_gradient(rows=lambda N: np.arange(N), values=lambda dout, xhat: dout * xhat, after=None):
    """The kernel in NumPy. rows: which rows are added, with repetitions."""
    after = after or (lambda total, N: total)

    def wrong(dout, xhat, N):
        return {"dweight": after(values(dout, xhat)[rows(N)].sum(0), N)}

    return wrong


def _advise_weight_gradient(run):
    if "atomicAdd" in run.text:
        return (
            "atomicAdd adds in the order in which the threads come. Other numbers than these quarters would "
            "differ in their last digits from launch to launch. The engine adds in a fixed order instead."
        )
    return ""


_add(
    Task(
        "weight_gradient",
        'extern "C" __global__ void weight_gradient(const float* dout, const float* xhat, float* dweight,\n'
        "                                           int N, int C)",
        _launch_weight_gradient,
        given="int column = blockIdx.x * 32 + threadIdx.x;  // threadIdx.y: 0 to 7",
        adds_to=("dweight",),
    ),
    weight_gradient,
    [(20, 40), (8, 32), (3, 70), (1, 5)],
    _weight_gradient(),
    {
        "xhat is missing: that is the gradient of the bias. The weight multiplied xhat.": _weight_gradient(
            values=lambda dout, xhat: dout
        ),
        "Only the first 8 rows are added: a warp takes one row and "
        "stops. Go on in strides of 8.": _weight_gradient(lambda N: np.arange(min(N, 8))),
        "Only every eighth row is added: the sums of the 8 warps are not put together. (Is part not "
        "__shared__?)": _weight_gradient(lambda N: np.arange(0, N, 8)),
        "Only the first row is added.": _weight_gradient(lambda N: [0]),
        "The first warp's own rows are counted twice: its total is "
        "there already, so begin at 1.": _weight_gradient(
            lambda N: np.concatenate([np.arange(N), np.arange(0, N, 8)])
        ),
        "The last of the 8 warps is left out.": _weight_gradient(
            lambda N: [n for n in range(N) if n % 8 != 7]
        ),
        "The first of the 8 warps is left out.": _weight_gradient(lambda N: [n for n in range(N) if n % 8]),
        "Each warp goes on with the next row, so many are added "
        "more than once. The stride is 8.": _weight_gradient(
            lambda N: np.concatenate([np.arange(y, N) for y in range(8)])
        ),
        "All 8 warps add up all rows, so the sum is 8 times as large. Begin at threadIdx.y, stride 8.": (
            _weight_gradient(after=lambda total, N: 8 * total)
        ),
        "All 8 warps take the same rows: 0, 8, 16, ... Begin at threadIdx.y.": _weight_gradient(
            lambda N: np.repeat(np.arange(0, N, 8), 8)
        ),
        "The tail is missing: N / 8 of two ints forgets the rest. "
        "Let the loop run while n < N.": _weight_gradient(lambda N: np.arange(N // 8 * 8)),
        "The sum is divided by N. Uses add up: a gradient is no mean.": _weight_gradient(
            after=lambda total, N: total / N
        ),
        "The sum runs over the channels of a row. Each channel has its own weight: the sum runs over rows.": (
            lambda dout, xhat, C: {"dweight": np.resize((dout * xhat).sum(1), C)}
        ),
        "Only the first 32 columns are written: each block begins at column 0. The frame has `column`.": (
            lambda dout, xhat, C: {"dweight": np.where(np.arange(C) < 32, (dout * xhat).sum(0), 0)}
        ),
        "dweight stays 0: nobody writes it.": _weight_gradient(lambda N: []),
    },
    advise=_advise_weight_gradient,
)
