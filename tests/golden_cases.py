"""The models of tests/golden, for the script that writes the figures and the test that reads them."""

BASE = dict(
    img_size=(8, 8), patch_size=(4, 4), in_chans=2, num_classes=3, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2.0
)
CASES = {
    "token": {},
    "avg": {"global_pool": "avg"},
    "distilled": {"distilled": True},
    "representation": {"representation_size": 6, "qkv_bias": False},
    "modern": {"init_values": 0.1, "qk_norm": True, "reg_tokens": 2, "no_embed_class": True},
    "classless": {"class_token": False, "global_pool": "avg", "pre_norm": True},
    "nonsquare": {"img_size": (4, 12), "patch_size": (2, 4), "qk_scale": 0.6},
}
MODERN = ("modern", "classless")  # the cases that need ModernVisionTransformer, or timm
