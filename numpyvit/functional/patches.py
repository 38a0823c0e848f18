"""Images cut into patches, and back."""

from ..backend import Array


def im2col(x: Array, patch: tuple[int, int]) -> Array:
    """Cut images into patches that do not overlap: (B, C, H, W) -> (B, N, C·Ph·Pw), row by row."""
    (B, C, H, W), (ph, pw) = x.shape, patch
    x = x.reshape(B, C, H // ph, ph, W // pw, pw).transpose(0, 2, 4, 1, 3, 5)  # B, H/Ph, W/Pw, C, Ph, Pw
    return x.reshape(B, -1, C * ph * pw)


def col2im(patches: Array, patch: tuple[int, int], image_shape: tuple[int, int, int, int]) -> Array:
    """The inverse of im2col, so its adjoint too: no two patches share a pixel."""
    (B, C, H, W), (ph, pw) = image_shape, patch
    x = patches.reshape(B, H // ph, W // pw, C, ph, pw).transpose(0, 3, 1, 4, 2, 5)  # B, C, H/Ph, Ph, W/Pw, Pw
    return x.reshape(B, C, H, W)
