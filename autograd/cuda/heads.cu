// The layout of attention's heads: in rows of channels as the products around attention want it, or head by
// head as those within it do.

// rows (B, T, parts, H, D) <-> heads (parts, B, H, T, D); the first part is multiplied by scale on the way. A
// block takes the row of one position. Its threads walk along the row, so that neighbours in a warp read and
// write neighbours in memory, and no thread divides by more than a row's length.
template <class V, bool TO_HEADS>
__device__ __forceinline__ void move(const float* __restrict__ from, float* __restrict__ to, long long B,
                                     long long T, int parts, int H, int D, float scale) {
    long long b = blockIdx.x / T, t = blockIdx.x % T;
    for (int j = threadIdx.x * WIDTH<V>; j < parts * H * D; j += blockDim.x * WIDTH<V>) {
        int d = j % D, h = j / D % H, part_number = j / D / H;
        long long in_rows = blockIdx.x * (long long)(parts * H * D) + j;
        long long in_heads = (((part_number * B + b) * H + h) * T + t) * D + d;
        V x = load<V>(from + (TO_HEADS ? in_rows : in_heads));
        for (int i = 0; i < WIDTH<V>; i++) part(x, i) *= part_number == 0 ? scale : 1.0f;
        store(to + (TO_HEADS ? in_heads : in_rows), x);
    }
}

extern "C" __global__ void heads_from_rows(const float* rows, float* heads, long long B, long long T,
                                           long long parts, long long H, long long D, float scale) {
    if (fours(D, rows, heads))
        move<float4, true>(rows, heads, B, T, parts, H, D, scale);
    else
        move<float, true>(rows, heads, B, T, parts, H, D, scale);
}

extern "C" __global__ void rows_from_heads(const float* heads, float* rows, long long B, long long T,
                                           long long parts, long long H, long long D, float scale) {
    if (fours(D, rows, heads))
        move<float4, false>(heads, rows, B, T, parts, H, D, scale);
    else
        move<float, false>(heads, rows, B, T, parts, H, D, scale);
}
