"""Train a Vision Transformer on MNIST in a script of one's own, step by step instead of with `numpyvit train`.

python examples/mnist.py                         # downloads MNIST
python examples/mnist.py --data-dir ~/mnist      # files at hand
python examples/mnist.py --data digits --epochs 10
"""

import argparse

import numpyvit as nv

MODELS = {"mnist": "vit_micro_patch4_28", "fashion-mnist": "vit_micro_patch4_28", "digits": "vit_micro_patch2_8"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=MODELS, default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="stop each epoch early, for a quick look")
    args = parser.parse_args()

    train, test = nv.data.load(args.data, args.data_dir)
    model = nv.create_model(MODELS[args.data], num_classes=len(train.classes), seed=0)
    optimizer = nv.optim.AdamW(model, lr=2e-3, weight_decay=0.05)
    step = nv.TrainStep(model, optimizer, loss=nv.losses.cross_entropy, seed=0, clip_norm=1.0)
    batches = nv.data.Loader(train, 64, shuffle=True, augment=[nv.data.random_affine(degrees=5, shift=0.5)], seed=0)
    schedule = nv.optim.cosine_schedule(2e-3, total_steps=args.epochs * len(batches), warmup_steps=100)

    for epoch in range(args.epochs):
        for number, (images, labels) in enumerate(batches.epoch(epoch)):
            optimizer.lr = schedule(step.steps)
            loss = step(images, labels)
            if number % 100 == 0:
                print(f"epoch {epoch + 1}  batch {number:4d}/{len(batches)}  loss {loss:.3f}", flush=True)
            if args.steps and number + 1 >= args.steps:
                break
        print(f"epoch {epoch + 1}  test accuracy {nv.evaluate(model, test)['accuracy']:.2%}")


if __name__ == "__main__":
    main()
