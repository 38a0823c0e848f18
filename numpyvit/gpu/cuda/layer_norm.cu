// x̂ = (x − μ) r,   r = 1/√(σ² + ε),   y = γ x̂ + β,   over rows of `width`   (arXiv:1607.06450).
// One warp a row; the row is read again from the cache instead of being kept.

extern "C" __global__ void layer_norm(const float* x, const float* weight, const float* bias, float* y, float* xhat,
                                      float* rstd, int rows, int width, float eps) {
    int lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;  // the whole warp
    size_t start = (size_t)row * width;

    float sum = 0;
    for (int i = lane; i < width; i += WARP) sum += x[start + i];
    float mean = warp_sum(sum) / width;

    float squares = 0;
    for (int i = lane; i < width; i += WARP) squares += (x[start + i] - mean) * (x[start + i] - mean);
    float r = 1 / sqrtf(warp_sum(squares) / width + eps);

    for (int i = lane; i < width; i += WARP) {
        float normalized = (x[start + i] - mean) * r;
        xhat[start + i] = normalized;
        y[start + i] = normalized * weight[i] + bias[i];
    }
    if (lane == 0) rstd[row] = r;
}

// dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy.
// A block takes `part` rows after each other and leaves its own sums, (dγ, dβ), in a row of `sums`; sum_over_rows adds
// those up. In shared memory each warp has sums of its own, and in them each lane its own columns.

extern "C" __global__ void layer_norm_backward(const float* dy, const float* weight, const float* xhat,
                                               const float* rstd, float* dx, float* sums, int rows, int width,
                                               int part) {
    // shared: (warps, 2, width)
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    float *dweight = shared + warp * 2 * width, *dbias = dweight + width;
    for (int i = lane; i < width; i += WARP) dweight[i] = dbias[i] = 0;

    int first = blockIdx.x * part, last = min(first + part, rows);
    for (int row = first + warp; row < last; row += warps) {
        size_t start = (size_t)row * width;
        float sum = 0, sum_xhat = 0;
        for (int i = lane; i < width; i += WARP) {
            float g = dy[start + i] * weight[i];
            sum += g;
            sum_xhat += g * xhat[start + i];
        }
        float mean = warp_sum(sum) / width, mean_xhat = warp_sum(sum_xhat) / width, r = rstd[row];
        for (int i = lane; i < width; i += WARP) {
            float d = dy[start + i], normalized = xhat[start + i];
            dx[start + i] = r * (d * weight[i] - mean - normalized * mean_xhat);
            dweight[i] += d * normalized;
            dbias[i] += d;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * width; i += blockDim.x) {
        float sum = 0;
        for (int other = 0; other < warps; other++) sum += shared[other * 2 * width + i];
        sums[(size_t)blockIdx.x * 2 * width + i] = sum;
    }
}
