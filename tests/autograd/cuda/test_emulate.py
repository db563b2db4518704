"""The CPU emulator of CUDA kernels: right ones give NumPy's numbers in any order, wrong ones are noticed."""

import numpy as np
import pytest

from tests.stand_ins import emulate
from tests.stand_ins.emulate import ORDERS, KernelError

pytestmark = pytest.mark.skipif(
    emulate.COMPILER is None, reason="no C++ compiler (g++) to run CUDA kernels on the CPU with"
)

ROW_SUMS = """
template <int WIDTH> __device__ __forceinline__ float warp_sum(float x) {
    #pragma unroll
    for (int k = WIDTH / 2; k; k >>= 1) x += __shfl_xor_sync(0xffffffffu, x, k);
    return x;
}

extern "C" __global__ void __launch_bounds__(256)
row_sums(const float* __restrict__ x, float* __restrict__ out, int n) {
    __shared__ float partial[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[(size_t)blockIdx.x * n + i];
    sum = warp_sum<32>(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
        sum = warp_sum<32>(sum);
        if (threadIdx.x == 0) out[blockIdx.x] = sum;
    }
}
"""


def row_sums(source=ROW_SUMS, order="ascending", rows=5, n=1000, threads=256):
    x = np.random.default_rng(0).standard_normal((rows, n)).astype(np.float32)
    out = np.full(rows, np.nan, np.float32)
    kernel = emulate.compile(source, order).get_function("row_sums")
    kernel((rows,), (threads,), (x, out, np.int32(n)))
    return out, x.sum(1, dtype=np.float64)


def run(body, *args, grid=(1,), block=(64,), parameters="float *x, int n", order="ascending", shared_mem=0):
    """Compile a kernel with this body, and launch it."""
    source = f'\nextern "C" __global__ void kernel({parameters}) {{ {body} }}'
    emulate.compile(source, order).get_function("kernel")(grid, block, args, shared_mem=shared_mem)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n, threads", [(1000, 256), (1, 32), (31, 64), (257, 1024)])
def test_a_block_reduction_equals_numpy_in_every_order(order, n, threads):
    out, expected = row_sums(order=order, n=n, threads=threads)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_orders_differ():
    """The order of turns shows in the order in which threads reach a counter."""
    arrivals = {}
    for order in ORDERS:
        place, counter = np.zeros(128, np.int32), np.zeros(1, np.int32)
        body = "place[blockIdx.x * 64 + threadIdx.x] = atomicAdd(counter, 1);"
        run(body, place, counter, grid=(2,), order=order, parameters="int *place, int *counter")
        arrivals[order] = place.tolist()
    assert len({tuple(a) for a in arrivals.values()}) == len(ORDERS)
    assert arrivals["ascending"] == arrivals["descending"][::-1] == list(range(128))
    assert sorted(arrivals[2]) == list(range(128))


@pytest.mark.parametrize("missing", ["__syncthreads();"])
def test_a_missing_barrier_shows(missing):
    errors = [np.abs(np.subtract(*row_sums(ROW_SUMS.replace(missing, ""), order))).max() for order in ORDERS]
    assert any(not error < 1e-2 for error in errors)


def test_a_barrier_missing_before_shared_memory_is_used_again_shows():
    """The second value must not overtake a slow reader of the first."""
    body = """
        __shared__ float value;
        for (int i = 0; i < n; i++) {
            if (threadIdx.x == 0) value = i;
            __syncthreads();
            x[threadIdx.x] += value;
            LAST
        }"""
    for last, right in (("__syncthreads();", True), ("", False)):
        results = []
        for order in ORDERS:
            x = np.zeros(64, np.float32)
            run(body.replace("LAST", last), x, np.int32(4), order=order)
            results.append((x == 6).all())
        assert all(results) == right


@pytest.mark.parametrize("size", [64, 61])
@pytest.mark.parametrize("beyond", [0, 1, 20, 5000, 1_000_000, -65, -165, -2065, -100_000])
def test_a_write_outside_an_array_is_caught(size, beyond):
    with pytest.raises(KernelError, match="outside"):
        run("if (threadIdx.x == 5) x[n] = 1.0f;", np.zeros(size, np.float32), np.int32(size + beyond))


def test_a_read_outside_an_array_is_caught_or_gives_nan():
    with pytest.raises(KernelError, match=r"access outside the arrays.*block 0,0,0 thread 63,0,0"):
        run("x[0] = x[threadIdx.x + 1];", np.zeros(64, np.float32), np.int32(64))
    x = np.zeros(61, np.float32)
    run("x[0] = x[n];", x, np.int32(61))
    assert np.isnan(x[0])


@pytest.mark.parametrize(
    "body, message",
    [
        (
            "if (threadIdx.x < 40) __syncthreads();",
            r"thread 0,0,0 waits at __syncthreads in line 2, thread 40,0,0 has left",
        ),
        ("if (threadIdx.x >= n) return;\n__syncthreads();", "divergent barrier"),
        (
            "if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();",
            r"in line 2, thread 32,0,0 waits .* line 3",
        ),
        ("if (threadIdx.x % 2) __syncwarp();", r"thread 1,0,0 waits for lanes of its warp"),
        ("if (threadIdx.x < 16) x[0] = __shfl_xor_sync(~0u, 1.0f, 1);", "divergent barrier"),
        ("__shfl_sync(1u, 1.0f, 0);", "lane 1 is not in its own mask 0x1"),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_divergent_barrier_is_reported(body, message, order):
    with pytest.raises(KernelError, match=message if order == "ascending" else "divergent barrier|own mask"):
        run(body, np.zeros(64, np.float32), np.int32(50), order=order)


@pytest.mark.parametrize(
    "body, message",
    [
        (
            "__shared__ float part[32]; part[threadIdx.x] = 1.0f;",
            r"line 2: index outside the array .*thread 32,0,0",
        ),
        (
            "float mine[4]; for (int i = 0; i <= n; i++) mine[i] = i; x[0] = mine[2];",
            "index outside the array",
        ),
        ("((float4 *)(x + 1))[0].x = 1.0f;", "misaligned"),
        ("x[0] = n + 2147483647;", "integer overflow"),
        ("x[0] = 1 << (n * 32);", "shift"),
        ("x[0] = 1 / (n - 4);", "division by zero"),
        ("assert(n == 3);", r"assert\(n == 3\)"),
    ],
)
def test_undefined_operations_are_reported(body, message):
    with pytest.raises(KernelError, match=message):
        run(body, np.zeros(64, np.float32), np.int32(4))


def test_unwritten_shared_memory_is_nan_in_every_block():
    x = np.zeros(6, np.float32)
    body = """
        extern __shared__ __align__(16) float more[];
        __shared__ float few[2];
        x[3 * blockIdx.x] = few[1], x[3 * blockIdx.x + 1] = more[3];
        few[1] = more[3] = n;
        x[3 * blockIdx.x + 2] = few[1] + more[3];"""
    run(body, x, np.int32(4), grid=(2,), block=(1,), shared_mem=16)
    np.testing.assert_array_equal(x, [np.nan, np.nan, 8] * 2)
    with pytest.raises(KernelError, match="outside"):
        run(body, x, np.int32(4), block=(1,), shared_mem=12 - 12)


def test_words_of_the_language():
    """Indices in three dimensions, vectors, shuffles, votes, atomics and the arithmetic of integers."""
    x = np.zeros((2, 3, 4, 5), np.int32)
    body = """
        int i = ((blockIdx.x * 3 + threadIdx.z) * 4 + threadIdx.y) * 5 + threadIdx.x;
        x[i] = 1000 * blockIdx.x + n * threadIdx.x;"""
    run(body, x, np.int32(7), grid=(2, 1, 1), block=(5, 4, 3), parameters="int *x, int n")
    np.testing.assert_array_equal(x, np.broadcast_to([[[[0]]], [[[1000]]]] + 7 * np.arange(5), x.shape))
    lanes = np.zeros((6, 32), np.uint32)
    body = """
        unsigned i = threadIdx.x, all = 0xffffffffu;
        x[i] = __shfl_down_sync(all, i, 3);
        x[32 + i] = __shfl_up_sync(all, i, 1, 8);
        x[64 + i] = __shfl_sync(all, i, 9);
        x[96 + i] = __shfl_xor_sync(all, i, 5, 8);
        x[128 + i] = __ballot_sync(all, i % 3 == 0) + __any_sync(all, i == 40) + __all_sync(all, i < 32);
        uint2 two = make_uint2(__umulhi(0xdeadbeefu, i << 28), (unsigned)(__umul64hi(~0ull, i) >> 0));
        x[160 + i] = two.x + two.y + __popc(i);"""
    run(body, lanes, block=(32,), parameters="unsigned *x")
    i = np.arange(32)
    np.testing.assert_array_equal(lanes[0], np.where(i + 3 < 32, i + 3, i))
    np.testing.assert_array_equal(lanes[1], np.where(i % 8 > 0, i - 1, i))
    np.testing.assert_array_equal(lanes[2], 9)
    np.testing.assert_array_equal(lanes[3], i ^ 5)
    np.testing.assert_array_equal(lanes[4], sum(1 << k for k in range(0, 32, 3)) + 1)
    high = [(0xDEADBEEF * (k << 28 & 0xFFFFFFFF)) >> 32 for k in range(32)]
    expected = [h + max(k - 1, 0) + bin(k).count("1") for k, h in enumerate(high)]
    np.testing.assert_array_equal(lanes[5], expected)


def test_float_functions():
    x = np.linspace(0.1, 2, 64, dtype=np.float32)
    expected = 1 / np.sqrt(x) + np.exp2(x) + 2 * np.exp(x) + np.tanh(x) + np.maximum(x, 1)
    run(
        "float v = x[threadIdx.x]; x[threadIdx.x] = rsqrtf(v) + exp2f(v) + expf(v) + __expf(v) + tanhf(v) + "
        "fmaxf(v, n);",
        x,
        np.int32(1),
    )
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_arrays_that_share_memory_still_do():
    x = np.arange(8, dtype=np.float32)
    run(
        "if (threadIdx.x < 4) y[threadIdx.x] += x[4 + threadIdx.x];",
        x[4:],
        x,
        block=(4,),
        parameters="float *y, const float *x",
    )
    np.testing.assert_array_equal(x, [0, 1, 2, 3, 8, 10, 12, 14])


ANY = np.zeros(64, np.float32)


@pytest.mark.parametrize(
    "args, message",
    [
        ((ANY,), "takes 2 arguments, not 1"),
        ((ANY, 3), "argument 1 is a int; pass an array or a NumPy scalar"),
        ((ANY, np.int64(3)), "argument 1 is int64, the kernel takes int32"),
        ((ANY, np.float32(3)), "argument 1 is float32, the kernel takes int32"),
        ((ANY.astype(np.float64), np.int32(3)), "argument 0 is float64, the kernel takes float32"),
        ((ANY[::2], np.int32(3)), "argument 0 is not contiguous"),
        ((np.float32(3), np.int32(3)), "argument 0 should be an array"),
        ((np.uintp(0), np.int32(3)), "null address"),
    ],
)
def test_wrong_arguments_are_refused(args, message):
    with pytest.raises(KernelError, match=message):
        run("x[0] = n;", *args)


def test_launches_that_cuda_refuses_are_refused():
    blocks = [dict(block=block) for block in ((2048,), (32, 64), (1, 1, 65))]
    for shape in (*blocks, dict(grid=(0,)), dict(grid=(1, 70000))):
        with pytest.raises(KernelError, match="CUDA has no grid"):
            run("", ANY, np.int32(0), **shape)
    with pytest.raises(KernelError, match="max_dynamic_shared_size_bytes"):
        run("", ANY, np.int32(0), shared_mem=50_000)


def test_messages_about_the_source():
    with pytest.raises(KernelError, match="no kernel 'nothing' in this source; it has row_sums"):
        emulate.compile(ROW_SUMS).get_function("nothing")
    with pytest.raises(KernelError, match=r"<stdin>:3:.*not declared"):
        run("\n x[0] = unknown;")
    assert len(emulate.compile("#define K(a) __global__ void a() {}\nK(one) K(two)").names) == 2
    x = ANY.copy()
    source = 'extern "C" __global__ void k(float *x) { x[0] = COUNT; }'
    emulate.compile(source, options=("-DCOUNT=5", "--use_fast_math")).get_function("k")((1,), (1,), (x,))
    assert x[0] == 5
