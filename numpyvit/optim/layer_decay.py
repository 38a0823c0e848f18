"""Learning rates that fall from the head to the embedding."""

from ..errors import ConfigError


def layer_decay(model, decay):
    """{parameter's name: factor on the learning rate} for fine-tuning a ViT   (Bao et al. 2021, arXiv:2106.08254).

    The head, the final norm and all else learn at the full rate, the last block at `decay` times it, the one before at
    decay², and the embedding at decay^(depth + 1), as in timm.
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"the layer decay must lie in 0..1, 0 left out, got {decay}")
    depth, factors = len(model.blocks), {}
    for name, _ in model.named_parameters():
        if name.startswith("blocks."):
            factors[name] = decay ** (depth - int(name.split(".")[1]))
        elif name.startswith("patch_embed.") or name.endswith(("_token", "pos_embed")):
            factors[name] = decay ** (depth + 1)
    return factors
