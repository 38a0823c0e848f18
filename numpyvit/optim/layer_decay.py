"""Learning rates that fall from the head to the embedding."""

from ..core import Layer
from ..errors import ConfigError


def layer_decay(model: Layer, decay: float) -> dict[str, float]:
    """{parameter's name: factor on the learning rate} for fine-tuning   (Bao et al. 2021, arXiv:2106.08254).

    The head, the final norm and all else learn at the full rate, the last block at `decay` times it, the one before at
    decay², and the embedding at decay^(blocks + 1), as in timm. The model tells the depth of each parameter.
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"the layer decay must lie in 0..1, 0 left out, got {decay}")
    if not hasattr(model, "parameter_depth"):
        raise ConfigError(f"a {type(model).__name__} does not tell the depth of its parameters; leave layer_decay out")
    depths = {name: model.parameter_depth(name) for name, _ in model.named_parameters()}
    top = max(depths.values())
    return {name: decay ** (top - depth) for name, depth in depths.items() if depth < top}
