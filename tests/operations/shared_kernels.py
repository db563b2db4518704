"""Bugs in CUDA code that several operations share: sums of warps, blocks and columns; the bits of dropout."""

from tests.operations.record import Bug

KERNEL_BUGS = [
    Bug(
        "the first reader does not wait for the sums of all warps",
        right="    __syncthreads();\n    return warp_sum(",
        wrong="    return warp_sum(",
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
        "a block's last columns lie beyond the array",
        right="if (threadIdx.y == 0 && column < C) {",
        wrong="if (threadIdx.y == 0) {",
        caught_by="linear_kernels",
    ),
    Bug(
        "a bias's gradient is not added to what is there",
        right="total + (add ? out",
        wrong="total + (false ? out",
        caught_by="linear_kernels",
    ),
]
