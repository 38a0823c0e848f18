"""A Vision Transformer as a good user of PyTorch writes it, for timing."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads, fused_attention):
        super().__init__()
        self.heads, self.fused_attention = heads, fused_attention
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attention:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q * (D // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    def __init__(self, dim, heads, hidden, fused_attention):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, fused_attention)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TorchViT(nn.Module):
    def __init__(self, img, patch, chans, dim, depth, heads, ratio, classes, fused_attention):
        super().__init__()
        self.patch_embed = nn.Conv2d(chans, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, (img // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads, int(dim * ratio), fused_attention) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x)[:, 0]))


class PatchEmbed(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, 4)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


def torch_layer(name, x, dim, heads, fused_attention):
    """Forward and backward of one layer, the gradient of its input included."""
    layer = {
        "Linear": lambda: nn.Linear(dim, dim),
        "LayerNorm": lambda: nn.LayerNorm(dim, eps=1e-6),
        "GELU": nn.GELU,
        "Softmax": lambda: nn.Softmax(-1),
        "Attention": lambda: Attention(dim, heads, fused_attention),
        "Mlp": lambda: nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)),
        "Block": lambda: Block(dim, heads, 4 * dim, fused_attention),
        "PatchEmbed": lambda: PatchEmbed(dim),
    }[name]()
    x.requires_grad_()
    dy = torch.ones_like(layer(x))

    def both():
        x.grad = None
        layer.zero_grad()
        layer(x).backward(dy)

    return both
