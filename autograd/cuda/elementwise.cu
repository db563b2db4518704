// Bias and activation, dropout, and column sums.

enum Activation { NONE, RELU, GELU, GELU_EXACT };

__device__ __forceinline__ float activate(float x, long long kind) {
    if (kind == RELU) return x < 0.0f ? 0.0f : x;  // fmaxf would turn NaN into 0
    if (kind == GELU) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    if (kind == GELU_EXACT) return 0.5f * x * (1.0f + erff(0.7071067812f * x));
    return x;
}

__device__ __forceinline__ float slope(float x, long long kind) {
    if (kind == RELU) return x > 0.0f ? 1.0f : 0.0f;
    if (kind == GELU) {
        x = x > 10.0f ? 10.0f : x < -10.0f ? -10.0f : x;  // beyond, it stays 1 or 0, but x * x can overflow
        float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + t + x * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * x * x));
    }
    if (kind == GELU_EXACT)
        return 0.5f * (1.0f + erff(0.7071067812f * x)) + 0.3989422804f * x * expf(-0.5f * x * x);
    return 1.0f;
}

// out (N, M) = activation(pre + bias), bias (M). pre and out may be the same array. A block takes rows, one
// after the other.
template <class V>
__device__ __forceinline__ void activate_rows(const float* pre, const float* bias, float* out, long long N,
                                              long long M, long long kind) {
    for (long long row = blockIdx.x; row < N; row += gridDim.x)
        for (long long j = threadIdx.x * WIDTH<V>; j < M; j += blockDim.x * WIDTH<V>) {
            V x = load<V>(pre + row * M + j);
            if (bias) add_to(x, load<V>(bias + j));
            for (int i = 0; i < WIDTH<V>; i++) part(x, i) = activate(part(x, i), kind);
            store(out + row * M + j, x);
        }
}

extern "C" __global__ void bias_activation_forward(const float* pre, const float* bias, float* out,
                                                   long long N, long long M, long long has_bias,
                                                   long long kind) {
    bias = has_bias ? bias : nullptr;
    if (fours(M, pre, bias, out))
        activate_rows<float4>(pre, bias, out, N, M, kind);
    else
        activate_rows<float>(pre, bias, out, N, M, kind);
}

// dpre = dout * activation'(pre + bias), all (N, C); dbias (C) = the sums of its columns, if `add` added to
// what is there.
template <class V>
__device__ __forceinline__ void slopes_and_sums(const float* __restrict__ pre, const float* bias,
                                                const float* __restrict__ dout, float* __restrict__ dpre,
                                                float* partial, int* arrived, float* dbias, long long N,
                                                long long C, long long kind, bool add) {
    long long column = (blockIdx.x * 32 + threadIdx.x) * WIDTH<V>;
    if (blockIdx.x * 32 * WIDTH<V> >= C) return;  // the grid is for vectors of one number
    V total = V(), shift = bias && column < C ? load<V>(bias + column) : V();
    if (column < C)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8) {
            V x = load<V>(pre + row * C + column), d = load<V>(dout + row * C + column);
            for (int i = 0; i < WIDTH<V>; i++) part(d, i) *= slope(part(x, i) + part(shift, i), kind);
            store(dpre + row * C + column, d);
            add_to(total, d);
        }
    keep_sums(total, partial, column, C);
    if (is_last(arrived)) add_up<V>(partial, dbias, column, C, add);
}

extern "C" __global__ void activation_backward(const float* pre, const float* bias, const float* dout,
                                               float* dpre, float* partial, int* arrived, float* dbias,
                                               long long N, long long C, long long has_bias, long long kind,
                                               long long add) {
    bias = has_bias ? bias : nullptr;
    if (fours(C, pre, bias, dout, dpre, partial))
        slopes_and_sums<float4>(pre, bias, dout, dpre, partial, arrived, dbias, N, C, kind, add);
    else
        slopes_and_sums<float>(pre, bias, dout, dpre, partial, arrived, dbias, N, C, kind, add);
}

// out (C) = the sums of the first C columns of x (N, stride), if `add` added to what is there.
template <class V>
__device__ __forceinline__ void sums(const float* __restrict__ x, float* partial, int* arrived, float* out,
                                     long long N, long long C, long long stride, bool add) {
    long long column = (blockIdx.x * 32 + threadIdx.x) * WIDTH<V>;
    if (blockIdx.x * 32 * WIDTH<V> >= C) return;  // the grid is for vectors of one number
    V total = V();
    if (column < C)
        #pragma unroll 4
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8)
            add_to(total, load<V>(x + row * stride + column));
    keep_sums(total, partial, column, C);
    if (is_last(arrived)) add_up<V>(partial, out, column, C, add);
}

extern "C" __global__ void column_sums(const float* x, float* partial, int* arrived, float* out, long long N,
                                       long long C, long long stride, long long add) {
    if (fours(C, x, partial) && stride % 4 == 0)
        sums<float4>(x, partial, arrived, out, N, C, stride, add);
    else
        sums<float>(x, partial, arrived, out, N, C, stride, add);
}

// out = x * keep * keep_scale for x (rows, per_row), with a row for each sequence. A warp draws for 32
// groups, and then walks over their elements.
template <class V>
__device__ __forceinline__ void drop(const float* __restrict__ x, float* __restrict__ out, long long rows,
                                     long long per_row, Place place, unsigned dropped, float keep_scale) {
    int lane = threadIdx.x % 32;
    long long groups = (per_row + 31) / 32, first = global_warp() * 32, mine = first + lane;
    unsigned bits = 0;
    if (mine < rows * groups) bits = keep_group(place, mine / groups, mine % groups, per_row, dropped);
    for (int i = 0; i < 32; i += WIDTH<V>) {
        int its_group = i + lane * WIDTH<V> / 32, its_bit = lane * WIDTH<V> % 32;
        unsigned keep = __shfl_sync(FULL_WARP, bits, its_group) >> its_bit;
        long long group = first + its_group, element = group % groups * 32 + its_bit;
        if (group >= rows * groups || element >= per_row) continue;
        V value = load<V>(x + group / groups * per_row + element);
        for (int k = 0; k < WIDTH<V>; k++)
            part(value, k) = keep >> k & 1 ? part(value, k) * keep_scale : 0.0f;
        store(out + group / groups * per_row + element, value);
    }
}

extern "C" __global__ void dropout(const float* x, float* out, long long rows, long long per_row,
                                   unsigned long long seed, unsigned long long step_and_site,
                                   long long first_row, long long dropped, float keep_scale) {
    Place place = {seed, step_and_site, first_row};
    if (fours(per_row, x, out))
        drop<float4>(x, out, rows, per_row, place, dropped, keep_scale);
    else
        drop<float>(x, out, rows, per_row, place, dropped, keep_scale);
}
