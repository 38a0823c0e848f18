"""The reference for parity: a Vision Transformer in PyTorch with our options and parameter names."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads, qkv_bias, qk_scale):
        super().__init__()
        self.heads, self.scale = heads, qk_scale or (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=qkv_bias), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        p = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.proj((p @ v).transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, act):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), act, nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, mlp_ratio, qkv_bias, qk_scale, act, eps):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps), Attention(dim, heads, qkv_bias, qk_scale)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps), Mlp(dim, int(dim * mlp_ratio), act)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, in_chans, dim, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class TorchViT(nn.Module):
    """act: a torch module; eps: of every norm. The other options are those of numpyvit.VisionTransformer."""

    def __init__(
        self, img_size, patch_size, in_chans, num_classes, embed_dim, depth, num_heads, mlp_ratio=4.0, qkv_bias=True,
        qk_scale=None, representation_size=None, distilled=False, global_pool="token", act=None, eps=1e-6,
    ):  # fmt: skip
        super().__init__()
        grid = [side // patch for side, patch in zip(img_size, patch_size)]
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if distilled else None
        self.prefix = 2 if distilled else 1
        self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + grid[0] * grid[1], embed_dim))
        block = (embed_dim, num_heads, mlp_ratio, qkv_bias, qk_scale, act or nn.GELU(), eps)
        self.blocks = nn.ModuleList(Block(*block) for _ in range(depth))
        average = global_pool == "avg"
        self.norm = nn.Identity() if average else nn.LayerNorm(embed_dim, eps)
        self.fc_norm = nn.LayerNorm(embed_dim, eps) if average else nn.Identity()
        self.average, features, self.pre_logits = average, embed_dim, nn.Identity()
        if representation_size and not distilled:
            features = representation_size
            self.pre_logits = nn.Sequential()
            self.pre_logits.add_module("fc", nn.Linear(embed_dim, features))
            self.pre_logits.add_module("act", nn.Tanh())
        self.head = nn.Linear(features, num_classes) if num_classes else nn.Identity()
        self.head_dist = nn.Linear(embed_dim, num_classes) if distilled and num_classes else None
        self.distilled = distilled

    def forward_features(self, x):
        x = self.patch_embed(x)
        tokens = [self.cls_token] + ([self.dist_token] if self.distilled else [])
        x = torch.cat([t.expand(len(x), -1, -1) for t in tokens] + [x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, x):
        x = self.forward_features(x)
        if self.distilled:
            return self.head(x[:, 0]), self.head_dist(x[:, 1])
        x = x[:, self.prefix :].mean(1) if self.average else x[:, 0]
        return self.head(self.pre_logits(self.fc_norm(x)))
