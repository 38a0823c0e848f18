"""`numpyvit gradcheck`: every backward against finite differences."""

from argparse import ArgumentParser, Namespace

from ..errors import ConfigError
from .arguments import Verbs, add_verb


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "gradcheck",
        run,
        "Compare every layer's backward, and one model of each kind, with finite differences in float64.",
        "example:\n  numpyvit gradcheck\n  numpyvit gradcheck Attention\n",
    )
    verb.add_argument("pattern", nargs="?", default="", help="only cases whose name contains this")
    return verb


def run(args: Namespace) -> int | None:
    from ..errors import GradientError
    from ..testing import gradcheck as check
    from ..testing.cases import LAYERS, MODELS

    cases = [case for case in LAYERS + MODELS if args.pattern.lower() in case.name.lower()]
    if not cases:
        raise ConfigError(f"no layer or model is named like {args.pattern!r}; `numpyvit gradcheck` checks all")
    failures = 0
    print(f"{'layer':36s} arrays  worst error  allowed  verdict")
    for case in cases:
        seed = 0 if case.dropout else None
        try:
            errors = check(case.layer("float64"), case.x("float64"), seed=seed, rtol=case.rtol)
            print(f"{case.name:36s} {len(errors):6d}  {max(errors.values()):11.1e}  {case.rtol:7.0e}  ok")
        except GradientError as error:
            failures += 1
            print(f"{case.name:36s} FAILED: {error}")
    print(f"{len(cases) - failures} of {len(cases)} hold")
    return 1 if failures else 0
