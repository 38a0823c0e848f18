"""What tests of parity with PyTorch's DETR share: inputs, targets, and comparing."""

import numpy as np

CLASSES = 5


def randomized(torch, module):
    """With values in every array that show: biases are 0, norms 1 and running variances 1 at first."""
    with torch.no_grad():
        for name, array in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var") or (array.ndim == 1 and name.endswith("weight")):
                array.copy_(0.6 + 0.8 * torch.rand_like(array))
            elif array.ndim == 1 and array.is_floating_point():
                array.add_(torch.randn_like(array) * 0.2)
    return module.eval()


def arrays_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def padded_batch(size=(64, 96)):
    """Three images of different sizes, padded with zeros, and their mask."""
    rng = np.random.default_rng(0)
    images, mask = np.zeros((3, 3, *size)), np.ones((3, *size), bool)
    for i, (h, w) in enumerate([size, (size[0] - 20, size[1] - 9), (size[0] - 8, size[1] // 2)]):
        images[i, :, :h, :w], mask[i, :h, :w] = rng.standard_normal((3, h, w)), False
    return images, mask


def some_targets():
    rng, targets = np.random.default_rng(1), []
    for n in (3, 0, 2):
        center, size = rng.uniform(0.3, 0.7, (n, 2)), rng.uniform(0.05, 0.5, (n, 2))
        targets.append({"labels": rng.integers(0, CLASSES, n), "boxes": np.concatenate([center, size], 1)})
    return targets


def tensors(torch, targets, dtype):
    return [{"labels": torch.from_numpy(t["labels"]), "boxes": torch.from_numpy(t["boxes"]).to(dtype)} for t in targets]


def assert_close(found, expected, tolerance, name, floor=0.0):
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    scale = max(np.abs(expected).max(initial=0), floor, 1e-30)
    assert found.shape == tuple(expected.shape), name
    assert np.abs(found - expected).max(initial=0) <= tolerance * scale, name


def compare_gradients(tape, theirs, tolerance, left_out=()):
    """Of every trained parameter, by name; a gradient that is exactly 0, as a key's bias has, against the largest."""
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.requires_grad}
    found = tape.gradients()
    assert found.keys() == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in found.items():
        if not name.startswith(left_out):
            assert_close(gradient, expected[name], tolerance, name, 1e-4 * largest)
