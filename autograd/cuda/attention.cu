// What lies between the matrix products of causal attention, for a block of t queries: those at positions
// first to first + t of T. Their scores are (B, H, t, K) with K >= first + t, and query `first + i` sees the
// keys 0 to first + i. The derivation is in autograd/ops/attention.py. A warp takes `rows` rows of the
// scores, one after the other; its lanes walk along the row together.

struct Queries {
    long long B, H, t, K, T, first;
};

struct Row {
    long long head, b, query;  // among B * H; sequence; position in it
    long long start;           // the row's first element in dropout's mask, which is (H, T, T) for a sequence
    long long length;          // the keys that it sees
};

__device__ __forceinline__ Row row_of(Queries block, long long index) {
    long long head = index / block.t, query = block.first + index % block.t;
    Row row = {head, head / block.H, query, (head % block.H * block.T + query) * block.T, query + 1};
    return row;
}

// Bits of dropout's mask, a group of 32 elements for each lane. A short row has fewer groups than a warp has
// lanes: so the lanes are divided among the warp's rows, and draw for all of them at once.
struct Mask {
    Queries block;
    Place place;
    unsigned dropped, bits;
    int rows, lanes;  // the warp's rows; lanes for each

    // Draws for groups `first_group` and on of the rows from `index` on. Only keys that are seen need bits.
    __device__ __forceinline__ void draw(long long index, long long first_group) {
        int lane = threadIdx.x % 32;
        index += lane / lanes;
        bits = FULL_WARP;
        if (!dropped || lane / lanes >= rows || index >= block.B * block.H * block.t) return;
        Row row = row_of(block, index);
        long long group = row.start / 32 + first_group + lane % lanes;
        if (group * 32 < row.start + row.length)
            bits = keep_group(place, row.b, group, block.H * block.T * block.T, dropped);
    }

    // The bits of a group of the warp's row number r, for the whole warp, which must ask together.
    __device__ __forceinline__ unsigned of(int r, long long group) const {
        return __shfl_sync(FULL_WARP, bits, (int)((r * lanes + group) % 32));
    }
};

// scores -> weights: softmax(scores) * keep * keep_scale over the keys seen, and 0 beyond. `softmax` (2, B *
// H, T) receives each row's maximum and 1 / its sum of exponentials: with them the weights can be computed
// again.
template <class V>
__device__ __forceinline__ void attend(float* scores, float* softmax, Queries block, Mask mask,
                                       float keep_scale) {
    constexpr int W = WIDTH<V>;
    int lane = threadIdx.x % 32;
    long long index = global_warp() * mask.rows, count = block.B * block.H * block.t;
    if (mask.rows > 1) mask.draw(index, 0);
    for (int r = 0; r < mask.rows && index + r < count; r++) {
        Row row = row_of(block, index + r);
        float* weights = scores + (index + r) * block.K;
        // 1. The row's maximum and sum, in one pass.
        Exponentials sum = NO_EXPONENTIALS;
        for (long long j = lane * W; j < row.length; j += 32 * W)
            sum.add(load<V>(weights + j), row.length - j);
        sum = warp_sum(sum);
        float factor = 1.0f / sum.total;
        if (lane == 0) {
            softmax[row.head * block.T + row.query] = sum.largest;
            softmax[(block.B * block.H + row.head) * block.T + row.query] = factor;
        }
        // 2. The weights. `begin`: where the mask's first group begins, perhaps in the row before.
        long long begin = -(row.start % 32);
        for (long long from = begin; from < block.K; from += 32 * W) {
            long long group = (from - begin) / 32, j = from + lane * W;
            if (mask.rows == 1 && group % 32 == 0) mask.draw(index, group);
            unsigned keep = mask.of(r, group + lane * W / 32) >> lane * W % 32;
            if (j < 0 || j >= block.K) continue;
            V x = j < row.length ? load<V>(weights + j) : V();
            for (int i = 0; i < W; i++) {
                bool counts = j + i < row.length && keep >> i & 1;
                part(x, i) = counts ? expf(part(x, i) - sum.largest) * factor * keep_scale : 0.0f;
            }
            store(weights + j, x);
        }
    }
}

extern "C" __global__ void attention_forward(float* scores, float* softmax, long long B, long long H,
                                             long long t, long long K, long long T, long long first,
                                             long long rows, unsigned long long seed,
                                             unsigned long long step_and_site, long long first_row,
                                             long long dropped, float keep_scale) {
    Queries block = {B, H, t, K, T, first};
    Place place = {seed, step_and_site, first_row};
    Mask mask = {block, place, (unsigned)dropped, FULL_WARP, (int)rows, (int)(32 / rows)};
    if (fours(K, scores) && T % 4 == 0)
        attend<float4>(scores, softmax, block, mask, keep_scale);
    else
        attend<float>(scores, softmax, block, mask, keep_scale);
}

// The way back, with dP = gradient * keep * keep_scale and delta = sum over channels of out * dout: scores ->
// dropped weights, as in `attend`; gradient (of these) -> that of the scores, weights * (dP - delta). out,
// dout (B, T, H * D).
template <class V>
__device__ __forceinline__ void attend_back(float* scores, float* gradient, const float* softmax,
                                            const float* out, const float* dout, Queries block, long long D,
                                            Mask mask, float keep_scale) {
    constexpr int W = WIDTH<V>;
    int lane = threadIdx.x % 32;
    long long index = global_warp() * mask.rows, count = block.B * block.H * block.t;
    if (mask.rows > 1) mask.draw(index, 0);
    for (int r = 0; r < mask.rows && index + r < count; r++) {
        Row row = row_of(block, index + r);
        float *weights = scores + (index + r) * block.K, *slopes = gradient + (index + r) * block.K;
        float largest = softmax[row.head * block.T + row.query], delta = 0.0f;
        float factor = softmax[(block.B * block.H + row.head) * block.T + row.query];
        long long channels = ((row.b * block.T + row.query) * block.H + row.head % block.H) * D;
        for (long long d = lane; d < D; d += 32) delta += out[channels + d] * dout[channels + d];
        delta = warp_sum(delta);
        long long begin = -(row.start % 32);
        for (long long from = begin; from < block.K; from += 32 * W) {
            long long group = (from - begin) / 32, j = from + lane * W;
            if (mask.rows == 1 && group % 32 == 0) mask.draw(index, group);
            unsigned keep = mask.of(r, group + lane * W / 32) >> lane * W % 32;
            if (j < 0 || j >= block.K) continue;
            V x = V(), dx = V();
            if (j < row.length) x = load<V>(weights + j), dx = load<V>(slopes + j);
            for (int i = 0; i < W; i++) {
                float scale = keep >> i & 1 ? keep_scale : 0.0f;
                float weight = j + i < row.length ? expf(part(x, i) - largest) * factor : 0.0f;
                part(dx, i) = j + i < row.length ? weight * (part(dx, i) * scale - delta) : 0.0f;
                part(x, i) = weight * scale;
            }
            store(weights + j, x);
            store(slopes + j, dx);
        }
    }
}

extern "C" __global__ void attention_backward(float* scores, float* gradient, const float* softmax,
                                              const float* out, const float* dout, long long B, long long H,
                                              long long t, long long K, long long T, long long first,
                                              long long D, long long rows, unsigned long long seed,
                                              unsigned long long step_and_site, long long first_row,
                                              long long dropped, float keep_scale) {
    Queries block = {B, H, t, K, T, first};
    Place place = {seed, step_and_site, first_row};
    Mask mask = {block, place, (unsigned)dropped, FULL_WARP, (int)rows, (int)(32 / rows)};
    if (fours(K, scores, gradient) && T % 4 == 0)
        attend_back<float4>(scores, gradient, softmax, out, dout, block, D, mask, keep_scale);
    else
        attend_back<float>(scores, gradient, softmax, out, dout, block, D, mask, keep_scale);
}
