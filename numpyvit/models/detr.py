"""DETR, a detector without anchors or suppression (Carion et al. 2020, arXiv:2005.12872): queries that each find a box.

Shapes: B batch, C image channels, H×W pixels, h×w the map of the backbone, N = h·w tokens, D width, L decoder layers,
Q queries, K classes.
"""

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from ..backend import Array, array_module, on_host, to_module
from ..core import FORGET, Layer, Seed, Tape, as_dtype, make_rng
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError, ShapeError
from ..layers import (
    AnchorQueries,
    Conv2d,
    LearnedPosition,
    LearnedQueries,
    SinePosition,
    Transformer,
)
from ..layers.patches import pair
from .backbone import Backbone, make_body
from .detr_sizes import count_multiply_adds, count_parameters
from .model import IMAGENET, Model


class DETR(Model):
    """Images through a backbone and an encoder; a decoder's queries then each give class logits and one box.

    num_classes: K; the index K of the K + 1 logits is "no object".
    num_queries: Q, the most boxes that an image can have.
    backbone:    "resnet18", "resnet34", "resnet50", "resnet101", or the widths of convolutions of stride 2.
    hidden_dim, nheads, enc_layers, dec_layers, dim_feedforward, dropout, pre_norm: of the transformer.
    position_embedding: "sine" or "learned"; temperature: the longest wave of the sines over the shortest.
    aux_loss:    whether a pass on a tape also gives the boxes of the earlier decoder layers.
    dilation:    DC5: the last stage of a ResNet keeps the resolution, with dilated kernels.
    queries:     what the decoder starts from, called as queries(dim, num_queries, num_classes, dtype=…, seed=…).
    img_size:    what data is loaded with, (height, width) or the length of the shorter side; it takes all sizes.

    x: images (B, C, H, W), or (images, mask) with mask (B, H, W) True at the padding of smaller images.
    -> {"pred_logits": (B, Q, K+1), "pred_boxes": (B, Q, 4)}, boxes as center x, y, width and height in 0..1 of the
    image without its padding; on a tape also "aux_outputs", a list of L − 1 of the same. backward takes such a dict of
    gradients.
    Names, options and initial values are those of the official code.
    """

    kind = "detection"
    class_layers = ("class_embed", "label_embed")
    other_classes = 1
    min_shard = 200_000  # it does much with few numbers at a time: 16 images of 64×64 pixels keep a thread busy
    scores_every_class = False  # a query is scored with its best class alone, as in the paper
    count_parameters = staticmethod(count_parameters)
    count_multiply_adds = staticmethod(count_multiply_adds)

    def __init__(
        self,
        num_classes: int = 91,
        num_queries: int = 100,
        backbone: str | tuple[int, ...] = "resnet50",
        *,
        img_size: int | tuple[int, int] = 800,
        in_chans: int = 3,
        hidden_dim: int = 256,
        nheads: int = 8,
        enc_layers: int = 6,
        dec_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        position_embedding: str = "sine",
        temperature: float = 10000.0,
        pre_norm: bool = False,
        aux_loss: bool = True,
        dilation: bool = False,
        queries: Callable[..., Layer] = LearnedQueries,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        if position_embedding not in ("sine", "learned"):
            raise ConfigError(f"position_embedding must be 'sine' or 'learned', got {position_embedding!r}")
        if min(num_classes, num_queries, dec_layers) < 1 or enc_layers < 0:
            raise ConfigError("num_classes, num_queries and dec_layers must be at least 1, and enc_layers at least 0")
        made = dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        self.num_classes, self.num_queries, self.aux_loss = num_classes, num_queries, aux_loss
        self.img_size, self._data_size, self.in_chans = pair(img_size, "img_size"), img_size, in_chans
        body = make_body(backbone, in_chans, dilation, **made)
        learned = position_embedding == "learned"
        position = LearnedPosition(hidden_dim, **made) if learned else SinePosition(hidden_dim, temperature, **made)
        self.backbone = [Backbone(body), position]
        self.input_proj = Conv2d(body.num_features, hidden_dim, 1, **made)
        self.transformer = Transformer(
            hidden_dim, nheads, enc_layers, dec_layers, dim_feedforward, dropout, pre_norm, **made
        )
        self.queries = queries(hidden_dim, num_queries, num_classes, **made)
        self.set_paths()

    def forward(self, x, tape=FORGET):
        images, mask, *denoising = x if isinstance(x, (tuple, list)) else (x, None)
        memory, pos, mask = self.encode(images, mask, tape)
        every_layer = self.aux_loss and tape.training
        return self.queries.forward(memory, pos, self.transformer.decoder, tape, mask, every_layer, *denoising)

    def backward(self, dout, tape):
        """The gradients of what forward gave, a dict as that -> the gradient of the images, or None."""
        return self.encode_backward(*self.queries.backward(dout, self.transformer.decoder, tape), tape)

    def encode(self, images, mask, tape):
        """Images (B, C, H, W) and their padding -> tokens (B, N, D), their positions, and which tokens are padding."""
        self._check(images, mask)
        (body, position), encoder = self.backbone, self.transformer.encoder
        features = body.forward(images, tape.at(body))
        if mask is not None and on_host(mask) and not mask.any():
            mask = None  # nothing is padding
        if mask is not None:
            mask = resize_mask(mask, features.shape[2:])
        pos = position.forward(features, mask, tape.at(position))
        x = self.input_proj.forward(features, tape.at(self.input_proj))
        tape.push(self, x.shape)
        tokens = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)  # (B, D, h, w) -> (B, N, D)
        mask = None if mask is None else mask.reshape(len(mask), -1)
        return encoder.forward(tokens, pos, mask, tape.at(encoder)), pos, mask

    def encode_backward(self, dmemory, dpos, tape):
        (body, position), encoder = self.backbone, self.transformer.encoder
        gradients = encoder.backward(dmemory, dpos, tape) if tape.reaches(encoder) else None
        (shape,) = tape.pop(self)
        if gradients is None or not tape.reaches(self.input_proj):
            return None
        dtokens, dpos = gradients
        dfeatures = self.input_proj.backward(dtokens.transpose(0, 2, 1).reshape(shape), tape)
        if tape.reaches(position):
            position.backward(dpos, tape)
        return body.backward(dfeatures, tape) if tape.reaches(body) else None

    def _check(self, images, mask):
        if getattr(images, "ndim", 0) != 4 or images.shape[1] != self.in_chans:
            raise ShapeError(
                f"{self.path}: got images of shape {np.shape(images)}, expected (batch, {self.in_chans}, height, width)"
            )
        if mask is not None and (mask.dtype.kind != "b" or mask.shape != (len(images), *images.shape[2:])):
            raise ShapeError(
                f"{self.path}: got a mask of shape {mask.shape} and type {mask.dtype}, expected bool of shape "
                f"{(len(images), *images.shape[2:])}, True at padding"
            )

    @property
    def cross_attention_layers(self) -> list[Layer]:
        return [layer.multihead_attn for layer in self.transformer.decoder.layers]

    def query_attention_on_grid(self, tape: Tape) -> list[Array]:
        """What each query looked at in a pass on a tape with record_all, decoder layer by layer.

        -> [(B, heads, Q, h, w), …], the probabilities of the places: they sum to 1 and are 0 at padding.
        """
        kept = dict(tape.residuals())
        ((_, _, h, w),) = kept[self]
        maps = [layer.probabilities(kept[layer]) for layer in self.cross_attention_layers]
        return [p[:, :, : self.num_queries].reshape(*p.shape[:2], -1, h, w) for p in maps]  # of the first group

    def parameter_depth(self, name: str) -> int:
        """0 for the first layer of the backbone, then one more for each layer or block of it, of the encoder and of the
        decoder; the last for queries and heads.

        A norm belongs to what follows it; input_proj and learned positions to the first layer of the encoder.
        """
        body, (encoder, decoder) = self.backbone[0].body, (self.transformer.encoder, self.transformer.decoder)
        first = 1 + max(body.parameter_depth(own) for own, _ in body.named_parameters())
        middle, last = first + encoder.depth, first + encoder.depth + len(decoder.layers)
        if name.startswith("backbone.0.body."):
            return body.parameter_depth(name.removeprefix("backbone.0.body."))
        if match := re.match(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.", name):
            return {"encoder": first, "decoder": middle}[match[1]] + int(match[2])
        if name.startswith("transformer.encoder.norm."):
            return middle
        return first if name.startswith(("input_proj.", "backbone.1.")) else last

    @property
    def takes_denoising(self) -> bool:
        """Whether forward takes denoising queries as third input."""
        return self.queries.takes_denoising

    @property
    def data_size(self) -> int | tuple[int, int]:
        return self._data_size

    @property
    def image_weight(self) -> str:
        return f"backbone.0.body.{self.backbone[0].body.image_weight}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was made for."""
        return self.in_chans, *self.img_size

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W): of any size."""
        return image_shape[0] == self.in_chans

    def set_grad_checkpointing(self, enable: bool = True):
        """Let encoder layers keep only their input for backward and run forward again there (see core.Recompute)."""
        if self.transformer.encoder.depth:
            self.transformer.encoder.layers.set_recompute(enable)


class AnchorDETR(DETR):
    """DETR that learns from little data: queries are boxes that each decoder layer moves (see AnchorQueries).

    groups:    groups of queries in training, each of which finds every box.
    denoising: take denoising queries as third input, (images, mask, queries) (see losses.denoising_queries).
    """

    scores_every_class = True  # and with the others, as in DAB-DETR's code: one in doubt may be right with its second

    def __init__(self, *args, groups: int = 1, denoising: bool = True, **options):
        super().__init__(*args, queries=partial(AnchorQueries, groups=groups, denoising=denoising), **options)


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """A mask (B, H, W) at another size, each place the value of its nearest pixel above and left: (B, h, w)."""
    xp = array_module(mask)
    rows, columns = (to_module(np.arange(count) * whole // count, xp) for whole, count in zip(mask.shape[1:], size))
    return mask[:, rows[:, None], columns]


_WHOLE = Preprocessing(IMAGENET.mean, IMAGENET.std, "bilinear")
_SMALL_IMAGES = Preprocessing(interpolation="bilinear")
_SMALL = dict(num_classes=20, temperature=20.0, enc_layers=2, dec_layers=3, nheads=4, dropout=0.0)

# name: class, options and preprocessing. The first three are the official ones; the small ones are our own, to be
# trained from nothing.
VARIANTS = {
    "detr_resnet50": (DETR, dict(backbone="resnet50"), _WHOLE),
    "detr_resnet101": (DETR, dict(backbone="resnet101"), _WHOLE),
    "detr_resnet50_dc5": (DETR, dict(backbone="resnet50", dilation=True), _WHOLE),
    "detr_micro_64": (
        AnchorDETR,
        dict(img_size=64, backbone=(32, 64, 64), hidden_dim=64, dim_feedforward=128, num_queries=16, **_SMALL),
        _SMALL_IMAGES,
    ),
    "detr_mini_160": (
        AnchorDETR,
        dict(img_size=160, backbone=(32, 64, 128), hidden_dim=128, dim_feedforward=256, num_queries=60, **_SMALL),
        _SMALL_IMAGES,
    ),
}
