// y = x Φ(x),   dy/dx = Φ(x) + x φ(x),   Φ(x) = erfc(−x/√2)/2,   φ(x) = exp(−x²/2)/√(2π)   (arXiv:1606.08415).
// One thread a number.

__device__ inline float normal_distribution(float x) { return 0.5f * erfcf(-0.70710678f * x); }

extern "C" __global__ void gelu(const float* x, float* y, int size) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] * normal_distribution(x[i]);
}

extern "C" __global__ void gelu_with_slope(const float* x, float* y, float* slope, int size) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float value = x[i], phi = normal_distribution(value);
    y[i] = value * phi;
    slope[i] = phi + value * expf(-0.5f * value * value) * 0.39894228f;
}
