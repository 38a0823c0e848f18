"""Write a layer, prove its gradient, and put it into a Vision Transformer.

The layer is RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), a LayerNorm without mean and bias:

    y = γ x̂,   x̂ = x r,   r = 1/√(mean x² + ε)

∂r/∂xⱼ = −r³ xⱼ/D, so with g = γ dy:   dx = r g − x r³ mean(g x) = r (g − x̂ mean(g x̂)),   dγ = Σ dy x̂.

    python examples/custom_layer.py
"""

import argparse

import numpy as np

import numpyvit as nv


class RMSNorm(nv.Layer):
    def __init__(self, dim, eps=1e-6, *, dtype="float32", seed=0):
        self.weight = nv.Parameter(np.ones(dim, dtype))
        self.eps = eps

    def forward(self, x, tape=nv.FORGET):
        r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)
        xhat = x * r
        tape.push(self, xhat, r)  # what backward will need
        return xhat * self.weight.data

    def backward(self, dy, tape):
        xhat, r = tape.pop(self)
        g = dy * self.weight.data
        tape.add(self.weight, (dy * xhat).reshape(-1, dy.shape[-1]).sum(0))
        return r * (g - xhat * (g * xhat).mean(-1, keepdims=True))


class ForgotTheMean(RMSNorm):
    """The mistake one makes at first: r taken for a constant."""

    def backward(self, dy, tape):
        _, r = tape.pop(self)
        return r * dy * self.weight.data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    x = np.random.default_rng(0).standard_normal((2, 5, 16))
    errors = nv.testing.gradcheck(nv.testing.randomize(RMSNorm(16)), x, rtol=1e-7)
    print("RMSNorm:", ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    try:
        nv.testing.gradcheck(ForgotTheMean(16), x)
    except nv.errors.GradientError as error:
        print("as it should be, the wrong one is caught:", error)

    train, test = nv.data.load("digits")
    model = nv.create_model("vit_micro_patch2_8", norm_layer=RMSNorm)
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=2e-3), clip_norm=1.0)
    batches = nv.data.Loader(train, 64, shuffle=True)
    epoch = 0
    while step.steps < args.steps:
        for images, labels in batches.epoch(epoch):
            loss = step(images, labels)
            if step.steps >= args.steps:
                break
        epoch += 1
    accuracy = nv.evaluate(model, test)["accuracy"]
    print(f"a ViT with it, after {step.steps} steps: loss {loss:.3f}, test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
