// Shared by all kernels. Arrays are contiguous float32 unless said otherwise; counts are long long, so that
// no product of two of them overflows. Every sum is taken in a fixed order:
// the same input gives the same bits.

#define FULL_WARP 0xffffffffu
#define MULTIPLIER_0 0xD2E7470EE14C6C93ull  // of Philox4x64
#define MULTIPLIER_1 0xCA5A826395121157ull

// --- four numbers at a time

// Kernels are written once for a vector V: float4, which one instruction loads, or float where that is not
// possible (see `fours`).
template <class V> constexpr int WIDTH = sizeof(V) / sizeof(float);

template <class V> __device__ __forceinline__ V load(const float* x) {
    return *reinterpret_cast<const V*>(x);
}

template <class V> __device__ __forceinline__ void store(float* x, V v) { *reinterpret_cast<V*>(x) = v; }

template <class V> __device__ __forceinline__ float& part(V& v, int i) {
    return reinterpret_cast<float*>(&v)[i];
}

template <class V> __device__ __forceinline__ void add_to(V& total, V x) {
    for (int i = 0; i < WIDTH<V>; i++) part(total, i) += part(x, i);
}

// Whether rows of this length can be taken four numbers at a time: they begin at multiples of 16 bytes.
template <class... P> __device__ __forceinline__ bool fours(long long length, const P*... arrays) {
    return length % 4 == 0 && (reinterpret_cast<unsigned long long>(arrays) | ...) % 16 == 0;
}

// --- sums

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

// For sums of columns, in blocks of 32 by 8 threads: the sum of what 8 warps found for the same columns, for
// the first warp.
template <class V> __device__ __forceinline__ V sum_of_warps(V total) {
    __shared__ V parts[8][32];
    parts[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    for (int i = 1; threadIdx.y == 0 && i < 8; i++) add_to(total, parts[i][threadIdx.x]);
    __syncthreads();  // all are read before the next are written
    return total;
}

// Sums of the columns of arrays (N, C), in a grid of S rows of such blocks: a thread takes one vector of
// columns, and each warp every (8 S)th row. A block keeps its sums in `partial` (S, C). The block that comes
// last (all others are done then) adds up those of all. So the order of the sum is fixed, whichever block
// that is.
template <class V>
__device__ __forceinline__ void keep_sums(V total, float* partial, long long column, long long C) {
    total = sum_of_warps(total);
    if (threadIdx.y == 0 && column < C) store(partial + blockIdx.y * C + column, total);
}

// Whether this block is the last for its columns. `arrived`: for each blockIdx.x how many have come; 0 before
// the launch, and 0 after it.
__device__ __forceinline__ bool is_last(int* arrived) {
    __shared__ bool last;
    __threadfence();  // whoever sees that this block has arrived sees its sums, too
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        // Counts up, and makes it 0 for the last one.
        unsigned before = atomicInc((unsigned*)arrived + blockIdx.x, gridDim.y - 1);
        last = before == gridDim.y - 1;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// out (C) = the sums of all blocks; if `add`, added to what is there.
template <class V>
__device__ __forceinline__ void add_up(const float* partial, float* out, long long column, long long C,
                                       bool add) {
    V total = V();
    for (long long row = threadIdx.y; row < gridDim.y; row += 8)
        if (column < C) add_to(total, load<V>(partial + row * C + column));
    total = sum_of_warps(total);
    for (int i = 0; threadIdx.y == 0 && column < C && i < WIDTH<V>; i++)
        out[column + i] = part(total, i) + (add ? out[column + i] : 0.0f);
}

// A sum of exponentials, total * exp(largest). It takes one pass over the exponents, and cannot overflow:
// each time a larger exponent comes, the sum so far is scaled down (Milakov and Gimelshein 2018).
struct Exponentials {
    float largest, total;

    // Adds the first `count` numbers of a vector.
    template <class V> __device__ __forceinline__ void add(V x, long long count) {
        float before = largest;
        for (int i = 0; i < WIDTH<V>; i++)
            if (i < count) largest = fmaxf(largest, part(x, i));
        total *= expf(before - largest);
        for (int i = 0; i < WIDTH<V>; i++)
            if (i < count) total += expf(part(x, i) - largest);
    }
};

#define NO_EXPONENTIALS {-3.4e38f, 0.0f}  // finite, so that differences of exponents are numbers

__device__ __forceinline__ Exponentials warp_sum(Exponentials x) {
    float largest = warp_max(x.largest);
    return {largest, warp_sum(x.total * expf(x.largest - largest))};
}

__device__ __forceinline__ Exponentials block_sum(Exponentials x) {
    __shared__ Exponentials parts[32];
    x = warp_sum(x);
    __syncthreads();  // a former sum may still be read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    Exponentials of_warp = NO_EXPONENTIALS;
    __syncthreads();
    if (threadIdx.x % 32 < blockDim.x / 32) of_warp = parts[threadIdx.x % 32];
    return warp_sum(of_warp);
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
