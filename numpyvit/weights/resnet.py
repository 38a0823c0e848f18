"""ResNet's weights as Hugging Face names them, translated to torchvision's names."""

from .renaming import renamed

_NAMES = [
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}.{match[2]}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d+)\.convolution\.", lambda match: f".conv{int(match[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda match: f".bn{int(match[1]) + 1}."),
    (r"^classifier\.1\.", "fc."),
]


def is_huggingface(arrays: dict) -> bool:
    """Whether these are the weights of a ResNet as Hugging Face names them."""
    return any(name.endswith("embedder.embedder.convolution.weight") for name in arrays)


def to_torchvision(arrays: dict) -> dict:
    """{torchvision's name: array}."""
    return {renamed(name, _NAMES): array for name, array in arrays.items()}
