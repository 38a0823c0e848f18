"""Seconds of training until a test accuracy is reached:

    python -m benchmarks.accuracy ENGINE DATA GOAL SEED [DATA_DIR]

Both engines get the recipe of `numpyvit train`: the same initial weights, batches, augmentation, clipping, warm-up and
moving average, whose weights are tested after each epoch. Reading the files is not counted, the tests are.
"""

import sys
import time

import numpy as np

import numpyvit as nv
from numpyvit.data import Loader, load
from numpyvit.training import recipes
from numpyvit.training.augmentation import augmentation

_MOST_EPOCHS = 60


def main(engine, data, goal, seed, data_dir=None):
    nv.tune_process()
    settings = recipes.recipe(data)
    train, test = load(data, data_dir)
    model = nv.create_model(recipes.default_model(data), seed=int(seed))
    loader = Loader(
        train,
        settings.batch_size,
        shuffle=True,
        augment=augmentation(settings.augment),
        seed=int(seed),
    )
    rate = nv.optim.constant_schedule(settings.lr, settings.warmup_steps)
    run = {"numpyvit": Numpyvit, "torch": Torch}[engine](model, settings)
    steps, start = 0, time.perf_counter()
    for epoch in range(_MOST_EPOCHS):
        for images, labels in loader.epoch(epoch):
            run.step(images, labels, rate(steps))
            steps += 1
        right = sum((run.predict(x) == y).sum() for x, y in Loader(test, 256).epoch())
        print(f"epoch {epoch + 1}: {right / len(test):.2%}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
        if right / len(test) >= float(goal):
            print(time.perf_counter() - start)
            return
    sys.exit(f"{goal} was not reached in {_MOST_EPOCHS} epochs")


class Numpyvit:
    def __init__(self, model, settings):
        self.model, self.optimizer = model, nv.optim.AdamW(model, weight_decay=settings.weight_decay)
        self.train = nv.TrainStep(model, self.optimizer, clip_norm=settings.clip_norm)
        self.ema = nv.optim.EMA(model, settings.ema_decay)

    def step(self, images, labels, lr):
        self.optimizer.lr = lr
        self.train(images, labels)
        self.ema.update()

    def predict(self, images):
        with self.ema.applied():
            return nv.infer(self.model, images).argmax(-1)


class Torch:
    def __init__(self, model, settings):
        import torch

        self.torch, self.settings, self.steps = torch, settings, 0
        self.model = torch_twin(model)
        self.average = torch_twin(model)
        groups = {True: [], False: []}
        for parameter, own in zip(self.model.parameters_in_order, (p for _, p in model.named_parameters())):
            groups[own.decay].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": settings.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            fused=True,
        )

    def step(self, images, labels, lr):
        torch = self.torch
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.steps += 1
        beta = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - beta)

    def predict(self, images):
        with self.torch.inference_mode():
            return self.average(self.torch.from_numpy(images)).argmax(-1).numpy()


def torch_twin(model):
    """The same model in PyTorch, with its weights."""
    import torch

    from .torch_model import TorchViT

    block = model.blocks[0]
    twin = TorchViT(
        model.patch_embed.img_size[0],
        model.patch_embed.patch_size[0],
        model.patch_embed.proj.weight.data.shape[1],
        block.attn.dim,
        len(model.blocks),
        block.attn.num_heads,
        block.mlp.fc1.weight.data.shape[0] / block.attn.dim,
        model.num_classes,
        fused_attention=False,
    )
    named = {
        name.replace("mlp.", "").replace("patch_embed.proj", "patch_embed"): p for name, p in model.named_parameters()
    }
    twin.load_state_dict({name: torch.from_numpy(np.array(p.data)) for name, p in named.items()})
    own = dict(twin.named_parameters())
    twin.parameters_in_order = [own[name] for name in named]
    return twin


if __name__ == "__main__":
    main(*sys.argv[1:])
