"""What each token looks at, block by block, with all heads: for pages on which one clicks through them."""

from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, to_host
from ..core import Layer, Tape
from ..errors import ConfigError
from .attention import attends_to_all, attention_maps, attention_rollout, finite, one_image


@dataclass(frozen=True)
class AttentionWindows:
    """The attention of one block, window by window; that of a ViT is one window.

    grid:          (rows, columns) of the block's tokens.
    tokens:        (n, N), which token of the grid, row by row, each of a window is; −1: the class token, or padding.
    probabilities: (H, n, N, N); each row sums to 1.
    """

    grid: tuple[int, int]
    tokens: np.ndarray
    probabilities: np.ndarray


def attention_windows(model: Layer, image: Array) -> list[AttentionWindows]:
    """The attention of every block, as an AttentionWindows each.

    image: (C, H, W) or (1, C, H, W), prepared as for the model.
    Errors: ConfigError for a model without attention.
    """
    if attends_to_all(model):
        return [_one_window(model, maps) for maps in attention_maps(model, image)]
    if not model.attention_layers:
        raise ConfigError(f"a {type(model).__name__} has no attention to show; choose a ViT, a DeiT or a Swin")
    batch, tape = one_image(image), Tape(model, record_all=True)
    model.forward(batch, tape)
    found = []
    for grid, tokens, probabilities in model.attention_in_windows(tape, batch.shape[2:]):
        found.append(AttentionWindows(grid, tokens, to_host(probabilities)))
    finite([windows.probabilities for windows in found])
    return found


def rollout_windows(layers: list[AttentionWindows]) -> AttentionWindows:
    """Attention rollout as an AttentionWindows of one head: row i tells how much of each input token reaches token i.

    layers: of attention_windows. Errors: ConfigError where the tokens of a layer do not look at all others.
    """
    if any(len(layer.tokens) > 1 for layer in layers):
        raise ConfigError("rollout is defined where each token looks at all others; choose a ViT or a DeiT")
    rollout = attention_rollout(np.stack([layer.probabilities[:, 0] for layer in layers]))
    return replace(layers[0], probabilities=rollout[None, None])


def _one_window(model, maps):
    """(H, T+N, T+N) of a model in which each token looks at all."""
    T = model.num_prefix_tokens
    tokens = np.arange(-T, maps.shape[-1] - T)
    return AttentionWindows(model.patch_embed.grid_size, np.maximum(tokens, -1)[None], maps[:, None])
