"""Bugs in CUDA code that several operations share: sums of warps, blocks and columns; the bits of dropout."""

from tests.operations.record import Bug

KERNEL_BUGS = [
    Bug(
        "the first reader does not wait for the sums of all warps",
        right="    __syncthreads();\n    if (threadIdx.x % 32 < blockDim.x / 32) of_warp",
        wrong="    if (threadIdx.x % 32 < blockDim.x / 32) of_warp",
        caught_by="cross_entropy_kernels",
    ),
    Bug(
        "an array at an odd place is read four numbers at a time",
        right=" && (reinterpret_cast<unsigned long long>(arrays) | ...) % 16 == 0",
        wrong="",
        caught_by="attention_kernels",
    ),
    Bug(
        "rows of odd lengths are read four numbers at a time",
        right="length % 4 == 0 && ",
        wrong="",
        caught_by="attention_kernels",
    ),
    Bug(
        "a larger exponent leaves the sum so far as it is",
        right="        total *= expf(before - largest);\n",
        wrong="",
        caught_by="attention_kernels_over_many_keys",
    ),
    Bug(
        "the lanes' sums have different exponents",
        right="warp_sum(x.total * expf(x.largest - largest))",
        wrong="warp_sum(x.total)",
        caught_by="attention_kernels",
    ),
    Bug(
        "numbers beyond the row are in the sum",
        right="if (i < count) total += ",
        wrong="total += ",
        caught_by="cross_entropy_kernels",
    ),
    Bug(
        "half of each warp is left out of a sum",
        right="for (int offset = 16; offset; offset >>= 1) x +=",
        wrong="for (int offset = 8; offset; offset >>= 1) x +=",
        caught_by="layer_norm_kernels",
    ),
    Bug(
        "the counter starts at 0, not at 1",
        right="* groups + group + 1)",
        wrong="* groups + group)",
        caught_by="dropout_kernel",
    ),
    Bug(
        "the row of the stream is forgotten",
        right="(place.row + row) * groups",
        wrong="row * groups",
        caught_by="dropout_kernel",
    ),
    Bug("nine rounds of Philox", right="round < 10", wrong="round < 9", caught_by="dropout_kernel"),
    Bug(
        "a byte equal to the threshold drops",
        right="& 255) >= dropped",
        wrong="& 255) > dropped",
        caught_by="attention_kernels",
    ),
    Bug(
        "the rows of a block are added without waiting",
        right="    parts[threadIdx.y][threadIdx.x] = total;\n    __syncthreads();",
        wrong="    parts[threadIdx.y][threadIdx.x] = total;",
        caught_by="linear_kernels",
    ),
    Bug(
        "the rows of the next sum are written while these are added",
        right="    __syncthreads();  // all are read before the next are written\n",
        wrong="",
        caught_by="layer_norm_kernels",
    ),
    Bug(
        "a block's last columns lie beyond the array",
        right="threadIdx.y == 0 && column < C && i",
        wrong="threadIdx.y == 0 && i",
        caught_by="linear_kernels",
    ),
    Bug(
        "a bias's gradient is not added to what is there",
        right="(add ? out[column + i] : 0.0f)",
        wrong="0.0f",
        caught_by="linear_kernels",
    ),
    Bug(
        "the first block adds up what is not there yet",
        right="before == gridDim.y - 1",
        wrong="before == 0",
        caught_by="linear_kernels",
    ),
    Bug(
        "blocks that have arrived are never forgotten",
        right="atomicInc((unsigned*)arrived + blockIdx.x, gridDim.y - 1)",
        wrong="atomicAdd((unsigned*)arrived + blockIdx.x, 1)",
        caught_by="linear_kernels",
    ),
    Bug(
        "all columns count their blocks together",
        right="(unsigned*)arrived + blockIdx.x",
        wrong="(unsigned*)arrived",
        caught_by="linear_kernels",
    ),
    Bug(
        "other threads do not wait to learn whether their block is the last",
        right="        last = before == gridDim.y - 1;\n    }\n    __syncthreads();",
        wrong="        last = before == gridDim.y - 1;\n    }",
        caught_by="linear_kernels",
    ),
]
