"""Write tests/golden/*.npz: weights, images, logits, gradients and ten losses of PyTorch models in float64.

python tests/reference/make_golden.py      (needs torch and timm)
"""

import pathlib
import sys

import numpy as np
import torch

# torchvision's compiled part is absent beside a CPU build; these names let timm load
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import timm  # noqa: E402
from golden_cases import BASE, CASES, MODERN  # noqa: E402
from torch_vit import TorchViT  # noqa: E402

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")


def no_decay(name, parameter):
    return parameter.ndim < 2 or name in TOKENS


folder = pathlib.Path(__file__).parents[1] / "golden"
for name, options in CASES.items():
    torch.manual_seed(0)
    options = {**BASE, **options}
    modern = name in MODERN
    model = (timm.models.VisionTransformer if modern else TorchViT)(**options).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.3 if parameter.ndim > 1 else 0.5, 0.4)
    x, labels = torch.randn(4, options["in_chans"], *options["img_size"]).double(), torch.tensor([0, 2, 1, 1])
    arrays = {f"weight/{n}": p.detach().numpy().copy() for n, p in model.named_parameters()}
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if not no_decay(n, p)], "weight_decay": 0.1},
            {"params": [p for n, p in named if no_decay(n, p)], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        heads = model(x)
        heads = heads if isinstance(heads, tuple) else (heads,)
        loss = sum(torch.nn.functional.cross_entropy(h, labels, label_smoothing=0.1) for h in heads) / len(heads)
        loss.backward()
        if step == 0:
            arrays |= {f"gradient/{n}": p.grad.numpy().copy() for n, p in named}
            arrays["features"] = model.forward_features(x).detach().numpy()
            arrays |= {f"logits/{i}": h.detach().numpy() for i, h in enumerate(heads)}
        optimizer.step()
        losses.append(loss.item())
    np.savez_compressed(folder / f"{name}.npz", x=x.numpy(), labels=labels.numpy(), losses=losses, **arrays)
    print(name, losses[0], losses[-1])
