"""CUDA C in other ways than the solution's."""

from tests.notebooks.wrong_answers import Catalogue
from workbook.kernels import check

catalogue = Catalogue(check)


def right_texts(exercise, *texts):
    catalogue.right_ones(exercise, *(lambda text=text: text for text in texts))


right_texts(
    "affine",
    """
    int i = threadIdx.x + blockDim.x * blockIdx.x;
    if (i >= N * C) return;
    int c = i - i / C * C;
    out[i] = bias[c] + weight[c] * xhat[i];
    """,
    # a grid that goes on in strides: right for any number of blocks
    """
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N * C; i += gridDim.x * blockDim.x) {
        int row = i / C, channel = i % C;
        out[row * C + channel] = xhat[row * C + channel] * weight[channel] + bias[channel];
    }
    """,
    # the whole kernel, with other names
    """
    extern "C" __global__ void affine(const float* a, const float* w, const float* b, float* y,
                                      int N, int C) {
        unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < (unsigned)(N * C)) y[i] = fmaf(a[i], w[i % C], b[i % C]);
    }
    """,
    # every block does everything: right, but a waste
    "for (int i = threadIdx.x; i < N * C; i += blockDim.x) out[i] = xhat[i] * weight[i % C] + bias[i % C];",
)

right_texts(
    "row_sum",
    # neighbours first: another tree
    """
    __shared__ float part[256];
    const float* row = x + blockIdx.x * C;
    float sum = 0;
    for (int j = threadIdx.x; j < C; j += blockDim.x) sum += row[j];
    part[threadIdx.x] = sum;
    for (int step = 1; step < blockDim.x; step *= 2) {
        __syncthreads();
        if (threadIdx.x % (2 * step) == 0) part[threadIdx.x] += part[threadIdx.x + step];
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
    """,
    # warps by exchanges, then their sums: as the engine's block_sum
    """
    __shared__ float of_warp[8];
    float total = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) total += x[blockIdx.x * C + j];
    total = warp_sum(total);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x < 32) {
        total = warp_sum(threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) out[blockIdx.x] = total;
    }
    """,
    # atomic additions to one place
    """
    __shared__ float total;
    if (threadIdx.x == 0) total = 0.0f;
    __syncthreads();
    for (int j = threadIdx.x; j < C; j += blockDim.x) atomicAdd(&total, x[blockIdx.x * C + j]);
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = total;
    """,
    # two arrays in turn, so that one barrier in a round is enough
    """
    __shared__ float part[2][256];
    int t = threadIdx.x, now = 0;
    part[0][t] = 0.0f;
    for (int j = t; j < C; j += blockDim.x) part[0][t] += x[blockIdx.x * C + j];
    __syncthreads();
    for (int half = blockDim.x / 2; half; half >>= 1, now = 1 - now) {
        if (t < half) part[1 - now][t] = part[now][t] + part[now][t + half];
        __syncthreads();
    }
    if (!t) out[blockIdx.x] = part[now][0];
    """,
    # one thread adds up what all have found
    """
    __shared__ float part[256];
    float total = 0.0f;
    int j = threadIdx.x;
    while (j < C) {
        total += x[blockIdx.x * C + j];
        j += blockDim.x;
    }
    part[threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.x > 0) return;
    total = 0.0f;
    for (int i = 0; i < blockDim.x; i++) total += part[i];
    out[blockIdx.x] = total;
    """,
    # one thread does everything: right, and slow
    """
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int j = 0; j < C; j++) total += x[blockIdx.x * C + j];
        out[blockIdx.x] = total;
    }
    """,
)

right_texts(
    "warp_sum",
    "for (int offset = 1; offset < 32; offset <<= 1) x += __shfl_xor_sync(FULL_WARP, x, offset);",
    """
    for (int offset = 16; offset; offset >>= 1) x += __shfl_down_sync(FULL_WARP, x, offset);
    return __shfl_sync(FULL_WARP, x, 0);
    """,
    """
    float total = 0.0f;
    for (int lane = 0; lane < 32; lane++) total += __shfl_sync(FULL_WARP, x, lane);
    return total;
    """,
    """
    __device__ float warp_sum(float value) {
        value += __shfl_xor_sync(0xffffffff, value, 16);
        value += __shfl_xor_sync(0xffffffff, value, 8);
        value += __shfl_xor_sync(0xffffffff, value, 4);
        value += __shfl_xor_sync(0xffffffff, value, 2);
        value += __shfl_xor_sync(0xffffffff, value, 1);
        return value;
    }
    """,
    """
    __shared__ float part[64];
    part[threadIdx.x] = x;
    __syncwarp();
    float total = 0.0f;
    for (int i = threadIdx.x / 32 * 32; i < threadIdx.x / 32 * 32 + 32; i++) total += part[i];
    return total;
    """,
)

right_texts(
    "moments",
    # lanes all write the same
    """
    const float* values = x + row * C;
    float m = 0, v = 0;
    for (int j = lane; j < C; j += 32) m += values[j];
    m = warp_sum(m) / C;
    for (int j = lane; j < C; j += 32) v += (values[j] - m) * (values[j] - m);
    mean[row] = m;
    rstd[row] = rsqrtf(warp_sum(v) / C + eps);
    """,
    # in one pass, around the row's first element
    """
    float first = x[row * C], a = 0.0f, b = 0.0f;
    for (int j = lane; j < C; j += 32) {
        float d = x[row * C + j] - first;
        a += d;
        b += d * d;
    }
    a = warp_sum(a) / C;
    b = warp_sum(b) / C - a * a;
    if (lane == 0) {
        mean[row] = first + a;
        rstd[row] = 1 / sqrtf(b + eps);
    }
    """,
    # exchanges by hand, and 1.0f / C
    """
    float m = 0.0f, v = 0.0f, inverse = 1.0f / C;
    for (int k = 0; k * 32 + lane < C; k++) m += x[row * C + k * 32 + lane];
    for (int o = 16; o; o /= 2) m += __shfl_xor_sync(FULL_WARP, m, o);
    m *= inverse;
    for (int k = 0; k * 32 + lane < C; k++) v += powf(x[row * C + k * 32 + lane] - m, 2);
    for (int o = 16; o; o /= 2) v += __shfl_xor_sync(FULL_WARP, v, o);
    if (lane == 31) mean[row] = m, rstd[row] = 1.0f / sqrtf(v * inverse + eps);
    """,
    # Welford, by one lane
    """
    if (lane > 0) return;
    float m = 0.0f, s = 0.0f;
    for (int j = 0; j < C; j++) {
        float d = x[row * C + j] - m;
        m += d / (j + 1);
        s += d * (x[row * C + j] - m);
    }
    mean[row] = m;
    rstd[row] = 1.0f / sqrtf(s / C + eps);
    """,
)

right_texts(
    "input_gradient",
    # the formula with C in front
    """
    float a = 0, b = 0;
    for (int j = lane; j < C; j += 32) {
        int at = row * C + j;
        a += dout[at] * weight[j];
        b += dout[at] * weight[j] * (x[at] - mean[row]) * rstd[row];
    }
    a = warp_sum(a);
    b = warp_sum(b);
    for (int j = lane; j < C; j += 32) {
        int at = row * C + j;
        float xhat = (x[at] - mean[row]) * rstd[row];
        dx[at] = (C * dout[at] * weight[j] - a - xhat * b) * rstd[row] / C;
    }
    """,
    # keeps what it has computed, in registers
    """
    float d[4], h[4], a = 0.0f, b = 0.0f;
    for (int k = 0; k < 4; k++) {
        int j = lane + 32 * k;
        d[k] = j < C ? dout[row * C + j] * weight[j] : 0.0f;
        h[k] = j < C ? (x[row * C + j] - mean[row]) * rstd[row] : 0.0f;
        a += d[k];
        b += d[k] * h[k];
    }
    a = warp_sum(a) / C;
    b = warp_sum(b) / C;
    for (int k = 0; k < 4; k++)
        if (lane + 32 * k < C) dx[row * C + lane + 32 * k] = rstd[row] * (d[k] - a - h[k] * b);
    """,
    # writes dxhat to dx first, and changes it then
    """
    float r = rstd[row], ones = 0.0f, along = 0.0f;
    for (int j = lane; j < C; j += 32) {
        dx[row * C + j] = dout[row * C + j] * weight[j];
        ones += dx[row * C + j];
        along += dx[row * C + j] * (x[row * C + j] - mean[row]);
    }
    ones = warp_sum(ones) / C;
    along = warp_sum(along) / C * r * r;
    for (int j = lane; j < C; j += 32)
        dx[row * C + j] = r * (dx[row * C + j] - ones - (x[row * C + j] - mean[row]) * along);
    """,
)

right_texts(
    "weight_gradient",
    # atomic additions
    """
    if (column >= C) return;
    float total = 0.0f;
    for (int n = threadIdx.y; n < N; n += 8) total += dout[n * C + column] * xhat[n * C + column];
    atomicAdd(&dweight[column], total);
    """,
    # a tree over the 8 warps
    """
    __shared__ float part[256];
    int place = threadIdx.y * 32 + threadIdx.x;
    part[place] = 0.0f;
    for (int n = threadIdx.y; n < N; n += 8)
        if (column < C) part[place] += dout[n * C + column] * xhat[n * C + column];
    for (int half = 4; half; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) part[place] += part[place + 32 * half];
    }
    if (threadIdx.y == 0 && column < C) dweight[column] = part[place];
    """,
    # one warp does all rows, straight into dweight
    """
    if (threadIdx.y == 0 && column < C)
        for (int n = 0; n < N; n++) dweight[column] += dout[n * C + column] * xhat[n * C + column];
    """,
    # stretches of rows in place of strides
    """
    __shared__ float part[8][32];
    int each = (N + 7) / 8, begin = threadIdx.y * each, end = min(begin + each, N);
    float total = 0.0f;
    for (int n = begin; column < C && n < end; ++n) total += dout[n * C + column] * xhat[n * C + column];
    part[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y || column >= C) return;
    total = 0.0f;
    for (int y = 0; y < 8; y++) total += part[y][threadIdx.x];
    dweight[column] = total;
    """,
)
