"""Notebook 12: the engine's layer norm in CUDA C, line by line, with a note on every line.

The code is taken from its file, so it is what runs. A note stands with the line that begins with its first
words, and covers the lines up to the next note's. If the code changes, `read` fails until the notes fit.
"""

import html
import re
import textwrap

from autograd.cuda import launch


class Reading:
    """Source code beside notes on it. pieces: [(lines of code, note)]."""

    def __init__(self, title, pieces):
        self.title, self.pieces = title, pieces

    def __repr__(self):
        lines = [self.title]
        for code, note in self.pieces:
            lines += [*code, *(f"        ▸ {line}" for line in textwrap.wrap(note, 92))]
        return "\n".join(lines)

    def _repr_html_(self):
        cell = "text-align: left; vertical-align: top; padding: 2px 8px; white-space: normal"
        code_style = (
            "margin: 0; padding: 0; background: none; font-family: monospace; font-size: 12px; white-space: "
            "pre-wrap; word-break: normal"
        )
        rows = "".join(
            f'<tr><td style="{cell}; width: 58%"><pre style="{code_style}">'
            f"{html.escape(_narrow(code))}</pre></td>"
            f'<td style="{cell}">{_marked(note)}</td></tr>'
            for code, note in self.pieces
        )
        return f'<p><b>{html.escape(self.title)}</b></p><table style="width: 100%">{rows}</table>'


def _narrow(code):
    """The lines with half of their indentation, and less where a line of parameters goes on."""
    indented = [(len(line) - len(line.lstrip()), line.lstrip()) for line in code]
    return "\n".join(" " * (8 if indent > 24 else indent // 2) + line for indent, line in indented)


def _marked(note):
    text = re.sub(r"`(.*?)`", r"<code>\1</code>", html.escape(note, quote=False))
    return re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", text)


def read(name):
    """The Reading of a function of the engine."""
    file, first, last, notes = READINGS[name]
    text = launch.text_of(file)
    begin = text.index(first)
    end = text.index(last, begin) + len(last)
    pieces, rest = [], list(notes)
    for line in text[begin:end].split("\n"):
        if rest and line.strip().startswith(rest[0][0]):
            pieces.append(([line], rest.pop(0)[1]))
        elif pieces:
            pieces[-1][0].append(line)
        else:
            raise ValueError(f"{file}: no note on {line.strip()!r}")
    if rest:
        raise ValueError(f"{file}, {name}: no line begins with {rest[0][0]!r}")
    return Reading(f"{name}, in autograd/cuda/{file}", pieces)


FUNCTION_END = "\n}"
READINGS = {  # what to read: (file, first words, last words, [(how a line begins, the note)])
    "warp_sum": (
        "common.cu",
        "__device__ __forceinline__ float warp_sum(float x)",
        FUNCTION_END,
        [
            (
                "__device__",
                "`__device__`: called by kernels, not from Python. `__forceinline__`: its code is put where "
                "it is called, so a call costs nothing.",
            ),
            ("for (int offset", "Your exercise 3. `offset >>= 1` is halving."),
            ("return", "Every lane has the same sum."),
        ],
    ),
    "load, store, part": (
        "common.cu",
        "template <class V> constexpr int WIDTH",
        "[i];\n}",
        [
            (
                "template <class V> constexpr",
                "Code with a blank, V, to be filled in: `float`, or `float4`, which is four of them. "
                "`WIDTH` is 1 or 4.",
            ),
            (
                "template <class V> __device__ __forceinline__ V load",
                "Reads one V. With `float4` that is 16 bytes by one instruction. `reinterpret_cast`: take "
                "this address as that of a V.",
            ),
            ("template <class V> __device__ __forceinline__ void store", "The way back: writes one V."),
            (
                "template <class V> __device__ __forceinline__ float& part",
                "Number i of the four. The `&` says: the number itself, not a copy.",
            ),
        ],
    ),
    "normalise": (
        "layer_norm.cu",
        "template <class V>\n__device__ __forceinline__ void normalise(const float* x",
        FUNCTION_END,
        [
            ("template", "A warp does one row. `x` and `out` point to where the row begins."),
            ("constexpr int W", "How many numbers at a time."),
            ("int lane", "Which of the warp's 32 threads this is."),
            ("float total", "In registers. Each lane has three of its own."),
            (
                "for (long long j",
                "**First pass.** A lane takes W neighbours, then goes on by 32 W, until the row ends. So no "
                "tail is lost, and at each moment the warp reads one piece of memory.",
            ),
            (
                "float mean",
                "32 sums become one, and each lane has it. A float divided by an integer is a float: no int "
                "division.",
            ),
            (
                "for (long long j",
                "**Second pass.** It reads the row again, now from a cache. First the mean, then the "
                "deviations: that needs two passes, but loses no digits.",
            ),
            (
                "float deviation",
                "Beside the squares it adds up the deviations themselves. With a perfect mean they would "
                "give 0. The mean is rounded, so a little is left.",
            ),
            ("rest =", "What is left, per element: the error of the mean."),
            (
                "float variance",
                "It corrects the variance. The rounding of a tiny variance could give less than 0, of which "
                "there is no root.",
            ),
            (
                "Moments its",
                "`eps` inside of the root. These three numbers are all that the way back needs beside x.",
            ),
            ("for (long long j", "**Third pass**, from the cache again."),
            (
                "V value",
                "Weight and bias belong to the channel, so they begin at j, whatever the row. `bias ? a : "
                "b`: a if there is a bias, else b, here 0.",
            ),
            ("for (int i", "`normalised`: (x - mean - rest) * rstd."),
            ("store", "Each element is written by exactly one lane. No race is possible."),
            ("if (lane == 0)", "One lane is enough to write the row's three numbers."),
        ],
    ),
    "layer_norm_forward": (
        "layer_norm.cu",
        'extern "C" __global__ void layer_norm_forward',
        FUNCTION_END,
        [
            (
                'extern "C"',
                "The kernel that Python launches. `long long`: integers of 64 bits, so that row * C cannot "
                "overflow.",
            ),
            ("long long row", "The number of the warp, counted over all blocks, is the number of its row."),
            (
                "if (row",
                "The last block may have warps without a row. Here a `return` does no harm: no barrier of "
                "the block follows.",
            ),
            ("bias =", "A layer norm may come without a bias."),
            (
                "if (fours",
                "If C is a multiple of 4, and all arrays begin at multiples of 16 bytes: four numbers at a "
                "time.",
            ),
            ("else", "Otherwise one at a time. The same code; only V is another."),
        ],
    ),
    "normalise_back": (
        "layer_norm.cu",
        "template <class V>\n__device__ __forceinline__ void normalise_back(",
        FUNCTION_END,
        [
            ("template", "`plus`: another gradient of x, if there is one: that of the residual connection."),
            ("constexpr int W", "As in the forward pass."),
            ("float constant_share", "The two sums of your exercise 5."),
            ("for (long long j", "**First pass**: all three arrays are read side by side."),
            (
                "for (int i",
                "dxhat = dout * weight. xhat is not kept: it is computed again from x. That is cheap.",
            ),
            ("constant_share =", "mean(dxhat), for all lanes."),
            ("xhat_share =", "mean(dxhat * xhat)."),
            ("for (long long j", "**Second pass**, from the cache."),
            ("for (int i", "The formula of notebook 5: r (dxhat - mean(dxhat) - xhat mean(dxhat xhat))."),
            (
                "if (plus)",
                "x is used twice, so its gradients add up. Done here, it saves a launch, and a trip through "
                "memory and back.",
            ),
            ("store", "Each element by one lane, as before."),
        ],
    ),
    "layer_norm_backward": (
        "layer_norm.cu",
        'extern "C" __global__ void layer_norm_backward',
        FUNCTION_END,
        [
            ('extern "C"', "The kernel. Again a warp for each row."),
            ("if (row", "Warps without a row leave."),
            ("Moments its", "Mean, rest and rstd, as the forward pass has left them."),
            ("plus =", "No `plus`, or where the row begins in it."),
            ("if (fours", "Four at a time, or one."),
        ],
    ),
    "sum_of_warps": (
        "common.cu",
        "template <class V> __device__ __forceinline__ V sum_of_warps",
        FUNCTION_END,
        [
            ("template", "For blocks of 32 by 8 threads: 8 warps have sums for the same 32 columns."),
            ("__shared__", "A place for each thread. Nobody writes where another writes."),
            ("parts[", "Its own place."),
            ("__syncthreads", "All have written, before anybody reads."),
            ("for (int i", "The first warp adds up the other seven, from top to bottom: in a fixed order."),
            (
                "__syncthreads",
                "And all have read, before anybody writes the next ones. Without this line, the second call "
                "could overwrite what the first call still reads.",
            ),
            ("return", "The sum, for the first warp. (The others return what they had.)"),
        ],
    ),
    "weight_sums": (
        "layer_norm.cu",
        "template <class V>\n__device__ __forceinline__ void weight_sums(",
        FUNCTION_END,
        [
            ("template", "dweight and dbias: sums over rows, so many warps must put their sums together."),
            (
                "long long column",
                "The thread's column (the first of four). blockIdx.x counts sets of columns.",
            ),
            (
                "if (blockIdx.x",
                "A whole block leaves, so no barrier waits for it. A single thread without a column must "
                "not leave: it is needed at the barriers.",
            ),
            ("float* second", "`partial` has two halves: for dweight and for dbias."),
            ("V of_weight", "Two sums, begun at 0."),
            ("if (column < C)", "Threads without a column add nothing, and stay."),
            ("for (long long row", "blockIdx.y counts sets of rows. Each warp takes every (8 sets)th row."),
            ("Moments its", "xhat is computed again here, too."),
            ("V d", "32 lanes read 32 neighbouring columns of one row: one piece of memory."),
            ("add_to(of_bias", "dbias: the sum of dout."),
            ("for (int i", "dweight: the sum of dout * xhat."),
            ("keep_sums(of_weight", "The block's sums go to memory, to a place of its own."),
            (
                "if (!is_last",
                "All blocks but the last one are done. Which one is last, nobody can know before.",
            ),
            ("add_up<V>(partial", "The last block adds up the sums of all blocks, in a fixed order."),
        ],
    ),
    "keep_sums": (
        "common.cu",
        "template <class V>\n__device__ __forceinline__ void keep_sums(",
        FUNCTION_END,
        [
            ("template", "What a block has found for its columns."),
            ("total =", "8 warps become one."),
            ("if (threadIdx.y", "Its first warp writes them, to row blockIdx.y of `partial`."),
        ],
    ),
    "is_last": (
        "common.cu",
        "__device__ __forceinline__ bool is_last(",
        FUNCTION_END,
        [
            (
                "__device__",
                "Is this the last block of its columns? `arrived` counts them; 0 before the launch.",
            ),
            ("__shared__", "One answer for the whole block."),
            (
                "__threadfence",
                "A **fence**: all that this thread has written is visible to all blocks, before anything "
                "that it writes later. A barrier only speaks for its own block.",
            ),
            ("__syncthreads", "So now the sums of all threads of the block are visible."),
            ("if (threadIdx.x", "One thread counts for all."),
            (
                "// Counts up",
                "atomicInc reads, adds 1 and writes in one go, and sets the counter back to 0 at the end.",
            ),
            ("last =", "It was the last one if all others had come before."),
            ("__syncthreads", "All threads wait for the answer."),
            ("__threadfence", "And from here on they do not use anything that they have read before."),
            ("return", "The same for all threads, so whole blocks go on or stop."),
        ],
    ),
    "add_up": (
        "common.cu",
        "template <class V>\n__device__ __forceinline__ void add_up(",
        FUNCTION_END,
        [
            ("template", "The last block's work: out = the sums of all blocks."),
            ("V total", "Its 8 warps share the rows of `partial`."),
            ("total =", "8 warps become one, as before."),
            (
                "for (int i",
                "Written once, by one thread for each column; added to what is there if the gradient is not "
                "the first.",
            ),
        ],
    ),
}
