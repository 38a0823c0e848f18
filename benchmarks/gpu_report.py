"""The figures of benchmarks.gpu as Markdown, beside their bars."""

# part, unit: {other engine: highest ratio of numpyvit's time to its}
BARS = {
    ("step", "vit-b64-tf32"): {"torch-eager": 0.5, "torch-graph": 1.0},
    ("step", "vit-b128-tf32"): {"torch-eager": 0.5, "torch-graph": 1.0},
    ("step", "vit-b512-tf32"): {"torch-eager": 0.85, "torch-graph": 1.0},
    ("step", "vit-b64-bf16"): {"torch-eager": 0.5},
    ("step", "vit-b128-bf16"): {"torch-eager": 0.5},
    ("step", "vit-b512-bf16"): {"torch-eager": 0.9},
    ("inference", "vit_base-b1-tf32"): {"torch-eager": 0.6, "torch-compile": 1.0},
    ("inference", "vit_base-b64-tf32"): {"torch-eager": 1.1, "torch-compile": 1.1},
}
_ENGINES = ("numpyvit", "numpyvit-eager", "torch-eager", "torch-graph", "torch-compile")
_OTHERS = _ENGINES[2:]
_ACCURACY = {"cifar": 0.935}


def markdown(found):
    """All that was found, {part: {unit: figures}}."""
    lines = ["# On a GPU", ""]
    lines += [f"- {name}: {value}" for name, value in found.get("machine", {}).get("this", {}).items()]
    for unit, figures in found.get("tests", {}).items():
        lines += ["", f"## pytest -m {unit}", "", figures["last_line"]]
        lines += [f"- {name}" for name in figures["failures"]]
    for part in ("step", "inference"):
        if part in found:
            lines += ["", f"## {part}", "", *_table(part, found[part])]
    trained = {unit: figures for part in ("digits", "cifar") for unit, figures in found.get(part, {}).items()}
    if trained:
        lines += ["", "## training", "", *_training(trained)]
    return "\n".join(lines) + "\n"


def _table(part, units):
    """Milliseconds, median (minimum), and the ratios of medians to PyTorch's; in brackets the bar."""
    yield "| ms | " + " | ".join([*_ENGINES, *(f"ratio to {name}" for name in _OTHERS)]) + " |"
    yield "|---" * (1 + len(_ENGINES) + len(_OTHERS)) + "|"
    for unit, figures in units.items():
        cells = [_time(figures.get(name)) for name in _ENGINES]
        cells += [_ratio(figures, name, BARS.get((part, unit), {}).get(name)) for name in _OTHERS]
        yield f"| {unit} | " + " | ".join(cells) + " |"


def _time(figures):
    return f"{figures['median']:.3g} ({figures['minimum']:.3g})" if figures else "–"


def _ratio(figures, other, bar):
    if other not in figures or "numpyvit" not in figures:
        return "–"
    ratio = figures["numpyvit"]["median"] / figures[other]["median"]
    return f"{ratio:.2f}" + (f" (≤ {bar}: {_met(ratio <= bar)})" if bar else "")


def _training(units):
    yield "| run | test accuracy | minutes | epochs | images/s | precision |"
    yield "|---|---|---|---|---|---|"
    for unit, figures in units.items():
        if figures["exit_code"]:
            yield f"| {unit} | failed: {figures['last_line']} | | | | |"
            continue
        bar, accuracy = _ACCURACY.get(unit), figures["accuracy"]
        shown = f"{accuracy:.2%}" + (f" (≥ {bar:.1%}: {_met(accuracy >= bar)})" if bar else "")
        yield (
            f"| {unit} | {shown} | {figures['minutes']:.1f} | {figures['epochs']} | "
            f"{figures['images_per_second']:.0f} | {figures['precision']} |"
        )


def _met(met):
    return "met" if met else "missed"
