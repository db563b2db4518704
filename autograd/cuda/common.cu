// Shared by all kernels. Arrays are contiguous float32 unless said otherwise; counts are long long, so that
// no product of two of them overflows. Every sum is taken in a fixed order:
// the same input gives the same bits.

#define FULL_WARP 0xffffffffu
#define MULTIPLIER_0 0xD2E7470EE14C6C93ull  // of Philox4x64
#define MULTIPLIER_1 0xCA5A826395121157ull

__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset; offset >>= 1) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}

// The sum of x over a block of any number of whole warps, handed to all its threads.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();  // a former sum may still be read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
}

__device__ __forceinline__ float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : -3.4e38f);
}

__device__ __forceinline__ long long global_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

// Kernels that give each row to one warp: which row this is.
__device__ __forceinline__ long long global_warp() { return global_thread() / 32; }

// Where dropout draws its bits: autograd/random.py's Stream. `row` numbers the array's first row (sequence).
struct Place {
    unsigned long long seed, step_and_site;
    long long row;
};

// Bit i: whether element i of a group of 32 is kept, each with a byte of Philox4x64-10's output for this
// counter (Salmon et al. 2011; the same numbers as NumPy's Philox). A byte below `dropped` drops.
__device__ __forceinline__ unsigned keep_bits(Place place, unsigned long long counter, unsigned dropped) {
    unsigned long long c[4] = {counter, 0, 0, 0}, k0 = place.seed, k1 = place.step_and_site;
    for (int round = 0; round < 10; round++) {
        unsigned long long high0 = __umul64hi(MULTIPLIER_0, c[0]), low0 = MULTIPLIER_0 * c[0];
        unsigned long long high1 = __umul64hi(MULTIPLIER_1, c[2]), low1 = MULTIPLIER_1 * c[2];
        c[0] = high1 ^ c[1] ^ k0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    unsigned bits = 0;
    for (int word = 0; word < 4; word++)
        for (int byte = 0; byte < 8; byte++)
            bits |= (unsigned)(((c[word] >> (8 * byte)) & 255) >= dropped) << (8 * word + byte);
    return bits;
}

// keep_bits of group `group` of row `row` of an array whose rows have `per_row` elements. NumPy counts up
// before it draws.
__device__ __forceinline__ unsigned keep_group(Place place, long long row, long long group, long long per_row,
                                               unsigned dropped) {
    long long groups = (per_row + 31) / 32;
    return keep_bits(place, (unsigned long long)((place.row + row) * groups + group + 1), dropped);
}
