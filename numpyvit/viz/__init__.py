"""Curves of a run, attention maps of a model, boxes on images."""

from .attention import (
    attends_to_all,
    attention_grids,
    attention_maps,
    attention_overview,
    attention_rollout,
    draw_attention,
    draw_attention_map,
    gradient_attention,
    patch_filters,
    pos_embed_similarity,
)
from .boxes import draw_boxes, with_boxes
from .curves import draw_curves
from .queries import (
    QueryAttention,
    attention_of_heads,
    draw_query_attention,
    query_attention,
    query_attention_maps,
    query_overview,
)
from .sheet import draw_images
from .windows import AttentionWindows, attention_windows, rollout_windows

__all__ = [
    "AttentionWindows",
    "QueryAttention",
    "attends_to_all",
    "attention_grids",
    "attention_maps",
    "attention_of_heads",
    "attention_overview",
    "attention_rollout",
    "attention_windows",
    "draw_attention",
    "draw_attention_map",
    "draw_boxes",
    "draw_curves",
    "draw_images",
    "draw_query_attention",
    "gradient_attention",
    "patch_filters",
    "pos_embed_similarity",
    "query_attention",
    "query_attention_maps",
    "query_overview",
    "rollout_windows",
    "with_boxes",
]
