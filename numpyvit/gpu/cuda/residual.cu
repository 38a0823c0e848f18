// y = x + branch · m, with one m for each image: 0 where DropPath leaves its branch out, else 1/(1 − rate); without
// `keep`, m is 1   (arXiv:1603.09382). One thread a number, `per_image` of them an image.

extern "C" __global__ void residual(const float* x, const float* branch, const float* keep, float* y, int size,
                                    int per_image) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float m = keep ? keep[i / per_image] : 1;
    y[i] = m ? x[i] + branch[i] * m : x[i];
}
