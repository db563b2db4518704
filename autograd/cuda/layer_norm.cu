// Layer norm: a warp per row of x (N, C). The derivation is in autograd/ops/nn.py.

// What is kept of each row, as an array (3, N). Far from 0 the mean has a rounding error as large as the
// row's deviations from it. `rest` is the mean of these deviations, and corrects it.
struct Moments {
    float mean, rest, rstd;
};

__device__ __forceinline__ Moments moments_of(const float* moments, long long row, long long N) {
    Moments its = {moments[row], moments[N + row], moments[2 * N + row]};
    return its;
}

__device__ __forceinline__ float normalised(float x, Moments its) {
    return (x - its.mean - its.rest) * its.rstd;
}

extern "C" __global__ void layer_norm_forward(const float* x, const float* weight, const float* bias,
                                              float* out, float* moments, long long N, long long C,
                                              long long has_bias, float eps) {
    long long row = global_warp();
    int lane = threadIdx.x % 32;
    if (row >= N) return;
    x += row * C;
    out += row * C;
    float total = 0.0f, rest = 0.0f, squares = 0.0f;
    for (long long j = lane; j < C; j += 32) total += x[j];
    float mean = warp_sum(total) / C;
    for (long long j = lane; j < C; j += 32) {
        rest += x[j] - mean;
        squares += (x[j] - mean) * (x[j] - mean);
    }
    rest = warp_sum(rest) / C;
    float variance = fmaxf(warp_sum(squares) / C - rest * rest, 0.0f);
    Moments its = {mean, rest, 1.0f / sqrtf(variance + eps)};
    for (long long j = lane; j < C; j += 32)
        out[j] = normalised(x[j], its) * weight[j] + (has_bias ? bias[j] : 0.0f);
    if (lane == 0) {
        moments[row] = its.mean;
        moments[N + row] = its.rest;
        moments[2 * N + row] = its.rstd;
    }
}

extern "C" __global__ void layer_norm_backward(const float* dout, const float* x, const float* weight,
                                               const float* moments, float* dx, long long N, long long C) {
    long long row = global_warp();
    int lane = threadIdx.x % 32;
    if (row >= N) return;
    dout += row * C;
    x += row * C;
    dx += row * C;
    Moments its = moments_of(moments, row, N);
    float constant_share = 0.0f, xhat_share = 0.0f;
    for (long long j = lane; j < C; j += 32) {
        float dxhat = dout[j] * weight[j];
        constant_share += dxhat;
        xhat_share += dxhat * normalised(x[j], its);
    }
    constant_share = warp_sum(constant_share) / C;
    xhat_share = warp_sum(xhat_share) / C;
    for (long long j = lane; j < C; j += 32)
        dx[j] = its.rstd * (dout[j] * weight[j] - constant_share - normalised(x[j], its) * xhat_share);
}

// partial (2, S, C): dweight and dbias summed over S interleaved sets of rows, S = gridDim.y. Blocks of 32
// columns by 8 rows.
extern "C" __global__ void layer_norm_weight_gradients(const float* dout, const float* x,
                                                       const float* moments, float* partial, long long N,
                                                       long long C) {
    __shared__ float parts[2][8][32];
    long long column = blockIdx.x * 32 + threadIdx.x;
    float dweight = 0.0f, dbias = 0.0f;
    if (column < C)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8) {
            float d = dout[row * C + column];
            dweight += d * normalised(x[row * C + column], moments_of(moments, row, N));
            dbias += d;
        }
    parts[0][threadIdx.y][threadIdx.x] = dweight;
    parts[1][threadIdx.y][threadIdx.x] = dbias;
    __syncthreads();
    if (threadIdx.y < 2 && column < C) {
        float total = 0.0f;
        for (int i = 0; i < 8; i++) total += parts[threadIdx.y][i][threadIdx.x];
        partial[(threadIdx.y * gridDim.y + blockIdx.y) * C + column] = total;
    }
}
