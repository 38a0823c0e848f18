// Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): a key and a counter of four words
// -> four words of 32 random bits. Number i of a draw is word i mod 4 of the counter (i div 4, draw, step, 0); a step on
// the device counts where step_at is given. One thread makes four numbers.

struct Draw {
    unsigned key0, key1, number, step;
};

struct Words {
    unsigned of[4];
};

__device__ inline Words philox(Draw draw, unsigned block, const unsigned long long* step_at) {
    unsigned long long step = step_at ? *step_at : draw.step;
    unsigned c0 = block, c1 = draw.number, c2 = step, c3 = 0, k0 = draw.key0, k1 = draw.key1;
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

// The upper 24 bits of a word as a number in [0, 1).
__device__ inline float uniform_of(unsigned word) { return (word >> 8) * (1.0f / (1 << 24)); }

extern "C" __global__ void uniform(float* y, const unsigned long long* step_at, int size, Draw draw) {
    size_t block = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    Words words = philox(draw, block, step_at);
    for (int i = 0; i < 4; i++) {
        if (4 * block + i < size) y[4 * block + i] = uniform_of(words.of[i]);
    }
}

// 0 with probability `rate`, else 1/(1 − rate), which the caller gives as `kept`.
extern "C" __global__ void dropout_mask(float* y, const unsigned long long* step_at, int size, Draw draw, float rate,
                                        float kept) {
    size_t block = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    Words words = philox(draw, block, step_at);
    for (int i = 0; i < 4; i++) {
        if (4 * block + i < size) y[4 * block + i] = uniform_of(words.of[i]) >= rate ? kept : 0;
    }
}
