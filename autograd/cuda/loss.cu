// Cross entropy and embedding.

// share[0] = 1 / the number of targets that are not `ignored`. One block.
extern "C" __global__ void share_of_counted(const long long* targets, float* share, long long N,
                                            long long ignored) {
    float count = 0.0f;
    for (long long i = threadIdx.x; i < N; i += blockDim.x) count += targets[i] != ignored;
    count = block_sum(count);
    if (threadIdx.x == 0) share[0] = 1.0f / count;
}

// A block per row of logits (n, stride), of which the first V count, plus bias (V): losses (n) = -share * log
// softmax(logits)[target]; with wants_gradient, logits = share * (softmax(logits) - onehot(target)). The loss
// of an ignored target is 0, or NaN if all are ignored, since share is infinite then. A target outside [0, V)
// gives NaN.
struct Targets {
    const long long* of;
    const float* share;
    long long ignored;
};

template <class V>
__device__ __forceinline__ V biased(V x, const float* bias, long long j, long long count) {
    for (int i = 0; bias && i < WIDTH<V>; i++)
        if (i < count) part(x, i) += bias[j + i];
    return x;
}

template <class V>
__device__ __forceinline__ void cross_entropy_of_row(float* logits, const float* bias, Targets targets,
                                                     float* losses, long long count, bool wants_gradient) {
    constexpr int W = WIDTH<V>;
    long long target = targets.of[blockIdx.x], step = blockDim.x * W;
    bool counts = target != targets.ignored, valid = target >= 0 && target < count;
    float share = counts ? targets.share[0] : 0.0f;
    Exponentials sum = NO_EXPONENTIALS;
    for (long long j = threadIdx.x * W; j < count; j += step)
        sum.add(biased(load<V>(logits + j), bias, j, count - j), count - j);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        float logit = valid ? biased(logits[target], bias, target, 1) : nanf("");
        float loss = share * (logf(sum.total) - (logit - sum.largest));
        losses[blockIdx.x] = counts ? loss : 0.0f * targets.share[0];
    }
    if (!wants_gradient) return;
    __syncthreads();  // the target's logit is read before it is overwritten
    for (long long j = threadIdx.x * W; j < count; j += step) {
        V x = biased(load<V>(logits + j), bias, j, count - j);
        for (int i = 0; i < W; i++) {
            float probability = expf(part(x, i) - sum.largest) / sum.total;
            part(x, i) = share * (probability - (j + i == target ? 1.0f : 0.0f));
        }
        store(logits + j, x);
    }
}

extern "C" __global__ void cross_entropy(float* logits, const float* bias, const long long* targets,
                                         const float* share, float* losses, long long V, long long stride,
                                         long long has_bias, long long ignored, long long wants_gradient) {
    Targets its = {targets, share, ignored};
    logits += blockIdx.x * stride;
    bias = has_bias ? bias : nullptr;
    if (fours(stride, logits))  // the last four of a row may reach beyond V: the stride has room for them
        cross_entropy_of_row<float4>(logits, bias, its, losses, V, wants_gradient);
    else
        cross_entropy_of_row<float>(logits, bias, its, losses, V, wants_gradient);
}

// out[0] = the sum of x (n). One block.
extern "C" __global__ void sum_all(const float* x, float* out, long long n) {
    float total = 0.0f;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) total += x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) out[0] = total;
}

// out (N, C) = weight[ids], a block per row. An id outside [0, V) gives NaN, so that it cannot stay unseen.
template <class V>
__device__ __forceinline__ void copy_row(const float* __restrict__ weight, float* __restrict__ out,
                                         long long id, bool valid, long long C) {
    for (long long j = threadIdx.x * WIDTH<V>; j < C; j += blockDim.x * WIDTH<V>) {
        V x = valid ? load<V>(weight + id * C + j) : V();
        for (int i = 0; !valid && i < WIDTH<V>; i++) part(x, i) = nanf("");
        store(out + blockIdx.x * C + j, x);
    }
}

extern "C" __global__ void embedding_forward(const float* weight, const long long* ids, float* out,
                                             long long C, long long V) {
    long long id = ids[blockIdx.x];
    bool valid = id >= 0 && id < V;
    if (fours(C, weight, out))
        copy_row<float4>(weight, out, id, valid, C);
    else
        copy_row<float>(weight, out, id, valid, C);
}

// Sorts the places 0 to N - 1 by their ids: equal ones stay in order (a radix sort). One block of SORTERS
// threads, each with a stretch of places of its own. keys (2, N) and places (2, N) have room for two
// versions; a pass goes from one to the other by the next 4 bits of the key. `passes` is even, so the result
// is the first version. The key of an id outside [0, V) is V.
#define SORTERS 512
extern "C" __global__ void sort_by_id(const long long* ids, int* keys, int* places, long long N, long long V,
                                      long long passes) {
    __shared__ int counts[16 * SORTERS];  // by digit, then by thread: where each thread puts its next key
    __shared__ int totals[SORTERS];
    long long each = (N + SORTERS - 1) / SORTERS, begin = threadIdx.x * each;
    long long end = begin + each < N ? begin + each : N;
    for (long long i = begin; i < end; i++) {
        keys[i] = ids[i] >= 0 && ids[i] < V ? ids[i] : V;
        places[i] = i;
    }
    for (int pass = 0; pass < passes; pass++) {
        const int *from = keys + pass % 2 * N, *its_place = places + pass % 2 * N;
        int *to = keys + (1 - pass % 2) * N, *place_to = places + (1 - pass % 2) * N;
        // 1. Count the digits of the thread's own keys.
        for (int digit = 0; digit < 16; digit++) counts[digit * SORTERS + threadIdx.x] = 0;
        for (long long i = begin; i < end; i++) counts[(from[i] >> 4 * pass & 15) * SORTERS + threadIdx.x]++;
        __syncthreads();
        // 2. Counts become sums of all counts before: a thread adds up 16 neighbours, and what is before.
        int before = 0, *mine = counts + 16 * threadIdx.x;
        for (int i = 0; i < 16; i++) before += mine[i];
        totals[threadIdx.x] = before;
        __syncthreads();
        for (int distance = 1; distance < SORTERS; distance *= 2) {
            int other = threadIdx.x >= distance ? totals[threadIdx.x - distance] : 0;
            __syncthreads();
            totals[threadIdx.x] += other;
            __syncthreads();
        }
        before = totals[threadIdx.x] - before;
        for (int i = 0; i < 16; i++) {
            int count = mine[i];
            mine[i] = before;
            before += count;
        }
        __syncthreads();
        // 3. Move the keys, in order.
        for (long long i = begin; i < end; i++) {
            int at = counts[(from[i] >> 4 * pass & 15) * SORTERS + threadIdx.x]++;
            to[at] = from[i];
            place_to[at] = its_place[i];
        }
        __syncthreads();
    }
}

// Where the run of equal keys that begins at `first` ends: first in leaps twice as long each time, then by
// halves.
__device__ __forceinline__ long long end_of_run(const int* keys, long long first, long long N) {
    long long leap = 1;
    while (first + leap < N && keys[first + leap] == keys[first]) leap *= 2;
    long long inside = first + leap / 2, beyond = first + leap < N ? first + leap : N;
    while (beyond - inside > 1) {
        long long middle = (inside + beyond) / 2;
        (keys[middle] == keys[first] ? inside : beyond) = middle;
    }
    return beyond;
}

// dweight (V, C) += for each id the sum of the rows of dout (N, C) that carry it; keys and places are sorted
// by sort_by_id. Blocks of 32 by 8 threads: a block takes the runs of equal keys that begin in a stretch of
// 8, for 32 vectors of columns; 8 warps share the rows of a run. No two blocks write to the same place.
template <class V>
__device__ __forceinline__ void add_runs(const float* __restrict__ dout, const int* __restrict__ keys,
                                         const int* __restrict__ places, float* dweight, long long N,
                                         long long C, long long no_id) {
    long long column = (blockIdx.y * 32 + threadIdx.x) * WIDTH<V>;
    if (blockIdx.y * 32 * WIDTH<V> >= C) return;  // the grid is for vectors of one number
    for (long long first = blockIdx.x * 8; first < blockIdx.x * 8 + 8 && first < N; first++) {
        int key = keys[first];
        if (key == no_id || (first > 0 && keys[first - 1] == key)) continue;
        long long end = end_of_run(keys, first, N);
        V total = V();
        #pragma unroll 4
        for (long long n = first + threadIdx.y; n < end; n += 8)
            if (column < C) add_to(total, load<V>(dout + places[n] * C + column));
        total = sum_of_warps(total);
        if (threadIdx.y == 0 && column < C) {
            add_to(total, load<V>(dweight + key * C + column));
            store(dweight + key * C + column, total);
        }
    }
}

extern "C" __global__ void embedding_backward(const float* dout, const int* keys, const int* places,
                                              float* dweight, long long N, long long C, long long V) {
    if (fours(C, dout, dweight))
        add_runs<float4>(dout, keys, places, dweight, N, C, V);
    else
        add_runs<float>(dout, keys, places, dweight, N, C, V);
}
