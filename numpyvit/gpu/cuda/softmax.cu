// Rows of `width` numbers, one warp each.
// softmax, in place:   y = exp(x − max x) / Σ exp(x − max x).

extern "C" __global__ void softmax(float* x, int rows, int width) {
    int lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row < rows) softmax_of_row(x + (size_t)row * width, lane, width);
}

// Lᵢ = −Σₖ tᵢₖ log pᵢₖ / total,   dL/dxᵢₖ = (pᵢₖ Σⱼ tᵢⱼ − tᵢₖ) / total,   p = softmax(x), t the target.
// total is on the device where total_at is given.

extern "C" __global__ void softmax_cross_entropy(const float* x, const float* target, const float* total_at,
                                                 float* losses, float* gradient, int rows, int width, float total) {
    int lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;  // the whole warp
    size_t start = (size_t)row * width;
    if (total_at) total = *total_at;

    float largest = LOWEST;
    for (int i = lane; i < width; i += WARP) largest = fmaxf(largest, x[start + i]);
    largest = warp_max(largest);

    float sum = 0, weight = 0;
    for (int i = lane; i < width; i += WARP) {
        sum += expf(x[start + i] - largest);
        weight += target[start + i];
    }
    sum = warp_sum(sum);
    weight = warp_sum(weight);

    float loss = 0, log_sum = logf(sum);
    for (int i = lane; i < width; i += WARP) {
        float centered = x[start + i] - largest, t = target[start + i];
        loss -= t * (centered - log_sum);
        gradient[start + i] = (expf(centered) / sum * weight - t) / total;
    }
    loss = warp_sum(loss);
    if (lane == 0) losses[row] = loss / total;
}
