"""Writes tests/golden/coco_figures.json: pycocotools' figures of random cases. Needs pycocotools."""

import json
import pathlib
import sys

import numpy as np

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from detection_cases import random_case  # noqa: E402
from test_metrics_detection import GOLDEN, pycocotools_figures  # noqa: E402

cases = [{"seed": s, "figures": pycocotools_figures(*random_case(np.random.default_rng(s)))} for s in range(1000, 1012)]
GOLDEN.write_text(json.dumps(cases, indent=1) + "\n")
