// Cross entropy and embedding.

// share[0] = 1 / the number of targets that are not `ignored`. One block.
extern "C" __global__ void share_of_counted(const long long* targets, float* share, long long N,
                                            long long ignored) {
    float count = 0.0f;
    for (long long i = threadIdx.x; i < N; i += blockDim.x) count += targets[i] != ignored;
    count = block_sum(count);
    if (threadIdx.x == 0) share[0] = 1.0f / count;
}

// A block per row of logits (n, V): losses (n) = -share * log softmax(logits)[target]; with wants_gradient,
// logits = share * (softmax(logits) - onehot(target)). The loss of an ignored target is 0, or NaN if all are
// ignored, since share is infinite then. A target outside [0, V) gives NaN.
extern "C" __global__ void cross_entropy(float* logits, const long long* targets, const float* share,
                                         float* losses, long long V, long long ignored,
                                         long long wants_gradient) {
    logits += blockIdx.x * V;
    long long target = targets[blockIdx.x];
    bool counts = target != ignored, valid = target >= 0 && target < V;
    float largest = -3.4e38f, total = 0.0f, part = counts ? share[0] : 0.0f;
    for (long long j = threadIdx.x; j < V; j += blockDim.x) largest = fmaxf(largest, logits[j]);
    largest = block_max(largest);
    for (long long j = threadIdx.x; j < V; j += blockDim.x) total += expf(logits[j] - largest);
    total = block_sum(total);
    float loss = valid ? part * (logf(total) - (logits[valid ? target : 0] - largest)) : nanf("");
    __syncthreads();  // every thread has read the target's logit before it is overwritten
    if (threadIdx.x == 0) losses[blockIdx.x] = counts ? loss : 0.0f * share[0];
    if (!wants_gradient) return;
    for (long long j = threadIdx.x; j < V; j += blockDim.x)
        logits[j] = part * (expf(logits[j] - largest) / total - (j == target ? 1.0f : 0.0f));
}

// out[0] = the sum of x (n). One block.
extern "C" __global__ void sum_all(const float* x, float* out, long long n) {
    float total = 0.0f;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) total += x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) out[0] = total;
}

// out (N, C) = weight[ids]. An id outside [0, V) gives NaN, so that it cannot stay unseen.
extern "C" __global__ void embedding_forward(const float* weight, const long long* ids, float* out,
                                             long long N, long long C, long long V) {
    for (long long i = global_thread(); i < N * C; i += (long long)gridDim.x * blockDim.x) {
        long long id = ids[i / C];
        out[i] = id >= 0 && id < V ? weight[id * C + i % C] : nanf("");
    }
}

// partial (S, V, C): the sum of the rows of dout (N, C) that carry each id, over S stretches of rows. Grid
// (V, chunks of C, S), a thread per column. The ids of a stretch are looked at blockDim.x at a time; no
// atomic additions, so the order is fixed.
extern "C" __global__ void embedding_backward(const float* dout, const long long* ids, float* partial,
                                              long long N, long long C, long long V) {
    __shared__ unsigned matches[32];  // of each warp, a bit per row
    long long column = (long long)blockIdx.y * blockDim.x + threadIdx.x, id = blockIdx.x;
    long long stretch = (N + gridDim.z - 1) / gridDim.z, begin = blockIdx.z * stretch;
    long long end = begin + stretch < N ? begin + stretch : N;
    float total = 0.0f;
    for (long long start = begin; start < end; start += blockDim.x) {
        long long row = start + threadIdx.x;
        unsigned mine = __ballot_sync(FULL_WARP, row < end && ids[row < end ? row : begin] == id);
        if (threadIdx.x % 32 == 0) matches[threadIdx.x / 32] = mine;
        __syncthreads();
        for (int warp = 0; warp < blockDim.x / 32; warp++)
            for (unsigned left = matches[warp]; left; left &= left - 1) {
                long long match = start + warp * 32 + __ffs(left) - 1;
                if (column < C) total += dout[match * C + column];
            }
        __syncthreads();
    }
    if (column < C) partial[((long long)blockIdx.z * V + id) * C + column] = total;
}
