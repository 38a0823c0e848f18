"""How many parameters and multiply-adds a DETR has."""

import math

from ..layers.patches import pair
from .backbone import body_map, count_body


def count_parameters(
    num_classes: int,
    num_queries: int,
    backbone: str | tuple[int, ...],
    in_chans: int,
    hidden_dim: int,
    enc_layers: int,
    dec_layers: int,
    dim_feedforward: int,
    position_embedding: str,
    pre_norm: bool,
    groups: int | None = None,
    denoising: bool | None = None,
    **others,
) -> int:
    """How many parameters a model has, those of frozen layers too, by arithmetic: nothing is made."""
    D, K, mlp = hidden_dim, num_classes + 1, 2 * hidden_dim * dim_feedforward + dim_feedforward + hidden_dim
    encoder = enc_layers * (4 * D * D + 8 * D + mlp) + 2 * D * pre_norm
    decoder = dec_layers * (8 * D * D + 14 * D + mlp) + 2 * D
    heads = (D + 1) * K + 2 * (D * D + D) + 4 * D + 4
    queries = num_queries * D  # or boxes, a perceptron, and labels
    if groups is not None:
        queries = 4 * groups * num_queries + 3 * D * D + 2 * D + denoising * K * D
    channels, body = count_body(backbone, in_chans)
    learned = 50 * D * (position_embedding == "learned")
    return body + (channels + 1) * D + learned + encoder + decoder + heads + queries


def count_multiply_adds(
    *,
    num_classes: int,
    num_queries: int,
    backbone: str | tuple[int, ...],
    in_chans: int,
    img_size: int | tuple[int, int],
    hidden_dim: int,
    enc_layers: int,
    dec_layers: int,
    dim_feedforward: int,
    dilation: bool,
    groups: int | None = None,
    **others,
) -> int:
    """How many multiply-adds one image of img_size takes, as `summary` counts them."""
    D, Q, mlp = hidden_dim, num_queries, 2 * hidden_dim * dim_feedforward
    channels, _ = count_body(backbone, in_chans)
    body, size = body_map(backbone, in_chans, pair(img_size, "img_size"), dilation)
    N = math.prod(size)
    encoder = enc_layers * (N * (4 * D * D + mlp) + 2 * N * N * D)
    between = (2 * Q + 2 * N) * D * D + 2 * Q * N * D  # queries look at the image
    decoder = dec_layers * (Q * (4 * D * D + mlp) + 2 * Q * Q * D + between)
    boxes = Q * (2 * D * D + 4 * D)
    if groups is not None:  # each layer moves the boxes, and reads them by their sines
        boxes = dec_layers * (boxes + 3 * Q * D * D)
    return body + N * channels * D + encoder + decoder + boxes + Q * D * (num_classes + 1)
