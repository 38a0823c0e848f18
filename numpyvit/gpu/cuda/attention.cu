// Per head, with q (N, d), k and v (M, d):   p = softmax(s q kᵀ),   out = p v   (arXiv:1706.03762, §3.2.1),
// dv = pᵀ dout,   dp = dout vᵀ,   ds = p (dp − Σ p dp),   dq = s ds k,   dk = s dsᵀ q.
//
// Heads are read where they lie, at any distance of images, heads and tokens in memory, such as in (B, N, 3, H, d). A
// block of 256 threads makes the rows of one tile for one head. Scores stay in p, and their gradient in ds, which the
// block itself has just written and finds in the cache.

struct Strides {
    int image, head, token;  // in numbers; those of a token lie together
};

struct AttentionSizes {
    int heads, queries, keys, depth;
    Strides q, k, v, out;
};

constexpr int SIDE = 16, THREADS = SIDE * SIDE;  // a thread has every 16th row and column of a tile
constexpr int SLICE = 32;                        // of the dimension that is summed over
constexpr int KEYS = 5, DEPTHS = 4;              // a tile has 80 keys, which suits 65 and 197 tokens, or 64 of a head's d

// A matrix whose element (i, j) is data[i * row + j * column].
struct Matrix {
    const float* data;
    int rows, columns, row, column;

    __device__ float at(int i, int j) const {
        return i < rows && j < columns ? data[(size_t)i * row + (size_t)j * column] : 0;
    }
    __device__ Matrix transposed() const { return {data, columns, rows, column, row}; }
};

// Copy the part (R, C) of a matrix from (i, j) on into shared memory, rows at a distance of `pitch`. Threads next to
// each other read what lies next to each other.
template <int R, int C>
__device__ void copy_part(Matrix m, int i, int j, float* part, int row, int column) {
#pragma unroll 2
    for (int e = threadIdx.x; e < R * C; e += THREADS) {
        int r = m.column == 1 ? e / C : e % R, c = m.column == 1 ? e % C : e / R;
        part[r * row + c * column] = m.at(i + r, j + c);
    }
}

// The tile of a b whose corner is (i, j), 16 R rows by 16 C columns: sums[r][c] is its element
// (threadIdx.x / 16 + 16 r, threadIdx.x % 16 + 16 c).
template <int R, int C>
__device__ void product(Matrix a, Matrix b, int i, int j, float (&sums)[R][C]) {
    constexpr int ROWS = SIDE * R + 1, COLUMNS = SIDE * C + 1;  // odd, so that columns lie in different banks
    float *part_a = shared, *part_b = shared + SLICE * ROWS;
    int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;

    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) sums[r][c] = 0;
    }
    for (int k = 0; k < a.columns; k += SLICE) {
        __syncthreads();  // until the last parts are read, and what a and b hold is written
        copy_part<SIDE * R, SLICE>(a, i, k, part_a, 1, ROWS);
        copy_part<SLICE, SIDE * C>(b, k, j, part_b, COLUMNS, 1);
        __syncthreads();
#pragma unroll 4
        for (int s = 0; s < SLICE; s++) {
            float of_a[R], of_b[C];
            for (int r = 0; r < R; r++) of_a[r] = part_a[s * ROWS + y + SIDE * r];
            for (int c = 0; c < C; c++) of_b[c] = part_b[s * COLUMNS + x + SIDE * c];
            for (int r = 0; r < R; r++) {
                for (int c = 0; c < C; c++) sums[r][c] += of_a[r] * of_b[c];
            }
        }
    }
}

// Write factor · a b, the rows from i on that a tile has and all columns.
template <int R, int C>
__device__ void write_rows(Matrix a, Matrix b, int i, float factor, float* y, int row) {
    for (int j = 0; j < b.columns; j += SIDE * C) {
        float sums[R][C];
        product<R, C>(a, b, i, j, sums);
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                int to_row = i + threadIdx.x / SIDE + SIDE * r, to_column = j + threadIdx.x % SIDE + SIDE * c;
                if (to_row < a.rows && to_column < b.columns) y[(size_t)to_row * row + to_column] = factor * sums[r][c];
            }
        }
    }
}

// Which head, and from which row on, a block works at.
struct Place {
    int image, head, row;

    __device__ Place(int tile_rows, int rows, int heads) {
        int tiles = (rows + tile_rows - 1) / tile_rows, of_all = blockIdx.x / tiles;
        image = of_all / heads, head = of_all % heads, row = blockIdx.x % tiles * tile_rows;
    }
    __device__ size_t in(Strides strides) const { return (size_t)image * strides.image + (size_t)head * strides.head; }
};

template <int R>
__device__ void attention(const float* q, const float* k, const float* v, float* out, float* p, AttentionSizes n,
                          float scale) {
    Place at(SIDE * R, n.queries, n.heads);
    Matrix queries = {q + at.in(n.q), n.queries, n.depth, n.q.token, 1};
    Matrix keys = {k + at.in(n.k), n.keys, n.depth, n.k.token, 1};
    Matrix values = {v + at.in(n.v), n.keys, n.depth, n.v.token, 1};
    p += ((size_t)at.image * n.heads + at.head) * n.queries * n.keys;

    write_rows<R, KEYS>(queries, keys.transposed(), at.row, scale, p, n.keys);
    __syncthreads();
    int last = min(at.row + SIDE * R, n.queries);
    for (int row = at.row + threadIdx.x / WARP; row < last; row += THREADS / WARP) {
        softmax_of_row(p + (size_t)row * n.keys, threadIdx.x % WARP, n.keys);
    }
    write_rows<R, DEPTHS>({p, n.queries, n.keys, n.keys, 1}, values, at.row, 1, out + at.in(n.out), n.out.token);
}

// dq and ds; n.out tells how dout lies in memory, `of_dq` dq.
template <int R>
__device__ void attention_backward(const float* dout, const float* k, const float* v, const float* p, float* dq,
                                   float* ds, AttentionSizes n, Strides of_dq, float scale) {
    Place at(SIDE * R, n.queries, n.heads);
    Matrix douts = {dout + at.in(n.out), n.queries, n.depth, n.out.token, 1};
    Matrix keys = {k + at.in(n.k), n.keys, n.depth, n.k.token, 1};
    Matrix values = {v + at.in(n.v), n.keys, n.depth, n.v.token, 1};
    size_t scores = ((size_t)at.image * n.heads + at.head) * n.queries * n.keys;
    p += scores, ds += scores;

    write_rows<R, KEYS>(douts, values.transposed(), at.row, 1, ds, n.keys);  // dp
    __syncthreads();
    int last = min(at.row + SIDE * R, n.queries), lane = threadIdx.x % WARP;
    for (int row = at.row + threadIdx.x / WARP; row < last; row += THREADS / WARP) {
        size_t start = (size_t)row * n.keys;
        float sum = 0;
        for (int i = lane; i < n.keys; i += WARP) sum += p[start + i] * ds[start + i];
        sum = warp_sum(sum);
        for (int i = lane; i < n.keys; i += WARP) ds[start + i] = p[start + i] * (ds[start + i] - sum);
    }
    write_rows<R, DEPTHS>({ds, n.queries, n.keys, n.keys, 1}, keys, at.row, scale, dq + at.in(of_dq), of_dq.token);
}

extern "C" __global__ void __launch_bounds__(256, 2) attention_1(const float* q, const float* k, const float* v, float* out,
                                                              float* p, AttentionSizes n, float scale) {
    attention<1>(q, k, v, out, p, n, scale);
}

extern "C" __global__ void __launch_bounds__(256, 2) attention_5(const float* q, const float* k, const float* v, float* out,
                                                              float* p, AttentionSizes n, float scale) {
    attention<5>(q, k, v, out, p, n, scale);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    attention_backward_1(const float* dout, const float* k, const float* v, const float* p, float* dq, float* ds,
                         AttentionSizes n, Strides of_dq, float scale) {
    attention_backward<1>(dout, k, v, p, dq, ds, n, of_dq, scale);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    attention_backward_5(const float* dout, const float* k, const float* v, const float* p, float* dq, float* ds,
                         AttentionSizes n, Strides of_dq, float scale) {
    attention_backward<5>(dout, k, v, p, dq, ds, n, of_dq, scale);
}

// dv, and in the blocks with blockIdx.y = 1 dk; `of_dk` and `of_dv` tell where they lie.
extern "C" __global__ void __launch_bounds__(256, 2)
    attention_backward_keys(const float* dout, const float* q, const float* p, const float* ds, float* dk, float* dv,
                            AttentionSizes n, Strides of_dk, Strides of_dv, float scale) {
    Place at(SIDE * KEYS, n.keys, n.heads);
    size_t scores = ((size_t)at.image * n.heads + at.head) * n.queries * n.keys;
    if (blockIdx.y == 0) {
        Matrix probabilities = {p + scores, n.queries, n.keys, n.keys, 1};
        Matrix douts = {dout + at.in(n.out), n.queries, n.depth, n.out.token, 1};
        write_rows<KEYS, DEPTHS>(probabilities.transposed(), douts, at.row, 1, dv + at.in(of_dv), of_dv.token);
    } else {
        Matrix dscores = {ds + scores, n.queries, n.keys, n.keys, 1};
        Matrix queries = {q + at.in(n.q), n.queries, n.depth, n.q.token, 1};
        write_rows<KEYS, DEPTHS>(dscores.transposed(), queries, at.row, scale, dk + at.in(of_dk), of_dk.token);
    }
}
