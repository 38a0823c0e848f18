"""ViTClassifier against an SVC with tuned kernel: 5-fold cross-validation on scikit-learn's digits, three seeds.

    python -m benchmarks.digits_cv [FOLDS_TO_RUN]

The folds are stratified and shuffled by the seed. ViTClassifier has its default settings; the SVC's C and γ are chosen
in each fold by a cross-validation within its training part. FOLDS_TO_RUN: of each seed, default all 5.
"""

import sys
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

import numpyvit as nv

_SEEDS = range(3)
_KERNELS = {"C": [1, 3, 10, 30], "gamma": [0.0003, 0.0006, 0.001, 0.002]}  # of pixels in 0..16


def main(folds=5):
    X, y = load_digits(return_X_y=True)
    scores = {"ViTClassifier": [], "SVC": []}
    for seed in _SEEDS:
        splits = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y))[: int(folds)]
        for number, (train, test) in enumerate(splits):
            models = {"ViTClassifier": nv.ViTClassifier(random_state=seed), "SVC": GridSearchCV(SVC(), _KERNELS, cv=5)}
            for name, model in models.items():
                start = time.perf_counter()
                score = model.fit(X[train], y[train]).score(X[test], y[test])
                scores[name].append(score)
                seconds = time.perf_counter() - start
                print(f"seed {seed} fold {number}  {name:14} {score:.2%}  {seconds:.0f} s", flush=True)
    for name, found in scores.items():
        print(f"{name:14} {np.mean(found):.2%} ± {np.std(found):.2%} over {len(found)} folds")


if __name__ == "__main__":
    main(*sys.argv[1:])
