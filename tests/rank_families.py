"""Tiny models of each family, trained on ranks. Also a program, for ranks that are processes:

mpirun -n 4 python tests/rank_families.py FAMILY THREADS ACCUMULATE FILE.npz [cuda]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from conftest import tiny

import numpyvit as nv
from numpyvit import optim
from numpyvit.backend import device_module
from numpyvit.training import connect
from numpyvit.training.nested import to_device
from numpyvit.training.shards import Sharding

SEVERAL = Sharding(tiny_batch=0, min_shard=1, small_update=0)
SHORT = (9, 2)  # batches of which some ranks have nothing


def vit():
    return tiny(drop_rate=0.2, attn_drop_rate=0.1, drop_path_rate=0.3)


def distilled():
    return tiny(distilled=True, drop_rate=0.2)


def recomputing():
    return nv.create_model(
        "vit_micro_patch2_8", num_classes=3, embed_dim=8, depth=2, num_heads=2, drop_rate=0.2, grad_checkpointing=True
    )


def swin():
    model = nv.SwinTransformer(
        img_size=16, patch_size=2, in_chans=1, num_classes=3, embed_dim=8, depths=(2, 2), num_heads=(2, 2),
        window_size=4, drop_path_rate=0.3,
    )  # fmt: skip
    model.min_shard = 0  # it asks for larger shards than these batches have
    return model


def detr():
    model = nv.create_model(
        "detr_micro_64", num_classes=3, img_size=32, backbone=(8, 16), hidden_dim=16, dim_feedforward=32, nheads=2,
        num_queries=6, enc_layers=1, dec_layers=2, dropout=0.1,
    )  # fmt: skip
    model.min_shard = 0
    return model


def images_and_labels(model, count, rng):
    return rng.standard_normal((count, *model.input_shape)).astype(np.float32), rng.integers(0, 3, count)


def images_and_boxes(model, count, rng):
    """With masks and denoising queries, as the detection task has them."""
    x = rng.standard_normal((count, *model.input_shape)).astype(np.float32)
    boxes = rng.uniform(0.2, 0.5, (count, 2, 4)).astype(np.float32)
    targets = [{"labels": np.array([i % 3, 1]), "boxes": pair} for i, pair in enumerate(boxes)]
    queries = nv.losses.denoising_queries(targets, 3, rng)
    return (x, np.zeros((count, *x.shape[2:]), bool), queries), targets


@dataclass(frozen=True)
class Family:
    make: Callable
    batch: Callable = images_and_labels
    loss: Callable = nv.losses.cross_entropy

    def batches(self, steps):
        """The first `steps` batches: of 32 images, which are eight shards, with shorter ones now and then."""
        rng, model = np.random.default_rng(5), self.make()
        counts = [SHORT[i // 10 % 2] if i % 10 == 9 else 32 for i in range(steps)]
        return [self.batch(model, count, rng) for count in counts]


FAMILIES = {
    "vit": Family(vit),
    "distilled": Family(distilled),
    "recomputing": Family(recomputing),
    "swin": Family(swin),
    "detr": Family(detr, images_and_boxes, nv.losses.detection),
}


def trained(model, batches, group=None, threads=1, loss=nv.losses.cross_entropy, clip_norm=0.5, accumulate=1):
    """The weights and their moving average after a step for each batch, and the losses."""
    optimizer, ema = optim.AdamW(model, lr=1e-2), optim.EMA(model, 0.9)
    optimizer.chunk_size = 500  # so that threads share the update
    step = nv.TrainStep(
        model, optimizer, loss, threads, seed=3, clip_norm=clip_norm, sharding=SEVERAL, group=group,
        accumulate=accumulate,
    )  # fmt: skip
    losses = []
    for batch in batches:
        losses.append(float(nv.backend.to_host(step(*batch))))
        ema.update()
    return {**model.state_dict(), **ema.state_dict(), "losses": np.array(losses)}


def trained_family(name, steps, device="cpu", **options):
    family = FAMILIES[name]
    batches = to_device(family.batches(steps), device_module(device))
    found = trained(family.make().to(device), batches, loss=family.loss, **options)
    return to_device(found, np)


def main(name, threads, accumulate, file, device="cpu"):
    group = connect("nccl" if device == "cuda" else "mpi", device)
    options = dict(group=group, threads=int(threads), accumulate=int(accumulate))
    found = trained_family(name, 50, device, **options)
    if group.leads:
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
