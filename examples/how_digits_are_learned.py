# %% [markdown]
"""See how a Vision Transformer learns digits: what it looks at after 1, 5 and 30 epochs, on one sheet.

    python examples/how_digits_are_learned.py                  writes how_digits_are_learned.png
    python examples/how_digits_are_learned.py --epochs 5       less of it

The cells (# %%) run one after another in an editor that knows them, or all at once as a script. The digits are in the
package. docs/README.md leads to the pages that derive what happens here.
"""

# %% What it is told
import argparse
import sys

import numpy as np

import numpyvit as nv

SHOWN = (1, 5, 30)  # epochs after which it is looked at

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=SHOWN[-1], help="default: %(default)s")
parser.add_argument("--steps", type=int, help="stop each epoch early, for a quick look")
parser.add_argument("--out", default="how_digits_are_learned.png", help="default: %(default)s")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook has arguments of its own

# %% The digits, 8×8 pixels, and a ViT that reads them as 16 patches of 2×2
train, test = nv.data.load("digits")
model = nv.create_model("vit_micro_patch2_8", num_classes=10, seed=args.seed)
step = nv.TrainStep(model, nv.optim.AdamW(model, lr=2e-3), seed=args.seed, clip_norm=1.0)
augment = [nv.data.random_affine(degrees=10, shift=0.5)]
batches = nv.data.Loader(train, 64, shuffle=True, augment=augment, seed=args.seed)
schedule = nv.optim.cosine_schedule(2e-3, total_steps=args.epochs * len(batches), warmup_steps=len(batches))

# one image of each digit, from the test set
chosen = [int(np.flatnonzero(test.labels == digit)[0]) for digit in range(10)]
images = nv.data.normalize(test.images[chosen], test.mean, test.std)


# %% Training, with a look after some epochs
def look():
    """What the class token of the last block attends to in each image, (10, 4, 4), 1 an even share; and the classes."""
    maps = [nv.viz.attention_grids(model, image)[-1].mean(0) for image in images]  # the mean of the heads
    return np.array(maps), nv.functional.softmax(model(images)), nv.evaluate(model, test)["accuracy"]


losses, looks = [], {}
for epoch in range(1, args.epochs + 1):
    for number, (x, labels) in enumerate(batches.epoch(epoch), 1):
        step.optimizer.lr = schedule(step.steps)
        losses.append(step(x, labels))
        if number == args.steps:
            break
    if epoch in SHOWN or epoch == args.epochs:
        looks[epoch] = look()
        print(f"epoch {epoch}: loss {np.mean(losses[-20:]):.2f}, test accuracy {looks[epoch][2]:.1%}", flush=True)

# %% One sheet: a row for each look, a column for each digit, and the loss below
from matplotlib.figure import Figure  # noqa: E402

height = 1.35 * len(looks) + 0.4
figure = Figure(figsize=(10, height + 2.2), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[height, 2.2])
rows = top.subplots(len(looks), 10, squeeze=False)
for (epoch, (maps, p, accuracy)), row in zip(looks.items(), rows):
    row[0].set_ylabel(f"epoch {epoch}\n{accuracy:.1%} right", fontsize=10)
    for digit, axes in enumerate(row):
        axes.imshow(test.images[chosen[digit], 0], "gray_r", vmax=400)
        share = np.kron(maps[digit], np.ones((2, 2)))  # a patch has 2×2 pixels
        axes.imshow(np.ones((8, 8)), "autumn", vmin=0, vmax=2, alpha=np.clip(share / 4, 0, 1) * 0.85)
        found = p[digit].argmax()
        color = "#1a7f37" if found == digit else "#c0392b"
        axes.set_title(f"{found}, {p[digit, found]:.0%}", fontsize=9, color=color)
        axes.set(xticks=[], yticks=[])
top.suptitle("what the class token looks at (orange: at four times an even share), and what the model says")

axes = bottom.subplots()
smooth = np.convolve(np.pad(losses, 5, "edge"), np.ones(11) / 11, "valid")
axes.semilogy(np.arange(len(losses)) * args.epochs / len(losses), smooth, color="#2166ac")
for epoch in looks:
    axes.axvline(epoch, color="#e67e22", lw=1.5)
axes.set(xlabel="epoch; the lines are the rows above", ylabel="loss of a batch", xlim=(0, 1.01 * args.epochs))
axes.yaxis.set_major_formatter("{x:g}")
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(args.out, dpi=110)
print(args.out)
