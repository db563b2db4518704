// Bias and activation, dropout, column sums, and the layout of attention heads.

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

// pre (N, M) += bias (M); out = activation(pre). pre and out may be the same array, if the slope can be told
// from out.
extern "C" __global__ void bias_activation_forward(float* pre, const float* bias, float* out, long long size,
                                                   long long M, long long has_bias, long long kind) {
    for (long long i = global_thread(); i < size; i += (long long)gridDim.x * blockDim.x) {
        float x = pre[i] + (has_bias ? bias[i % M] : 0.0f);
        pre[i] = x;
        out[i] = activate(x, kind);
    }
}

// dpre = dout * activation'(pre)
extern "C" __global__ void activation_backward(const float* pre, const float* dout, float* dpre,
                                               long long size, long long kind) {
    for (long long i = global_thread(); i < size; i += (long long)gridDim.x * blockDim.x)
        dpre[i] = dout[i] * slope(pre[i], kind);
}

// out = x * keep * keep_scale for x (rows, per_row). A warp draws for 32 groups of 32 elements, and then
// takes the groups in turn.
extern "C" __global__ void dropout(const float* x, float* out, long long rows, long long per_row,
                                   unsigned long long seed, unsigned long long step_and_site,
                                   long long first_row, long long dropped, float keep_scale) {
    Place place = {seed, step_and_site, first_row};
    int lane = threadIdx.x % 32;
    long long groups = (per_row + 31) / 32, first = global_warp() * 32, mine = first + lane;
    unsigned bits = keep_group(place, mine / groups, mine % groups, per_row, (unsigned)dropped);
    for (int i = 0; i < 32 && first + i < rows * groups; i++) {
        bool keep = __shfl_sync(FULL_WARP, bits, i) >> lane & 1;
        long long element = (first + i) % groups * 32 + lane;
        if (element >= per_row) continue;
        long long at = (first + i) / groups * per_row + element;
        out[at] = keep ? x[at] * keep_scale : 0.0f;
    }
}

// x (N, C) -> out (S, C): the sums of S interleaved sets of rows, S = gridDim.y, if wanted added to what is
// there. Blocks of 32 columns by 8 rows.
extern "C" __global__ void column_sums(const float* x, float* out, long long N, long long C, long long add) {
    __shared__ float parts[8][32];
    long long column = blockIdx.x * 32 + threadIdx.x;
    float total = 0.0f;
    if (column < C)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < N; row += gridDim.y * 8)
            total += x[row * C + column];
    parts[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < C) {
        for (int i = 1; i < 8; i++) total += parts[i][threadIdx.x];
        out[blockIdx.y * C + column] = total + (add ? out[blockIdx.y * C + column] : 0.0f);
    }
}

// (B, T, parts, H, D) -> (parts, B, H, T, D); the first part is multiplied by scale on the way.
extern "C" __global__ void heads_from_rows(const float* rows, float* heads, long long B, long long T,
                                           long long parts, long long H, long long D, float scale) {
    for (long long i = global_thread(); i < B * T * parts * H * D; i += (long long)gridDim.x * blockDim.x) {
        long long d = i % D, t = i / D % T, h = i / (D * T) % H;
        long long b = i / (D * T * H) % B, part = i / (D * T * H * B);
        float x = rows[(((b * T + t) * parts + part) * H + h) * D + d];
        heads[i] = part == 0 ? x * scale : x;
    }
}

// (parts, B, H, T, D) -> (B, T, parts, H, D); the first part is multiplied by scale on the way.
extern "C" __global__ void rows_from_heads(const float* heads, float* rows, long long B, long long T,
                                           long long parts, long long H, long long D, float scale) {
    for (long long i = global_thread(); i < B * T * parts * H * D; i += (long long)gridDim.x * blockDim.x) {
        long long d = i % D, h = i / D % H, part = i / (D * H) % parts;
        long long t = i / (D * H * parts) % T, b = i / (D * H * parts * T);
        float x = heads[(((part * B + b) * H + h) * T + t) * D + d];
        rows[i] = part == 0 ? x * scale : x;
    }
}
