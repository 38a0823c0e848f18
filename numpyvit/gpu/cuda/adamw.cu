// m = β₁ m + (1 − β₁) g,   v = β₂ v + (1 − β₂) g²,   m̂ = m/(1 − β₁ᵗ),   v̂ = v/(1 − β₂ᵗ),
// θ = θ (1 − ηλ) − η m̂/(√v̂ + ε)   (arXiv:1711.05101),   with g scaled first by what clips it,
// and then the moving average   s = β s + (1 − β) θ,   β = min(decay, (1 + t)/(10 + t)).
//
// One thread a weight, so each of the arrays is read and written once. Numbers that a captured step must not fix lie on
// the device where a pointer to them is given: t, η (one for each weight where lr_each is 1) and the clipping's scale.

struct AdamW {
    double beta1, beta2;
    float lr, eps, weight_decay, average_decay;
    int step, lr_each;
};

extern "C" __global__ void adamw(float* theta, const float* g, float* m, float* v, float* average, const float* scale_at,
                                 const float* lr_at, const unsigned long long* step_at, int size, AdamW with) {
    // shared: 1/(1 − β₁ᵗ), 1/(1 − β₂ᵗ) and β, once a block: powers in float64 are slow
    if (threadIdx.x == 0) {
        double t = step_at ? *step_at : with.step;
        shared[0] = 1 / (1 - pow(with.beta1, t));
        shared[1] = 1 / (1 - pow(with.beta2, t));
        shared[2] = min((double)with.average_decay, (1 + t) / (10 + t));
    }
    __syncthreads();
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;

    float gradient = scale_at ? g[i] * *scale_at : g[i], lr = lr_at ? lr_at[i * with.lr_each] : with.lr;
    float first = (float)with.beta1 * m[i] + (float)(1 - with.beta1) * gradient;
    float second = (float)with.beta2 * v[i] + (float)(1 - with.beta2) * gradient * gradient;
    m[i] = first;
    v[i] = second;
    float update = lr * (first * shared[0]) / (sqrtf(second * shared[1]) + with.eps);
    float weight = theta[i] * (1 - lr * with.weight_decay) - update;
    theta[i] = weight;
    if (average) average[i] = shared[2] * average[i] + (1 - shared[2]) * weight;
}
