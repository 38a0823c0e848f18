"""`numpyvit compare`: several runs in one table."""

from argparse import ArgumentParser, Namespace

from .arguments import Verbs, add_verb


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "compare",
        run,
        "Several runs beside each other: the settings in which they differ, their figures and times.",
        "examples:\n  numpyvit compare runs/*\n"
        "  numpyvit compare runs/a runs/b --html compared.html\n  numpyvit compare runs/a runs/b --json\n",
    )
    verb.add_argument("run_directories", nargs="+", metavar="RUN", help="directories that `numpyvit train` wrote")
    verb.add_argument("--html", metavar="FILE", help="write one HTML file as well, with the curves of all runs")
    verb.add_argument("--json", action="store_true", help="print one JSON object instead")
    return verb


def run(args: Namespace) -> int | None:
    from ..files.atomic import to_json
    from ..report import compare_runs, read_run, write_comparison
    from ..report.compare import table

    runs = [read_run(path) for path in args.run_directories]
    compared = compare_runs(runs)
    print(to_json(compared) if args.json else _text([("", compared["runs"]), *table(runs)]))
    if args.html:
        write_comparison(runs, args.html)


def _text(rows):
    """Columns of text, the first to the left and the others to the right."""
    cells = [[name, *values] for name, values in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
