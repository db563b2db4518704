// What lies between the matrix products of causal attention: a warp per row of the weights (B, H, t, T). The
// t queries are the last of T positions: row i sees keys 0 to T - t + i. The derivation is in
// autograd/ops/attention.py. Elements of a row are taken in the groups of 32 in which dropout draws its bits;
// a group may begin in the row before.

struct Row {
    long long b, start, length;  // sequence; the row's first element within (H, t, T); the keys that it sees
};

__device__ __forceinline__ Row row_of(long long index, long long H, long long t, long long T) {
    Row row = {index / (H * t), index % (H * t) * T, T - t + index % t + 1};
    return row;
}

// scores -> weights = softmax(scores) over the keys seen, and 0 beyond;
// dropped_weights = weights * keep * keep_scale, not touched without dropout (dropped = 0).
extern "C" __global__ void attention_forward(float* weights, float* dropped_weights, long long B, long long H,
                                             long long t, long long T, unsigned long long seed,
                                             unsigned long long step_and_site, long long first_row,
                                             long long dropped, float keep_scale) {
    long long index = global_warp();
    int lane = threadIdx.x % 32;
    if (index >= B * H * t) return;
    Row row = row_of(index, H, t, T);
    Place place = {seed, step_and_site, first_row};
    weights += index * T;
    dropped_weights += index * T;
    float largest = -3.4e38f, total = 0.0f;
    for (long long j = lane; j < row.length; j += 32) largest = fmaxf(largest, weights[j]);
    largest = warp_max(largest);
    for (long long j = lane; j < row.length; j += 32) total += expf(weights[j] - largest);
    float factor = 1.0f / warp_sum(total);
    if (!dropped) {
        for (long long j = lane; j < T; j += 32)
            weights[j] = j < row.length ? expf(weights[j] - largest) * factor : 0.0f;
        return;
    }
    long long group = row.start / 32, last = (row.start + T - 1) / 32;
    for (; group <= last; group += 32) {
        // Each lane draws for one group, then all lanes take the 32 groups in turn.
        unsigned bits = keep_group(place, row.b, group + lane, H * t * T, (unsigned)dropped);
        for (int i = 0; i < 32 && group + i <= last; i++) {
            bool keep = __shfl_sync(FULL_WARP, bits, i) >> lane & 1;
            long long j = (group + i) * 32 + lane - row.start;
            if (j < 0 || j >= T) continue;
            float weight = j < row.length ? expf(weights[j] - largest) * factor : 0.0f;
            weights[j] = weight;
            dropped_weights[j] = keep ? weight * keep_scale : 0.0f;
        }
    }
}

// gradient: that of the dropped weights -> that of the scores, weights * (dP - sum(weights * dP))
// with dP = gradient * keep * keep_scale. With dropout, dropped_weights is computed again rather than kept.
extern "C" __global__ void attention_backward(const float* weights, float* gradient, float* dropped_weights,
                                              long long B, long long H, long long t, long long T,
                                              unsigned long long seed, unsigned long long step_and_site,
                                              long long first_row, long long dropped, float keep_scale) {
    long long index = global_warp();
    int lane = threadIdx.x % 32;
    if (index >= B * H * t) return;
    Row row = row_of(index, H, t, T);
    Place place = {seed, step_and_site, first_row};
    weights += index * T;
    gradient += index * T;
    dropped_weights += index * T;
    long long begin = row.start / 32, last = (row.start + T - 1) / 32;
    float delta = 0.0f;
    for (long long group = begin; group <= last; group += 32) {
        unsigned bits = FULL_WARP;
        if (dropped) bits = keep_group(place, row.b, group + lane, H * t * T, (unsigned)dropped);
        for (int i = 0; i < 32 && group + i <= last; i++) {
            bool keep = __shfl_sync(FULL_WARP, bits, i) >> lane & 1;
            long long j = (group + i) * 32 + lane - row.start;
            if (j < 0 || j >= T) continue;
            float dp = keep && j < row.length ? gradient[j] * keep_scale : 0.0f;
            gradient[j] = dp;
            delta += weights[j] * dp;
            if (dropped) dropped_weights[j] = keep ? weights[j] * keep_scale : 0.0f;
        }
    }
    delta = warp_sum(delta);
    for (long long group = begin; group <= last; group++) {  // a lane has the same elements: no need to wait
        long long j = group * 32 + lane - row.start;
        if (j >= 0 && j < T) gradient[j] = weights[j] * (gradient[j] - delta);
    }
}
