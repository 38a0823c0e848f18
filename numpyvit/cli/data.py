"""`numpyvit data`: what a set of images holds, before anything is trained on it."""

from argparse import ArgumentParser, Namespace

from ..errors import ConfigError, DataError
from .arguments import Verbs, add_verb

_MOST_CLASSES, _MOST_GROUPS, _MOST_NAMES = 40, 20, 5  # lines and names that are printed; --json has all
_TILES, _TILES_WITH_BOXES = 60, 24  # images on the contact sheet


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "data",
        run,
        "What a set of images holds: classes, sizes, formats, duplicates, broken files. Every image is decoded. The "
        "exit code is 1 where some are broken.",
        "examples:\n  numpyvit data images/\n  numpyvit data images.csv --sheet sheet.png\n"
        "  numpyvit data digits --json\n",
    )
    verb.add_argument(
        "data",
        metavar="NAME|FOLDER|FILE.csv",
        help="what `numpyvit train --data` takes: a data set's name, a folder, a CSV with the columns path, label and "
        "maybe split",
    )
    verb.add_argument("--data-dir", metavar="DIR", help="where the files of a data set lie")
    verb.add_argument(
        "--sheet", metavar="FILE.png", help="draw some images of each class, with boxes where there are any"
    )
    verb.add_argument("--json", action="store_true", help="print one JSON object instead, in which nothing is left out")
    return verb


def run(args: Namespace) -> int | None:
    from ..data.inspection import inspect
    from ..files.atomic import to_json

    if args.sheet and not args.sheet.lower().endswith(".png"):
        raise ConfigError(f"--sheet {args.sheet}: is written as PNG; let its name end with .png")
    found = inspect(args.data, args.data_dir)
    summary = found.summary()
    print(to_json({"data": args.data, **summary}) if args.json else _text(args.data, summary))
    if args.sheet:
        _draw(found, args.data, args.sheet)
        if not args.json:
            print(f"\nsheet       {args.sheet}")
    return 1 if found.broken else 0


def _draw(found, name, path):
    from .. import viz

    boxes = any(image.target is not None for image in found.images)
    side, images = (320, found.sample(_TILES_WITH_BOXES)) if boxes else (128, found.sample(_TILES))
    if not images:
        raise DataError(f"{name}: has no image to draw")
    pixels, title = [image.read(side) for image in images], f"{name}: {len(images)} of {len(found.images):,} images"
    if boxes:
        true = [image.target for image in images]
        viz.draw_boxes(pixels, path, found.classes, true=true, title=title, tile_size=side)
    else:
        viz.draw_images(pixels, path, [image.classes[0] for image in images], title, tile_size=side)


# ---- as text --------------------------------------------------------------------------------------------------------


def _text(name, summary):
    parts = summary["parts"]
    lines = [f"{name}: {summary['images']:,} images, {len(summary['classes'])} classes", "", *_classes(summary)]
    lines += ["", f"images      {', '.join(f'{part} {count:,}' for part, count in parts.items()) or 'none'}"]
    for axis in ("width", "height"):
        if summary[axis]:
            lines.append(f"{axis:10}  {_spread(**summary[axis])}")
    for kind, what in (("formats", "formats"), ("modes", "modes"), ("other_files", "not read")):
        if summary[kind]:
            lines.append(f"{what:10}  {', '.join(f'{name} {count:,}' for name, count in summary[kind].items())}")
    lines += _duplicates(summary["duplicates"])
    for kind, what in (("left_out", "boxes left out"), ("broken", "broken")):
        if summary[kind]:
            lines += ["", f"{what}: {len(summary[kind]):,}", *(f"  {line}" for line in summary[kind])]
    return "\n".join(lines)


def _spread(min, median, max):
    return f"{min:,} pixels" if min == max else f"{min:,} to {max:,} pixels, median {median:,.0f}"


def _classes(summary):
    """A table, a line for each class, a column for each part."""
    parts, rows = list(summary["parts"]), list(summary["classes"].items())
    width = max([len("class"), *(len(name) for name, _ in rows[:_MOST_CLASSES])])
    lines = [f"{summary['counted']} of each class", f"{'class':{width}}" + "".join(f"{part:>10}" for part in parts)]
    for name, counts in rows[:_MOST_CLASSES]:
        lines.append(f"{name:{width}}" + "".join(f"{counts.get(part, 0):10,}" for part in parts))
    if len(rows) > _MOST_CLASSES:
        totals = [sum(counts.values()) for _, counts in rows]
        more = len(rows) - _MOST_CLASSES
        lines.append(f"… and {more:,} more; the smallest has {min(totals):,}, the largest {max(totals):,}")
    return lines


def _duplicates(groups):
    """Which images are the same, with a word on those that would spoil a test."""
    if not groups:
        return ["duplicates  none"]
    across = sum(len(group["parts"]) > 1 for group in groups)
    lines = ["", f"duplicates: {len(groups):,} groups of equal pixels, {across:,} across parts"]
    if across:
        lines[-1] += ", which makes a model look better than it is"
    for group in groups[:_MOST_GROUPS]:
        names, more = group["images"][:_MOST_NAMES], len(group["images"]) - _MOST_NAMES
        lines.append(f"  {' = '.join(names)}{f' and {more:,} more' if more > 0 else ''}{_remark(group)}")
    if len(groups) > _MOST_GROUPS:
        lines.append(f"  … and {len(groups) - _MOST_GROUPS:,} more groups; --json names all")
    return lines


def _remark(group):
    remarks = [f"in {' and '.join(group['parts'])}"] if len(group["parts"]) > 1 else []
    remarks += [f"of the classes {', '.join(group['classes'])}"] if len(group["classes"]) > 1 else []
    return f"  ({'; '.join(remarks)})" if remarks else ""
