// A float32 rounded to bf16, its upper half, ties to even. One thread a number.

extern "C" __global__ void bf16_from_float32(const float* x, unsigned short* y, int size) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    unsigned bits = __float_as_uint(x[i]), rounded = bits + 0x7fffu + (bits >> 16 & 1);
    y[i] = (x[i] == x[i] ? rounded : bits | 0x400000u) >> 16;  // NaN stays NaN
}
