// What a block adds to the residual stream: dropout and bias of residual_linear in autograd/ops/nn.py. Arrays
// are (N, C), T rows for each sequence. Dropout's mask is drawn in groups of 32 elements of a sequence.

// y = x + (y + bias) * keep * keep_scale, a warp per row. Its lanes draw for 32 groups at once. `begin`:
// where the row's first group begins, perhaps in the row before.
template <class V>
__device__ __forceinline__ void add_row(const float* __restrict__ x, float* __restrict__ y, const float* bias,
                                        long long row, long long C, long long T, Place place,
                                        unsigned dropped, float keep_scale) {
    int lane = threadIdx.x % 32;
    long long start = row % T * C, begin = -(start % 32);
    unsigned bits = FULL_WARP;
    for (long long from = begin; from < C; from += 32 * WIDTH<V>) {
        long long group = (from - begin) / 32, j = from + lane * WIDTH<V>;
        if (dropped && group % 32 == 0)
            bits = keep_group(place, row / T, start / 32 + group + lane, T * C, dropped);
        int source = (group + lane * WIDTH<V> / 32) % 32;
        unsigned keep = __shfl_sync(FULL_WARP, bits, source) >> lane * WIDTH<V> % 32;
        if (j < 0 || j >= C) continue;
        V value = load<V>(y + row * C + j), sum = load<V>(x + row * C + j);
        if (bias) add_to(value, load<V>(bias + j));
        for (int i = 0; i < WIDTH<V>; i++)
            part(sum, i) += keep >> i & 1 ? part(value, i) * keep_scale : 0.0f;
        store(y + row * C + j, sum);
    }
}

extern "C" __global__ void residual_forward(const float* x, float* y, const float* bias, long long N,
                                            long long C, long long T, long long has_bias,
                                            unsigned long long seed, unsigned long long step_and_site,
                                            long long first_row, long long dropped, float keep_scale) {
    Place place = {seed, step_and_site, first_row};
    bias = has_bias ? bias : nullptr;
    if (global_warp() >= N) return;
    if (fours(C, x, y, bias))
        add_row<float4>(x, y, bias, global_warp(), C, T, place, dropped, keep_scale);
    else
        add_row<float>(x, y, bias, global_warp(), C, T, place, dropped, keep_scale);
}

// The way back: dpre = dout * keep * keep_scale; dbias (C) = the sums of its columns, if `add` added to what
// is there. A warp's columns touch at most WIDTH + 1 groups, so its lanes draw for several of its rows at
// once.
template <class V>
__device__ __forceinline__ void drop_and_sums(const float* __restrict__ dout, float* __restrict__ dpre,
                                              float* partial, int* arrived, float* dbias, long long N,
                                              long long C, long long T, Place place, unsigned dropped,
                                              float keep_scale, bool add) {
    constexpr int GROUPS = WIDTH<V> + 1, AHEAD = 32 / GROUPS;
    int lane = threadIdx.x;
    long long begin = blockIdx.x * 32 * WIDTH<V>, column = begin + lane * WIDTH<V>, step = gridDim.y * 8;
    if (begin >= C) return;  // the grid is for vectors of one number
    unsigned bits = 0;
    V total = V();
    for (long long row = blockIdx.y * 8 + threadIdx.y, turn = 0; row < N; row += step, turn++) {
        if (turn % AHEAD == 0) {
            long long later = row + lane / GROUPS * step;
            long long group = (later % T * C + begin) / 32 + lane % GROUPS;
            if (lane / GROUPS < AHEAD && later < N)
                bits = keep_group(place, later / T, group, T * C, dropped);
        }
        long long element = row % T * C + column;
        int source = turn % AHEAD * GROUPS + element / 32 - (row % T * C + begin) / 32;
        unsigned keep = __shfl_sync(FULL_WARP, bits, source) >> element % 32;
        if (column >= C) continue;
        V d = load<V>(dout + row * C + column);
        for (int i = 0; i < WIDTH<V>; i++) part(d, i) = keep >> i & 1 ? part(d, i) * keep_scale : 0.0f;
        store(dpre + row * C + column, d);
        add_to(total, d);
    }
    keep_sums(total, partial, column, C);
    if (is_last(arrived)) add_up<V>(partial, dbias, column, C, add);
}

extern "C" __global__ void residual_backward(const float* dout, float* dpre, float* partial, int* arrived,
                                             float* dbias, long long N, long long C, long long T,
                                             unsigned long long seed, unsigned long long step_and_site,
                                             long long first_row, long long dropped, float keep_scale,
                                             long long add) {
    Place place = {seed, step_and_site, first_row};
    if (fours(C, dout, dpre, partial))
        drop_and_sums<float4>(dout, dpre, partial, arrived, dbias, N, C, T, place, dropped, keep_scale, add);
    else
        drop_and_sums<float>(dout, dpre, partial, arrived, dbias, N, C, T, place, dropped, keep_scale, add);
}
