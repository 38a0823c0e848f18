// sums[p, j] = Σ x[i, j] over the rows i of part p, which has `part` of them.
// Blocks of 32 columns, blockIdx.x, and of one part, blockIdx.y; in a block blockDim.y threads share a column.

extern "C" __global__ void sum_over_rows(const float* x, float* sums, int rows, int width, int part) {
    // shared: (blockDim.y, 32)
    int column = blockIdx.x * WARP + threadIdx.x, first = blockIdx.y * part, last = min(first + part, rows);

    float sum = 0;
    if (column < width) {
        for (int row = first + threadIdx.y; row < last; row += blockDim.y) sum += x[(size_t)row * width + column];
    }
    shared[threadIdx.y * WARP + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int other = 1; other < blockDim.y; other++) sum += shared[other * WARP + threadIdx.x];
        sums[(size_t)blockIdx.y * width + column] = sum;
    }
}
