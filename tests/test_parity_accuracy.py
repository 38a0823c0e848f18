"""`numpyvit evaluate` of published weights on a folder of ImageNet's form, against PyTorch on the same pixels."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from numpyvit import cli
from numpyvit.training.class_names import imagenet_wnids
from numpyvit.weights.checkpoint import read_checkpoint

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = SHARED / "weights" / "vit_tiny_patch16_224_in1k.npz"
_NEEDED = ("torch", "torchvision", "timm")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in _NEEDED), reason=f"needs {', '.join(_NEEDED)}"),
    pytest.mark.skipif(not SHARED.is_dir(), reason="the trained weights are not at hand"),
]


def crops(count, rng):
    """Turned parts of two photographs, of different sizes and shapes."""
    photos = [Image.open(SHARED / "photos" / f"{name}.png").convert("RGB") for name in ("chelsea", "coffee")]
    for i in range(count):
        photo = photos[i % 2]
        width, height = rng.integers(60, min(photo.size), 2).tolist()
        left, top = int(rng.integers(0, photo.width - width)), int(rng.integers(0, photo.height - height))
        crop = photo.crop((left, top, left + width, top + height))
        yield crop.rotate(90 * int(rng.integers(4)), expand=True)


def test_a_folder_of_a_thousand_classes_scores_as_in_pytorch(torch, tmp_path, capsys):
    import timm
    from scipy.optimize import linear_sum_assignment
    from torchvision import transforms

    torch.set_num_threads(1)
    model = timm.create_model("vit_tiny_patch16_224").eval()
    arrays, _, _ = read_checkpoint(WEIGHTS)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(int(224 / 0.9), bicubic), transforms.CenterCrop(224), transforms.ToTensor()]
    prepare = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])
    wnids = imagenet_wnids()
    images = list(crops(len(wnids), np.random.default_rng(0)))
    with torch.no_grad():
        batches = [torch.stack([prepare(image) for image in images[i : i + 50]]) for i in range(0, len(images), 50)]
        logits = torch.cat([model(batch) for batch in batches]).double()
    _, labels = linear_sum_assignment(
        -logits.numpy()
    )  # one image a class, so that the model is right as often as can be
    for image, label in zip(images, labels):
        folder = tmp_path / "val" / wnids[label]
        folder.mkdir(parents=True)
        image.save(folder / "image.png")

    command = ["evaluate", "--data", str(tmp_path), "--model", "vit_tiny_patch16_224", "--checkpoint", str(WEIGHTS)]
    assert cli.main([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    ranks = (logits > logits[torch.arange(len(labels)), labels][:, None]).sum(1).numpy()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert scores["images"] == 1000 and scores["left_out"] == []
    assert 0.02 < scores["accuracy"] < scores["top5_accuracy"] < 0.98
    assert scores["accuracy"] == (ranks < 1).mean() and scores["top5_accuracy"] == (ranks < 5).mean()
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
