// What several kernels need. All files of this folder are compiled as one program.
//
// Arrays are float32 in row-major order unless a kernel says otherwise. Shared memory is always the one array `shared`,
// whose size the launch gives. Nothing is added by atomics, so that equal inputs give equal bits.

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr float LOWEST = -3.402823466e38f;

extern __shared__ float shared[];

// The sum, or the largest, of a warp's 32 numbers, the same in every lane.
__device__ inline float warp_sum(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

__device__ inline float warp_max(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// In place, by one warp:   y = exp(x − max x) / Σ exp(x − max x).
__device__ inline void softmax_of_row(float* x, int lane, int width) {
    float largest = LOWEST;
    for (int i = lane; i < width; i += WARP) largest = fmaxf(largest, x[i]);
    largest = warp_max(largest);

    float sum = 0;
    for (int i = lane; i < width; i += WARP) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    sum = warp_sum(sum);
    for (int i = lane; i < width; i += WARP) x[i] /= sum;
}
