"""The arithmetic: pure functions on arrays, each forward with its backward below it.

Legend of shapes, used in every docstring: B batch, N tokens, D width, H heads, d = D/H, C channels, P patch.
dx, dy are the gradients of the loss by x, y. No function changes an array it was given, unless its name ends in _.
float32 stays float32: constants are Python scalars, which NumPy 2 and CuPy take in the array's own type, or float32.
"""

from .. import gpu as gpu  # its kernels stand in for these formulas on device arrays
from .activations import (
    gelu,
    gelu_backward,
    gelu_tanh,
    gelu_tanh_with_slope,
    gelu_with_slope,
    sigmoid,
    sigmoid_backward,
)
from .attention import attention, attention_backward, join_heads, mask_bias, split_heads
from .boxes import (
    box_cxcywh_to_xyxy,
    box_cxcywh_to_xyxy_backward,
    box_xyxy_to_cxcywh,
    generalized_iou,
    generalized_iou_backward,
    iou,
)
from .convolution import (
    conv2d,
    conv2d_input_gradient,
    conv2d_weight_gradient,
    max_pool2d,
    max_pool2d_backward,
    out_size,
)
from .dropout import dropout_mask
from .linear import (
    linear,
    linear_input_gradient,
    linear_weight_gradient,
    matmul,
    rows,
    sum_over_rows,
)
from .norm import (
    group_norm,
    group_norm_backward,
    layer_norm,
    layer_norm_backward,
    on_map,
    standardize,
    standardize_backward,
)
from .patches import col2im, im2col
from .positions import sine_features, sine_features_backward
from .softmax import log_softmax, softmax, softmax_, softmax_backward, softmax_cross_entropy
from .updates import adamw_
from .windows import (
    attention_from,
    cyclic_shift,
    from_windows,
    merge_patches,
    merge_patches_backward,
    relative_bias,
    relative_bias_backward,
    relative_positions,
    shift_mask,
    to_windows,
    window_partition,
    window_reverse,
)

__all__ = [
    "adamw_",
    "attention",
    "attention_backward",
    "attention_from",
    "box_cxcywh_to_xyxy",
    "box_cxcywh_to_xyxy_backward",
    "box_xyxy_to_cxcywh",
    "col2im",
    "conv2d",
    "conv2d_input_gradient",
    "conv2d_weight_gradient",
    "cyclic_shift",
    "dropout_mask",
    "from_windows",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_with_slope",
    "gelu_with_slope",
    "generalized_iou",
    "generalized_iou_backward",
    "group_norm",
    "group_norm_backward",
    "im2col",
    "iou",
    "join_heads",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_input_gradient",
    "linear_weight_gradient",
    "log_softmax",
    "mask_bias",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "merge_patches",
    "merge_patches_backward",
    "on_map",
    "out_size",
    "relative_bias",
    "relative_bias_backward",
    "relative_positions",
    "rows",
    "shift_mask",
    "sigmoid",
    "sigmoid_backward",
    "sine_features",
    "sine_features_backward",
    "softmax",
    "softmax_",
    "softmax_backward",
    "softmax_cross_entropy",
    "split_heads",
    "standardize",
    "standardize_backward",
    "sum_over_rows",
    "to_windows",
    "window_partition",
    "window_reverse",
]
