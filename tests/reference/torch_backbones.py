"""What DETR in PyTorch stands on: a module that gives a map, and its channels."""

from torch import nn


def convolutions(widths):
    """Convolutions of stride 2, as in numpyvit's small detectors."""
    layers = []
    for before, width in zip((3, *widths), widths):
        layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
    return nn.Sequential(*layers), widths[-1]


def residuals(name, dilation=False):
    """torchvision's ResNet with frozen batch norms, as in DETR's code: stem and first stage are not trained."""
    import torchvision

    norm = torchvision.ops.misc.FrozenBatchNorm2d
    body = getattr(torchvision.models, name)(norm_layer=norm, replace_stride_with_dilation=[False, False, dilation])
    channels = body.fc.in_features
    for part, parameter in body.named_parameters():
        parameter.requires_grad_(part.startswith(("layer2", "layer3", "layer4")))
    getter = torchvision.models._utils.IntermediateLayerGetter(body, {"layer4": "0"})
    forward = getter.forward
    getter.forward = lambda x: forward(x)["0"]  # it gives a dict of maps; DETR wants the map
    return getter, channels
