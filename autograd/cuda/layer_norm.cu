// Layer norm: a warp per row of x (N, C). The derivation is in autograd/ops/nn.py.

extern "C" __global__ void layer_norm_forward(const float* x, const float* weight, const float* bias,
                                              float* out, float* mean, float* rstd, long long N, long long C,
                                              long long has_bias, float eps) {
    long long row = global_warp();
    int lane = threadIdx.x % 32;
    if (row >= N) return;
    x += row * C;
    out += row * C;
    float total = 0.0f, squares = 0.0f;
    for (long long j = lane; j < C; j += 32) total += x[j];
    float m = warp_sum(total) / C;
    for (long long j = lane; j < C; j += 32) squares += (x[j] - m) * (x[j] - m);
    float r = 1.0f / sqrtf(warp_sum(squares) / C + eps);
    for (long long j = lane; j < C; j += 32)
        out[j] = (x[j] - m) * r * weight[j] + (has_bias ? bias[j] : 0.0f);
    if (lane == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
}

extern "C" __global__ void layer_norm_backward(const float* dout, const float* x, const float* weight,
                                               const float* mean, const float* rstd, float* dx, long long N,
                                               long long C) {
    long long row = global_warp();
    int lane = threadIdx.x % 32;
    if (row >= N) return;
    dout += row * C;
    x += row * C;
    dx += row * C;
    float m = mean[row], r = rstd[row], constant_share = 0.0f, xhat_share = 0.0f;
    for (long long j = lane; j < C; j += 32) {
        float dxhat = dout[j] * weight[j];
        constant_share += dxhat;
        xhat_share += dxhat * (x[j] - m) * r;
    }
    constant_share = warp_sum(constant_share) / C;
    xhat_share = warp_sum(xhat_share) / C;
    for (long long j = lane; j < C; j += 32)
        dx[j] = r * (dout[j] * weight[j] - constant_share - (x[j] - m) * r * xhat_share);
}

// partial (2, S, C): dweight and dbias summed over S interleaved sets of rows, S = gridDim.y. Blocks of 32
// columns by 8 rows.
extern "C" __global__ void layer_norm_weight_gradients(const float* dout, const float* x, const float* mean,
                                                       const float* rstd, float* partial, long long N,
                                                       long long C) {
    __shared__ float parts[2][8][32];
    long long column = blockIdx.x * 32 + threadIdx.x;
    float dweight = 0.0f, dbias = 0.0f;
    if (column < C)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8) {
            float d = dout[row * C + column];
            dweight += d * (x[row * C + column] - mean[row]) * rstd[row];
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
