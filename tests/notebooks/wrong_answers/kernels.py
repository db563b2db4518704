"""CUDA C as learners write it. The first to each exercise is tried in every run of the tests."""

from tests.notebooks.wrong_answers import Catalogue
from workbook import kernels
from workbook.kernels import check

catalogue = Catalogue(check)


def wrong_texts(exercise, texts):
    """{words of the diagnosis: CUDA C}."""
    catalogue.wrong_ones(exercise, {words: lambda text=text: text for words, text in texts.items()})


def change(solution, *pairs):
    """The solution with pieces of its text replaced: (old, new, old, new, ...)."""
    text = solution
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text, old
        text = text.replace(old, new)
    return text


AFFINE, ROW_SUM, WARP_SUM = kernels.affine(), kernels.row_sum(), kernels.warp_sum()
MOMENTS, INPUT_GRADIENT = kernels.moments(), kernels.input_gradient()
WEIGHT_GRADIENT = kernels.weight_gradient()
INDEX = "blockIdx.x * blockDim.x + threadIdx.x"

wrong_texts(
    "affine",
    {
        "reads xhat[150] in line 2": change(AFFINE, "if (i < N * C) ", ""),
        "Each block does the same elements again": change(AFFINE, INDEX, "threadIdx.x"),
        "The blocks overlap": change(AFFINE, INDEX, "blockIdx.x + threadIdx.x"),
        "gridDim.x is the number of blocks": change(AFFINE, "blockDim", "gridDim"),
        "Block and thread have changed places": change(
            AFFINE, INDEX, "threadIdx.x * blockDim.x + blockIdx.x"
        ),
        "lacks threadIdx.x": change(AFFINE, INDEX, "blockIdx.x"),
        "Only the first row is written": change(AFFINE, "N * C", "C"),
        "Only the first N elements": change(AFFINE, "N * C", "N"),
        "Which threads should not get there": change(AFFINE, "i < N * C", "i <= N * C"),
        "i / C is the row": change(AFFINE, "i % C", "i / C"),
        "i % N is not the channel": change(AFFINE, "i % C", "i % N"),
        "neither the row of element i nor its channel": change(AFFINE, "i % C", "i / N"),
        "The bias comes from the wrong channel": change(AFFINE, "bias[i % C]", "bias[i / C]"),
        "reads weight[30]": change(AFFINE, "weight[i % C]", "weight[i]"),
        "The bias is not added": change(AFFINE, " + bias[i % C]", ""),
        "The bias comes last": change(
            AFFINE, "xhat[i] * weight[i % C] + bias[i % C]", "(xhat[i] + bias[i % C]) * weight[i % C]"
        ),
        "times weight, plus bias": change(AFFINE, "weight[i", "b[i", "bias[i", "weight[i", "b[i", "bias[i"),
        "before anybody has written there": change(AFFINE, "out[i] =", "out[i] +="),
        "does not compile in line 2": change(AFFINE, "threadIdx.x;", "threadIdx.x"),
        "was not declared": change(AFFINE, "N * C", "n"),
        "have its partner": change(AFFINE, "if (i < N * C) ", "if (i < N * C) { "),
        "Nobody writes out[0] (150 of 150": "",
        "has the wrong sign": change(AFFINE, "= xhat[i]", "= -xhat[i]", "+ bias", "- bias"),
        "Return a text": 3,
    },
)

TREE = "part[threadIdx.x] += part[threadIdx.x + half];"
IN_STRIDES = "for (int j = threadIdx.x; j < C; j += blockDim.x) "
wrong_texts(
    "row_sum",
    {
        "line 4 (`part[threadIdx.x] = total;`), and no barrier": ROW_SUM.replace("__syncthreads();", "", 1),
        "several threads change a place in shared memory in line 5": """
    __shared__ float total;
    if (threadIdx.x == 0) total = 0.0f;
    __syncthreads();
    for (int j = threadIdx.x; j < C; j += blockDim.x)
        total += x[blockIdx.x * C + j];
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = total;
    """,
        "in the same line (perhaps in another round": change(ROW_SUM, "        __syncthreads();\n", ""),
        "outside of an `if`": change(
            ROW_SUM, f"{TREE}\n        __syncthreads();", f"{{ {TREE} __syncthreads(); }}"
        ),
        "thread 0 of block 0 reads a place in shared memory in line 5": """
    __shared__ float of_warp[8];
    float total = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) total += x[blockIdx.x * C + j];
    total = warp_sum(total);
    if (threadIdx.x == 0) for (int i = 1; i < blockDim.x / 32; i++) total += of_warp[i];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = total;
    if (threadIdx.x == 0) out[blockIdx.x] = total;
    """,
        "the stride is blockDim.x": change(ROW_SUM, "j += blockDim.x", "j++"),
        "The stride is 32, but": change(ROW_SUM, "j += blockDim.x", "j += 32"),
        "C can be larger than the block": change(ROW_SUM, IN_STRIDES, "int j = threadIdx.x; if (j < C) "),
        "a thread takes one element": change(ROW_SUM, IN_STRIDES, "int j = threadIdx.x; "),
        "C / blockDim.x of two ints": change(
            ROW_SUM, IN_STRIDES, "for (int k = 0, j = threadIdx.x; k < C / blockDim.x; k++, j += blockDim.x) "
        ),
        "of two ints forgets the rest": change(
            ROW_SUM,
            IN_STRIDES,
            "int each = C / blockDim.x; for (int j = threadIdx.x * each; j < (threadIdx.x + 1) * each; j++) ",
        ),
        "adds up the first row": change(ROW_SUM, "blockIdx.x * C + j", "j"),
        "It is C: x[blockIdx.x * C + j]": change(
            ROW_SUM, "blockIdx.x * C + j", "blockIdx.x * blockDim.x + j"
        ),
        "keeps only its last element": change(ROW_SUM, "total += x", "total = x"),
        "the step with distance 1 is missing": change(ROW_SUM, "half > 0", "half > 1"),
        "begins at a quarter": change(ROW_SUM, "blockDim.x / 2", "blockDim.x / 4"),
        "Halve it: half /= 2": change(ROW_SUM, "half /= 2", "half--"),
        "It does not end": change(ROW_SUM, "half /= 2", "half / 2"),
        "the result misses all threads beyond 31": """
    float total = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) total += x[blockIdx.x * C + j];
    total = warp_sum(total);
    if (threadIdx.x == 0) out[blockIdx.x] = total;
    """,
        "Is the tree missing?": change(ROW_SUM, f"if (threadIdx.x < half) {TREE}", ""),
        "The total is an int": change(ROW_SUM, "float total", "int total"),
        "This is the mean": change(ROW_SUM, "= part[0]", "= part[0] / C"),
        "before anybody has written": change(ROW_SUM, "half = blockDim.x / 2", "half = blockDim.x"),
        "Such memory holds anything": change(ROW_SUM, "half = blockDim.x / 2", "half = 128"),
        "writes it in the same line": change(ROW_SUM, "part[threadIdx.x + half]", "part[threadIdx.x + 1]"),
        "and no barrier for both stands between": change(ROW_SUM, "if (threadIdx.x < half) ", ""),
        "with different numbers": change(
            ROW_SUM, "if (threadIdx.x == 0) out", "out", "= part[0]", "= part[threadIdx.x]"
        ),
        "(1) A row begins blockDim.x elements behind": change(
            ROW_SUM, IN_STRIDES, "int j = threadIdx.x; ", "blockIdx.x * C + j", "blockIdx.x * blockDim.x + j"
        ),
        "Is each array that threads share __shared__?": change(ROW_SUM, "__shared__ ", ""),
        "isn't constant": change(ROW_SUM, "part[256]", "part[blockDim.x]"),
        "writes it in line 1": """if (threadIdx.x == 0) out[blockIdx.x] = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) atomicAdd(out + blockIdx.x, x[blockIdx.x * C + j]);
    """,
        "Index outside the array in line 4": change(ROW_SUM, "part[256]", "part[32]"),
        "so that each thread has one of its own": change(
            ROW_SUM, "float part[256]", "float part[256] = {}", "__shared__ ", ""
        ),
    },
)

wrong_texts(
    "warp_sum",
    {
        "Only lane 0 has the whole sum": change(WARP_SUM, "xor", "down"),
        "Not all lanes of a warp get to the same exchange": change(
            WARP_SUM, "x +=", "if (threadIdx.x % 32 < offset) x +="
        ),
        "Only lane 31": change(WARP_SUM, "xor", "up"),
        "lanes at the end "
        "have nobody": "for (int k = 1; k < 32; k *= 2)\n x += __shfl_down_sync(FULL_WARP, x, k);",
        "first lanes have nobody": "for (int k = 1; k < 32; k *= 2) x += __shfl_up_sync(FULL_WARP, x, k);",
        "twice as large": change(WARP_SUM, "16", "32"),
        "the sum of every second one": change(WARP_SUM, "> 0", "> 1"),
        "its own half of the warp": change(WARP_SUM, "16", "8"),
        "only the step with offset 16": "x += __shfl_xor_sync(FULL_WARP, x, 16);",
        "replaces x": change(WARP_SUM, "+=", "="),
        "Halve it: 16, 8, 4, 2, 1": change(WARP_SUM, "offset /= 2", "offset--"),
        "the mask 0xffff does not name it": change(WARP_SUM, "FULL_WARP", "0xffff"),
        "reads from the lane with this number": change(WARP_SUM, "xor_", ""),
        "nothing was added": change(WARP_SUM, "x +=", ""),
        "It does not end": change(WARP_SUM, "offset /= 2", "offset / 2"),
        "`__shfl_xor` was not declared": change(WARP_SUM, "_sync(FULL_WARP, ", "("),
        "reads a place in shared memory in line 4": """
    __shared__ float part[64];
    part[threadIdx.x] = x;
    float total = 0.0f;
    for (int i = 0; i < 32; i++) total += part[threadIdx.x / 32 * 32 + i];
    return total;
    """,
        "writes it in line 2": """
    __shared__ float part[32];
    part[threadIdx.x % 32] = x;
    __syncwarp();
    float total = 0.0f;
    for (int i = 0; i < 32; i++) total += part[i];
    return total;
    """,
        "Hand it to the others": change(WARP_SUM, "for", "float own = x;\n    for")
        + "return threadIdx.x % 32 ? own : x;",
        "every entry of out differs": "return 32 * x;",
        "five times": change(WARP_SUM, "x, offset", "x, 1"),
    },
)

wrong_texts(
    "moments",
    {
        "The mean is 0, and so is the variance": change(
            MOMENTS, "(total) / C", "(total) * (1 / C)", "(squares) / C", "(squares) * (1 / C)"
        ),
        "The sum of squares is that of lane 0 alone": change(MOMENTS, "warp_sum(squares)", "squares"),
        "The mean is 0: C is an int": change(MOMENTS, "(total) / C", "(total) * (1 / C)"),
        "The variance is 0. Do you multiply by 1 / C?": change(
            MOMENTS, "(squares) / C", "(squares) * (1 / C)"
        ),
        "so that they add up to 0": change(
            MOMENTS,
            "difference * difference",
            "difference",
            "sqrtf(warp_sum(squares) / C",
            "sqrtf(0 * warp_sum(squares) / C",
        ),
        "both sums must go through warp_sum": change(
            MOMENTS, "warp_sum(total)", "total", "warp_sum(squares)", "squares"
        ),
        "that of each lane's own elements": change(MOMENTS, "warp_sum(total)", "total"),
        "different numbers": change(MOMENTS, "warp_sum(total)", "total", "if (lane == 0) ", ""),
        "get to the same exchange: thread 0 waits for its warp in warp_sum()": """
    float total = 0.0f, squares = 0.0f;
    for (int j = lane; j < C; j += 32) total += x[row * C + j];
    if (lane == 0) mean[row] = warp_sum(total) / C;
    """,
        "right for rows around 0, but not for those around 500": """
    float a = 0.0f, b = 0.0f;
    for (int j = lane; j < C; j += 32) {
        a += x[row * C + j];
        b += x[row * C + j] * x[row * C + j];
    }
    a = warp_sum(a) / C;
    b = warp_sum(b) / C - a * a;
    if (lane == 0) {
        mean[row] = a;
        rstd[row] = 1.0f / sqrtf(b + eps);
    }
    """,
        "eps stands outside": change(
            MOMENTS, "sqrtf(warp_sum(squares) / C + eps)", "(sqrtf(warp_sum(squares) / C) + eps)"
        ),
        "eps is missing": change(MOMENTS, " + eps", ""),
        "Bessel's correction": change(MOMENTS, "(squares) / C", "(squares) / (C - 1)"),
        "The root is missing": change(
            MOMENTS, "sqrtf(warp_sum(squares) / C + eps)", "(warp_sum(squares) / C + eps)"
        ),
        "rstd holds the standard deviation": change(MOMENTS, "1.0f / sqrtf", "sqrtf"),
        "rstd holds the variance": change(
            MOMENTS, "1.0f / sqrtf(warp_sum(squares) / C + eps)", "warp_sum(squares) / C"
        ),
        "The mean is the sum": change(MOMENTS, "(total) / C", "(total)"),
        "divided by 32": change(MOMENTS, "(total) / C", "(total) / 32"),
        "The sum of squares is not divided by C": change(MOMENTS, "(squares) / C", "(squares)"),
        "subtract the mean before squaring": change(MOMENTS, " - m;", ";"),
        "C / 32 of two ints": change(
            MOMENTS,
            "for (int j = lane; j < C; j += 32)",
            "for (int k = 0, j = lane; k < C / 32; k++, j += 32)",
        ),
        "a lane takes one element": change(
            MOMENTS, "for (int j = lane; j < C; j += 32)", "for (int j = lane; j < min(C, 32); j += 32)"
        ),
        "The stride is blockDim.x = 64": change(MOMENTS, "j += 32", "j += blockDim.x"),
        "The stride is 32": change(MOMENTS, "j += 32", "j++"),
        "All warps read the first row": change(MOMENTS, "row * C + j", "j"),
        "changed places": change(MOMENTS, "mean[row] = m", "mean[row] = r", "rstd[row] = r", "rstd[row] = m"),
        "eps is added to rstd": change(
            MOMENTS, "warp_sum(squares) / C + eps)", "warp_sum(squares) / C) + eps"
        ),
        "Each lane adds up the whole row": change(MOMENTS, "j = lane; j < C; j += 32", "j = 0; j < C; j++"),
        "Do all sums begin with = 0.0f?": change(MOMENTS, "total = 0.0f, squares = 0.0f", "total, squares"),
        "Nobody writes rstd[0]": change(MOMENTS, "rstd[row] = r;", ""),
    },
)

wrong_texts(
    "input_gradient",
    {
        "Each lane goes on with its own two sums": change(
            INPUT_GRADIENT, "warp_sum(along_ones)", "along_ones", "warp_sum(along_xhat)", "along_xhat"
        ),
        "dx lacks the part of both means": change(INPUT_GRADIENT, ") / C", ") * (1 / C)"),
        "The standard deviation is held constant": change(INPUT_GRADIENT, " - xhat * along_xhat", ""),
        "The mean is held constant": change(INPUT_GRADIENT, " - along_ones", ""),
        "The sum of dxhat is that of each lane alone: it must": change(
            INPUT_GRADIENT, "warp_sum(along_ones)", "along_ones"
        ),
        "The sum of dxhat * xhat is that of each lane alone: it must": change(
            INPUT_GRADIENT, "warp_sum(along_xhat)", "along_xhat"
        ),
        "The sum of dxhat is that of each lane alone, and not": change(
            INPUT_GRADIENT, "    along_ones = warp_sum(along_ones) / C;\n", ""
        ),
        "sums where means belong": change(INPUT_GRADIENT, ") / C", ")"),
        "The sum of dxhat is not divided": change(INPUT_GRADIENT, "(along_ones) / C", "(along_ones)"),
        "The sum of dxhat * xhat is not divided": change(INPUT_GRADIENT, "(along_xhat) / C", "(along_xhat)"),
        "divided by 32": change(INPUT_GRADIENT, ") / C", ") / 32"),
        "missing in front of the second mean": change(INPUT_GRADIENT, "xhat * along_xhat)", "along_xhat)"),
        "The second mean is that of dxhat alone": change(
            INPUT_GRADIENT, "xhat * along_xhat)", "xhat * along_ones)"
        ),
        "The weight is missing": change(INPUT_GRADIENT, " * weight[j]", ""),
        "The weight comes too late": change(
            INPUT_GRADIENT, " * weight[j]", "", "= r * (", "= r * weight[j] * ("
        ),
        "The factor rstd in front": change(INPUT_GRADIENT, "= r * (", "= ("),
        "dx is divided by rstd": change(INPUT_GRADIENT, "= r * (", "= 1 / r * ("),
        "x stands where xhat belongs": change(INPUT_GRADIENT, "(x[row * C + j] - m) * r", "x[row * C + j]"),
        "xhat lacks the factor rstd": change(INPUT_GRADIENT, "- m) * r", "- m)"),
        "A plus where a minus belongs: - xhat": change(INPUT_GRADIENT, "- xhat * along", "+ xhat * along"),
        "get to the same exchange": change(
            INPUT_GRADIENT, "    along_xhat = warp", "    if (lane < C % 32) along_xhat = warp"
        ),
        "both write dx[0, 0]": change(INPUT_GRADIENT, "dx[row * C + j] =", "dx[j] ="),
        "Nobody writes dx[0, 32]": change(INPUT_GRADIENT, "j += 32", "j += blockDim.x"),
        "(+= reads, too.)": change(INPUT_GRADIENT, "dx[row * C + j] =", "dx[row * C + j] +="),
        "In the second sum x stands": change(
            INPUT_GRADIENT, "dxhat * (x[row * C + j] - m) * r", "dxhat * x[row * C + j]"
        ),
        "a variable that never got a first value": change(
            INPUT_GRADIENT, "along_ones = 0.0f, along_xhat = 0.0f", "along_ones, along_xhat"
        ),
        "reads weight[70]": change(INPUT_GRADIENT, "weight[j]", "weight[row * C + j]"),
        "has the wrong sign, everywhere": change(INPUT_GRADIENT, "= r * (", "= -r * ("),
    },
)

wrong_texts(
    "weight_gradient",
    {
        "several threads change dweight[0] in line 3": """
    if (column < C)
        for (int n = threadIdx.y; n < N; n += 8)
            dweight[column] += dout[n * C + column] * xhat[n * C + column];
    """,
        "thread (8, 0) has left the kernel": "if (column >= C) return;" + WEIGHT_GRADIENT,
        "line 5 (`part[threadIdx.y][threadIdx.x] = total;`), and no barrier": change(
            WEIGHT_GRADIENT, "__syncthreads();", ""
        ),
        "both write dweight[0]": """
    float total = 0.0f;
    for (int n = threadIdx.y; column < C && n < N; n += 8)
        total += dout[n * C + column] * xhat[n * C + column];
    if (column < C) dweight[column] = total;
    """,
        "dweight has 40 elements": change(
            WEIGHT_GRADIENT, "threadIdx.y == 0 && column < C", "threadIdx.y == 0"
        ),
        "dout has 800 elements": change(WEIGHT_GRADIENT, "    if (column < C)\n", ""),
        "both write a place in shared memory": change(
            WEIGHT_GRADIENT,
            "[8][32]",
            "[256]",
            "[threadIdx.y][threadIdx.x]",
            "[threadIdx.y * 8 + threadIdx.x]",
            "[i][threadIdx.x]",
            "[i * 8 + threadIdx.x]",
        ),
        "several threads change a place in shared memory": """
    __shared__ float part[32];
    if (threadIdx.y == 0) part[threadIdx.x] = 0.0f;
    __syncthreads();
    for (int n = threadIdx.y; column < C && n < N; n += 8)
        part[threadIdx.x] += dout[n * C + column] * xhat[n * C + column];
    __syncthreads();
    if (threadIdx.y == 0 && column < C) dweight[column] = part[threadIdx.x];
    """,
        "blocks never wait for each other": change(
            WEIGHT_GRADIENT, "dweight[column] =", "dweight[threadIdx.x] ="
        ),
        "xhat is missing": change(WEIGHT_GRADIENT, " * xhat[n * C + column]", ""),
        "takes one row and stops": change(
            WEIGHT_GRADIENT,
            "for (int n = threadIdx.y; n < N; n += 8)",
            "for (int n = threadIdx.y; n < min(N, 8); n += 8)",
        ),
        "are not put together": change(
            WEIGHT_GRADIENT, "for (int i = 1; i < 8; i++) total += part[i][threadIdx.x];", ""
        ),
        "counted twice": change(WEIGHT_GRADIENT, "int i = 1", "int i = 0"),
        "The last of the 8 warps": change(WEIGHT_GRADIENT, "i < 8", "i < 7"),
        "The stride is 8": change(WEIGHT_GRADIENT, "n += 8", "n++"),
        "8 times as large": change(WEIGHT_GRADIENT, "n = threadIdx.y; n < N; n += 8", "n = 0; n < N; n++"),
        "Begin at threadIdx.y.": change(WEIGHT_GRADIENT, "n = threadIdx.y;", "n = 0;"),
        "N / 8 of two ints": change(
            WEIGHT_GRADIENT,
            "int n = threadIdx.y; n < N; n += 8",
            "int k = 0, n = threadIdx.y; k < N / 8; k++, n += 8",
        ),
        "a gradient is no mean": change(WEIGHT_GRADIENT, "= total;\n    }", "= total / N;\n    }"),
        "dweight stays 0": "",
        "The first of the 8 warps": change(
            WEIGHT_GRADIENT, "for (int i = 1", "total = 0.0f;\n for (int i = 1"
        ),
        "reads a place in shared memory": change(
            WEIGHT_GRADIENT,
            "part[threadIdx.y][threadIdx.x] = total;",
            "if (threadIdx.y < 4) part[threadIdx.y][threadIdx.x] = total;",
        ),
    },
)
