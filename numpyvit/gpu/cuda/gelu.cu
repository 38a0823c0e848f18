// y = x Φ(x),   dy/dx = Φ(x) + x φ(x),   Φ(x) = erfc(−x/√2)/2,   φ(x) = exp(−x²/2)/√(2π)   (arXiv:1606.08415).
// One thread a number.

__device__ inline float normal_distribution(float x) { return 0.5f * erfcf(-0.70710678f * x); }

// Of x + bias where there is one, a number for each of `width` columns.
extern "C" __global__ void gelu(const float* x, const float* bias, float* y, int size, int width) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float value = bias ? x[i] + bias[i % width] : x[i];
    y[i] = value * normal_distribution(value);
}

extern "C" __global__ void gelu_with_slope(const float* x, float* y, float* slope, int size) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float value = x[i], phi = normal_distribution(value);
    y[i] = value * phi;
    slope[i] = phi + value * expf(-0.5f * value * value) * 0.39894228f;
}
