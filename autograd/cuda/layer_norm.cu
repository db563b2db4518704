// Layer norm: a warp per row of x (N, C). The derivation is in autograd/ops/nn.py.

// What is kept of each row, as an array (3, N). Far from 0 the mean has a rounding error as large as the
// row's deviations from it. `rest` is the mean of these deviations, and corrects it.
struct Moments {
    float mean, rest, rstd;
};

__device__ __forceinline__ Moments moments_of(const float* moments, long long row, long long N) {
    return {moments[row], moments[N + row], moments[2 * N + row]};
}

__device__ __forceinline__ float normalised(float x, Moments its) {
    return (x - its.mean - its.rest) * its.rstd;
}

// out = the norm of a row x (C), times weight, plus bias if there is one; its moments are kept as number
// `row`.
template <class V>
__device__ __forceinline__ void normalise(const float* x, const float* weight, const float* bias, float* out,
                                          float* moments, long long row, long long N, long long C,
                                          float eps) {
    constexpr int W = WIDTH<V>;
    int lane = threadIdx.x % 32;
    float total = 0.0f, rest = 0.0f, squares = 0.0f;
    for (long long j = lane * W; j < C; j += 32 * W) {
        V value = load<V>(x + j);
        for (int i = 0; i < W; i++) total += part(value, i);
    }
    float mean = warp_sum(total) / C;
    for (long long j = lane * W; j < C; j += 32 * W) {
        V value = load<V>(x + j);
        for (int i = 0; i < W; i++) {
            float deviation = part(value, i) - mean;
            rest += deviation;
            squares += deviation * deviation;
        }
    }
    rest = warp_sum(rest) / C;
    float variance = fmaxf(warp_sum(squares) / C - rest * rest, 0.0f);
    Moments its = {mean, rest, 1.0f / sqrtf(variance + eps)};
    for (long long j = lane * W; j < C; j += 32 * W) {
        V value = load<V>(x + j), scale = load<V>(weight + j), shift = bias ? load<V>(bias + j) : V();
        for (int i = 0; i < W; i++)
            part(value, i) = normalised(part(value, i), its) * part(scale, i) + part(shift, i);
        store(out + j, value);
    }
    if (lane == 0) {
        moments[row] = its.mean;
        moments[N + row] = its.rest;
        moments[2 * N + row] = its.rstd;
    }
}

extern "C" __global__ void layer_norm_forward(const float* x, const float* weight, const float* bias,
                                              float* out, float* moments, long long N, long long C,
                                              long long has_bias, float eps) {
    long long row = global_warp();
    if (row >= N) return;
    bias = has_bias ? bias : nullptr;
    if (fours(C, x, weight, bias, out))
        normalise<float4>(x + row * C, weight, bias, out + row * C, moments, row, N, C, eps);
    else
        normalise<float>(x + row * C, weight, bias, out + row * C, moments, row, N, C, eps);
}

// dx = plus (if there is one) + the gradient of the row x (C) from that of its norm, dout.
template <class V>
__device__ __forceinline__ void normalise_back(const float* dout, const float* x, const float* weight,
                                               const float* plus, float* dx, Moments its, long long C) {
    constexpr int W = WIDTH<V>;
    int lane = threadIdx.x % 32;
    float constant_share = 0.0f, xhat_share = 0.0f;
    for (long long j = lane * W; j < C; j += 32 * W) {
        V d = load<V>(dout + j), value = load<V>(x + j), scale = load<V>(weight + j);
        for (int i = 0; i < W; i++) {
            float dxhat = part(d, i) * part(scale, i);
            constant_share += dxhat;
            xhat_share += dxhat * normalised(part(value, i), its);
        }
    }
    constant_share = warp_sum(constant_share) / C;
    xhat_share = warp_sum(xhat_share) / C;
    for (long long j = lane * W; j < C; j += 32 * W) {
        V d = load<V>(dout + j), value = load<V>(x + j), scale = load<V>(weight + j);
        for (int i = 0; i < W; i++) {
            float share = constant_share + normalised(part(value, i), its) * xhat_share;
            part(d, i) = its.rstd * (part(d, i) * part(scale, i) - share);
        }
        if (plus) add_to(d, load<V>(plus + j));
        store(dx + j, d);
    }
}

extern "C" __global__ void layer_norm_backward(const float* dout, const float* x, const float* weight,
                                               const float* moments, const float* plus, float* dx,
                                               long long N, long long C, long long has_plus) {
    long long row = global_warp(), at = row * C;
    if (row >= N) return;
    Moments its = moments_of(moments, row, N);
    plus = has_plus ? plus + at : nullptr;
    if (fours(C, dout, x, weight, plus, dx))
        normalise_back<float4>(dout + at, x + at, weight, plus, dx + at, its, C);
    else
        normalise_back<float>(dout + at, x + at, weight, plus, dx + at, its, C);
}

// dweight (C) and dbias (C), the sums of dout * xhat and of dout over rows; each added to what is there if
// wanted. partial (2, S, C).
template <class V>
__device__ __forceinline__ void weight_sums(const float* __restrict__ dout, const float* __restrict__ x,
                                            const float* moments, float* partial, int* arrived,
                                            float* dweight, float* dbias, long long N, long long C,
                                            bool add_weight, bool add_bias) {
    long long column = (blockIdx.x * 32 + threadIdx.x) * WIDTH<V>;
    if (blockIdx.x * 32 * WIDTH<V> >= C) return;  // the grid is for vectors of one number
    float* second = partial + gridDim.y * C;
    V of_weight = V(), of_bias = V();
    if (column < C)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8) {
            Moments its = moments_of(moments, row, N);
            V d = load<V>(dout + row * C + column), value = load<V>(x + row * C + column);
            add_to(of_bias, d);
            for (int i = 0; i < WIDTH<V>; i++)
                part(of_weight, i) += part(d, i) * normalised(part(value, i), its);
        }
    keep_sums(of_weight, partial, column, C);
    keep_sums(of_bias, second, column, C);
    if (!is_last(arrived)) return;
    add_up<V>(partial, dweight, column, C, add_weight);
    add_up<V>(second, dbias, column, C, add_bias);
}

extern "C" __global__ void layer_norm_weight_gradients(const float* dout, const float* x,
                                                       const float* moments, float* partial, int* arrived,
                                                       float* dweight, float* dbias, long long N, long long C,
                                                       long long add_weight, long long add_bias) {
    if (fours(C, dout, x, partial))
        weight_sums<float4>(dout, x, moments, partial, arrived, dweight, dbias, N, C, add_weight, add_bias);
    else
        weight_sums<float>(dout, x, moments, partial, arrived, dweight, dbias, N, C, add_weight, add_bias);
}
