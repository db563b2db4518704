// AdamW and the gradient norm, over flat buffers.

struct AdamW {
    float lr, beta1, beta2, eps, weight_decay, bias_m, bias_v;
};

template <class V>
__device__ __forceinline__ void update(float* __restrict__ p, const float* __restrict__ g,
                                       float* __restrict__ m, float* __restrict__ v, long long n, AdamW its) {
    long long step = (long long)gridDim.x * blockDim.x * WIDTH<V>;
    for (long long at = global_thread() * WIDTH<V>; at < n; at += step) {
        V value = load<V>(p + at), slope = load<V>(g + at), mean = load<V>(m + at), square = load<V>(v + at);
        for (int i = 0; i < WIDTH<V>; i++) {
            float& mi = part(mean, i);
            float& vi = part(square, i);
            mi = its.beta1 * mi + (1.0f - its.beta1) * part(slope, i);
            vi = its.beta2 * vi + (1.0f - its.beta2) * part(slope, i) * part(slope, i);
            float change = its.lr * (mi / its.bias_m) / (sqrtf(vi / its.bias_v) + its.eps);
            part(value, i) = part(value, i) * (1.0f - its.lr * its.weight_decay) - change;
        }
        store(m + at, mean);
        store(v + at, square);
        store(p + at, value);
    }
}

// One step of AdamW for n parameters; bias_m = 1 - beta1^t, bias_v = 1 - beta2^t. autograd/optim.py has the
// formulas.
extern "C" __global__ void adamw(float* p, const float* g, float* m, float* v, long long n, float lr,
                                 float beta1, float beta2, float eps, float weight_decay, float bias_m,
                                 float bias_v) {
    AdamW its = {lr, beta1, beta2, eps, weight_decay, bias_m, bias_v};
    if (fours(n, p, g, m, v))
        update<float4>(p, g, m, v, n, its);
    else
        update<float>(p, g, m, v, n, its);
}

template <class V> __device__ __forceinline__ float squares(const float* __restrict__ x, long long n) {
    float total = 0.0f;
    long long step = (long long)gridDim.x * blockDim.x * WIDTH<V>;
    for (long long at = global_thread() * WIDTH<V>; at < n; at += step) {
        V value = load<V>(x + at);
        for (int i = 0; i < WIDTH<V>; i++) total += part(value, i) * part(value, i);
    }
    return total;
}

// partial (gridDim.x): sums of squares of parts of x (n).
extern "C" __global__ void sums_of_squares(const float* x, float* partial, long long n) {
    float total;
    if (fours(n, x))
        total = squares<float4>(x, n);
    else
        total = squares<float>(x, n);
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}
