"""How many wrong lines the tests notice: random mutants of the package, and the suite on each.

Draws changes of one expression or statement each (tests/mutations.py tells which kinds) in the arithmetic, the layers,
models, losses, optimizers, the tape and the step, runs the suite on every one of them in a copy of the tree, and prints
those that pass all tests, then the share that was caught. A mutant at which the tests do not end counts as caught.
Where pytest-cov is installed, the tests that run the changed line come first, those that run fewest other lines before
all others; of the other files whose lines are known only those that look at the changed file follow. Which tests run
which line is found once and kept beside the results.

    python tests/mutate.py --count 300 --seed 1 --jobs 2 --out mutants.jsonl
    python tests/mutate.py --count 50 --files 'numpyvit/losses.py' 'numpyvit/layers/*.py'

With --out each result is appended as a line of JSON, and a run that was stopped goes on where it was: what is known
about the same mutant of the same tree is not tried again.
"""

import argparse
import ast
import collections
import compileall
import concurrent.futures
import contextlib
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import py_compile
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

from mutations import mutants

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEMORY = 16 << 30  # bytes of address space for one run of the tests: a mutant may ask for all there is
PATIENCE = 30  # seconds for each file of tests: a mutant may wait for itself
QUICK = 100  # tests of the changed line that run before the others of that line

# What is mutated, NAME for numpyvit/NAME.py and all of numpyvit/NAME/, and the tests that run first on it.
TARGETS = {
    "functional": ("formulas", "functional", "boxes", "convolution", "swin", "layers", "pretrained"),
    "kernels": ("kernels", "formulas", "functional"),
    "core": ("core", "models", "step", "layers"),
    "layers": (
        *("layer_formulas", "initial_values", "defaults", "cross_attention", "convolution", "layers", "swin"),
        *("swin_attention", "query_attention", "detr", "resnet"),
    ),
    "models": (
        *("registry", "initial_values", "defaults", "models", "golden", "resnet", "detr", "swin", "pyramid", "summary"),
        *("query_attention", "predictor", "layer_formulas", "layers"),
    ),
    "losses": ("losses", "detection_loss", "golden", "defaults", "detr", "detection"),
    "optim": ("optim", "defaults", "step"),
    "training/step": ("step", "inference"),
    "training/shards": ("step", "inference"),
}
LAST = ("inference", "attention_maps", "viz", "data", "pretrained", "cli", "train")  # the tests that take longest

# Mutants that no test can tell from the package: a part of the line before, a part of it after, and why.
EQUIVALENT = (
    ("if decay:", "if True:", "without decay the weights are multiplied by 1"),
    ("if label_smoothing:", "if True:", "without smoothing the targets are multiplied by 1"),
    ("if rate < 1 else 0.0", "if rate < 1 else", "at rate 1 nothing is kept that would be scaled"),
    ("if step < warmup_steps", "step <= warmup_steps", "at the end of the warm-up both formulas give the full rate"),
    ("_FAR = ", "_FAR = ", "exp(−a²/2) is 0 before either"),
    ("_CHUNK = ", "_CHUNK = ", "longer pieces hold the same numbers"),
    ("_COLUMNS = ", "_COLUMNS = ", "pieces of another size hold the same numbers"),
    ("chunk_size = ", "chunk_size = ", "each number is updated by itself"),
    ("small_update: int", "small_update: int", "whether threads share an update decides speed alone"),
    ("np.empty(8 * _CHUNK + 16", "np.zeros(", "scratch that is larger; where it is too small the tests crash"),
    ("numbers.ctypes.data // 4 % 16", "first = ", "where scratch begins decides speed alone"),
    (
        "_SAFE_EXPONENT",
        "_SAFE_EXPONENT",
        "whether the maximum is subtracted decides speed alone where no exponential overflows",
    ),
    ("sum_over_last(x) if axis in", "sum_over_last(x) if ", "two ways to sum the same axis"),
    ("_cubic(d, -0.75), 2)", "_cubic(d, -0.75), 4)", "the kernel is 0 beyond two cells"),
    ("np.abs(distance), 0), 1)", "np.abs(distance), 0), 2)", "the kernel is 0 beyond one cell"),
    ("max(top // sh for top in tops", "max(top for top in tops", "rows are gathered that nothing is multiplied by"),
    ("F.gelu_backward(dy, slope)", "F.gelu_backward(slope, dy)", "a product of two arrays"),
    ("[None] * (len(self) - 1) + [dy]", "[None] * (len(self)) + [dy]", "zip ends with the layers"),
    (
        "(found), F.box_cxcywh_to_xyxy(wanted)",
        "(wanted), F.box_cxcywh_to_xyxy(found)",
        "how boxes overlap is symmetric",
    ),
    ("x < _LEAST_EXPONENT", "x <= _LEAST_EXPONENT", "exp of the bound itself may count as 0 or not"),
    ("shape[1:3]", "shape[1:4]", "of a map two sides are read"),
    ("2, W // 2, 2, C)", "2, 2, W // 2, C)", "the columns are joined again in their order"),
    ("if n_out > 1 else 0.0", "if n_out > 1 else", "the one place of an axis of one is 0"),
    ("dtype) * -1e9", "dtype) * -2000000000.0", "either leaves nothing of a score behind exp"),
    ("b.strides[-2] < b.strides[-1]", "b.strides[-2] <= b.strides[-1]", "of equal strides either order is the same"),
)


def main():
    options = arguments()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    drawn = draw(options.files, options.seed, options.count)
    results = known_results(options.out)
    rest = [(file, mutant) for file, mutant in drawn if key(file, mutant) not in results]
    print(f"{len(drawn)} mutants drawn, {len(drawn) - len(rest)} of them known", flush=True)

    def note(record):
        results[record["key"]] = record
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = queue.Queue()
        for i in range(options.jobs):
            trees.put(copy_of_tree(pathlib.Path(folder, str(i))))
        if rest and fingerprint() not in results:
            check_that_the_suite_passes(trees)
            note({"key": fingerprint(), "outcome": "passed"})
        lines = coverage_file(options.out)
        if rest and not lines.exists() and importlib.util.find_spec("pytest_cov"):
            cover(trees, lines)
        focused = Focused(lines)
        for number, record in enumerate(tried(rest, trees, options.jobs, focused), 1):
            note(record)
            print(f"[{number}/{len(rest)}] {record['file']}:{record['line']} {record['outcome']}", flush=True)
    report([results[key(file, mutant)] for file, mutant in drawn])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="how many mutants to draw (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default %(default)s)")
    parser.add_argument("--files", nargs="+", metavar="GLOB", help="mutate these files only, from the top of the tree")
    parser.add_argument("--jobs", type=int, default=2, help="how many suites at a time (default %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="JSON-lines file that each result is appended to")
    return parser.parse_args()


# ---- what is drawn --------------------------------------------------------------------------------------------------


def draw(globs, seed, count):
    """(file, mutant) pairs, as many as asked for; those of a smaller count come first in those of a larger one."""
    sources = {file: (ROOT / file).read_bytes() for file in target_files(globs)}
    found = [(file, mutant) for file, source in sources.items() for mutant in mutants(source)]
    random.Random(seed).shuffle(found)
    programs = ((file, mutant) for file, mutant in found if mutant.is_another_program(sources[file]))
    return list(itertools.islice(programs, count))


def target_files(globs):
    """Paths from the top of the tree. Targets that this tree does not have are left out with a note."""
    if globs:
        found = {path for pattern in globs for path in ROOT.glob(pattern) if path.suffix == ".py"}
        if not found:
            sys.exit(f"no Python file matches {' '.join(globs)}; patterns begin at {ROOT}")
        return sorted(str(path.relative_to(ROOT)) for path in found)
    files = []
    for target in TARGETS:
        found = files_of(target)
        if not found:
            print(f"note: there is no numpyvit/{target}.py and no numpyvit/{target}/; left out")
        files += found
    return files


def files_of(target):
    base = ROOT / "numpyvit" / target
    paths = [path for path in (base.with_suffix(".py"), *sorted(base.rglob("*.py"))) if path.exists()]
    compiled = ROOT / "numpyvit" / "kernels" / "fast"  # what nobody runs nobody can test
    untested = [] if importlib.util.find_spec("numba") else [path for path in paths if compiled in path.parents]
    return [str(path.relative_to(ROOT)) for path in paths if path not in untested]


def test_files(tree, file):
    """The test files of a tree in two parts: those that look at a source file first, and all others."""
    every = {path.stem.removeprefix("test_"): str(path.relative_to(tree)) for path in tree.glob("tests/test_*.py")}
    first = next((tests for target, tests in TARGETS.items() if file in files_of(target)), ())
    first = [name for name in first if name in every]
    others = sorted(every.keys() - set(first), key=lambda name: (LAST.index(name) if name in LAST else -1, name))
    return [[every[name] for name in names] for names in (first, others)]


# ---- how it is tried ------------------------------------------------------------------------------------------------


def tried(pairs, trees, jobs, focused):
    """The records of all pairs, as they come."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(try_one, file, mutant, trees, focused(file, mutant.line)) for file, mutant in pairs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def try_one(file, mutant, trees, focused):
    """Run the focused tests on one mutant in a copy of the tree that is free, then the others. -> its record."""
    tree = trees.get()
    source = (tree / file).read_bytes()
    first, others = test_files(tree, file)
    stages = (focused[:QUICK], focused[QUICK:], first, unknown_tests(tree)) if focused else (first, others)
    try:
        (tree / file).write_bytes(mutant.apply(source))
        outcomes = (run_tests(tree, tests) for tests in stages)
        outcome = next((outcome for outcome in outcomes if outcome != "passed"), "survived")
    finally:
        (tree / file).write_bytes(source)
        trees.put(tree)
    place = {"key": key(file, mutant), "file": file, "line": mutant.line}
    return {**place, "before": mutant.before, "after": mutant.after, "outcome": outcome}


def run_tests(tree, tests, *options, **settings):
    """'passed', or what caught it: the first failing test, or the time."""
    if not tests:
        return "passed"
    listed = tree / "tests.txt"
    listed.write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *options, f"@{listed}"]
    settings |= {"PYTHONPATH": str(tree), "OPENBLAS_NUM_THREADS": "1"}
    patience = PATIENCE * len({test.split("::")[0] for test in tests})
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command, cwd=tree, env=os.environ | settings, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            return f"caught by time: {patience} s"
        finally:  # together with what the tests started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        output = printed.read()
    if process.returncode == 0:
        return "passed"
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"caught by {failed[0].split(' - ')[0].split(maxsplit=1)[1] if failed else f'exit {process.returncode}'}"


def check_that_the_suite_passes(trees):
    """A test that fails by itself would catch everything."""
    tree = trees.get()
    first, others = test_files(tree, "")
    outcome = run_tests(tree, first + others)
    trees.put(tree)
    if outcome != "passed":
        sys.exit(f"the tests fail before anything is changed ({outcome}); mend that first")


def unknown_tests(tree):
    """The test files of a tree of which `cover` does not tell which lines they run."""
    first, others = test_files(tree, "")
    known = {f"tests/test_{name}.py" for tests in TARGETS.values() for name in tests}
    return [file for file in first + others if file not in known]


def cover(trees, file):
    """Write down which lines each test runs, of those tests that run first on some mutant."""
    tree, names = trees.get(), {name for tests in TARGETS.values() for name in tests}
    tests = [str(path.relative_to(tree)) for name in sorted(names) for path in tree.glob(f"tests/test_{name}.py")]
    options = ("--cov=numpyvit", "--cov-context=test", "--cov-report=", "--maxfail=1000")
    # coverage's own files are found unclosed in whichever test runs then
    options += ("-W", "ignore::pytest.PytestUnraisableExceptionWarning")
    run_tests(tree, tests, *options, COVERAGE_FILE=str(file))
    trees.put(tree)


class Focused:
    """focused(file, line) -> the tests that run a line, those that run fewest lines first."""

    def __init__(self, coverage):
        self.tests, lines = {}, collections.Counter()
        if not coverage.exists():
            return
        from coverage import CoverageData

        data = CoverageData(coverage)
        data.read()
        for path in data.measured_files():
            file = "numpyvit/" + path.rpartition("/numpyvit/")[2]
            for line, contexts in data.contexts_by_lineno(path).items():
                self.tests[file, line] = tests = {context.split("|")[0] for context in contexts if context}
                lines.update(tests)
        self.tests = {place: sorted(tests, key=lambda test: (lines[test], test)) for place, tests in self.tests.items()}

    def __call__(self, file, line):
        """Of a statement over several lines some are known; what runs at import no test runs by itself."""
        tests = (self.tests.get((file, number)) for number in statement((ROOT / file).read_text(), line))
        return next(filter(None, tests), [])


def statement(source, line):
    """The lines from this one up to the first of its statement, if that stands in a function; else none."""
    bodies = (node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    inside = (node for body in bodies for outer in body for node in ast.walk(outer) if isinstance(node, ast.stmt))
    first = max((node.lineno for node in inside if node.lineno <= line <= node.end_lineno), default=line + 1)
    return range(line, first - 1, -1)


def coverage_file(out):
    return (out or pathlib.Path(tempfile.gettempdir(), "mutants")).absolute().with_suffix(f".{fingerprint()}.coverage")


def copy_of_tree(folder):
    """Its bytecode is told by the hash of the source: by size and time one mutant would be taken for another."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".venv"))
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder / "numpyvit", quiet=1, invalidation_mode=by_hash)
    return folder


# ---- what is known --------------------------------------------------------------------------------------------------


@functools.cache
def fingerprint():
    """Of the package and its tests: results of another tree tell nothing about this one."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("numpyvit/**/*.py"), *ROOT.glob("tests/*.py")]):
        if path.name not in ("mutate.py", "mutations.py"):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def key(file, mutant):
    return f"{fingerprint()} {file} {mutant.start}-{mutant.stop} {mutant.text}"


def known_results(out):
    """{key: record} of a file of earlier results."""
    results = {}
    for line in out.read_text().splitlines() if out and out.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a line that a stopped run left half written
            record = json.loads(line)
            results[record["key"]] = record
    return results


def reason(record):
    """Why a mutant does the same as the package, or None where that is not known."""
    return next((why for a, b, why in EQUIVALENT if a in record["before"] and b in record["after"]), None)


def report(records):
    survivors = [record for record in records if record["outcome"] == "survived"]
    equal = [record for record in survivors if reason(record)]
    missed = [record for record in survivors if not reason(record)]
    for title, some in (("equivalent", equal), ("survived", missed)):
        for record in some:
            why = f" ({reason(record)})" if some is equal else ""
            print(f"\n{record['file']}:{record['line']} {title}{why}\n- {record['before']}\n+ {record['after']}")
    judged = len(records) - len(equal)
    share = 100 * (judged - len(missed)) / max(judged, 1)
    print(f"\ncaught {judged - len(missed)} of {judged}, {share:.1f}%; {len(equal)} more are known to be equivalent")


if __name__ == "__main__":
    main()
