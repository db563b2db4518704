// AdamW and the gradient norm, over flat buffers.

// One step of AdamW for n parameters; bias_m = 1 - beta1^t, bias_v = 1 - beta2^t. autograd/optim.py has the
// formulas.
extern "C" __global__ void adamw(float* p, const float* g, float* m, float* v, long long n, float lr,
                                 float beta1, float beta2, float eps, float weight_decay, float bias_m,
                                 float bias_v) {
    for (long long i = global_thread(); i < n; i += (long long)gridDim.x * blockDim.x) {
        float mean = beta1 * m[i] + (1.0f - beta1) * g[i];
        float square = beta2 * v[i] + (1.0f - beta2) * g[i] * g[i];
        m[i] = mean;
        v[i] = square;
        p[i] = p[i] * (1.0f - lr * weight_decay) - lr * (mean / bias_m) / (sqrtf(square / bias_v) + eps);
    }
}

// partial (gridDim.x): sums of squares of parts of x (n).
extern "C" __global__ void sums_of_squares(const float* x, float* partial, long long n) {
    float total = 0.0f;
    for (long long i = global_thread(); i < n; i += (long long)gridDim.x * blockDim.x) total += x[i] * x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}
