"""The command line on real processes, which mpirun starts and MPI connects."""

import json
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT, finish
from rank_families import FAMILIES, trained_family

from numpyvit import cli
from numpyvit.errors import ConfigError
from numpyvit.training.launch import connect, launched
from numpyvit.training.run_directory import TIMINGS
from numpyvit.weights.checkpoint import load_tensors

RUN = ("--epochs", "3", "--steps", "24", "--batch-size", "128", "--drop-path-rate", "0.2", "--threads", "1")


def assert_same_run(one, other):
    """All that two runs leave, timings aside."""
    for name in ("last.safetensors", "best.safetensors", "result.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for file in ("state.safetensors", "predictions.safetensors"):
        expected, found = (load_tensors(run / file)[0] for run in (one, other))
        assert expected.keys() == found.keys()
        assert all(np.array_equal(array, found[name]) for name, array in expected.items()), file
    records = [
        [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in file.read_text().splitlines()]
        for file in (one / "metrics.jsonl", other / "metrics.jsonl")
    ]
    assert records[0] == records[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert cli.main(["train", "--quiet", *RUN, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("ranks, options", [(2, ()), (4, ("--accumulate", "2", "--threads", "2"))])
def test_a_run_of_several_processes_is_that_of_one(mpirun, alone, tmp_path, ranks, options):
    code, out, err = finish(mpirun(ranks, "train", *RUN, *options, "--out", tmp_path / "run"))
    assert code == 0 and out.count("test accuracy") == 1, err
    assert_same_run(alone, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists() and "was not drawn" not in err


@pytest.mark.slow
@pytest.mark.parametrize("ranks, threads, accumulate", [(2, 1, 1), (4, 3, 3), (8, 1, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_steps_of_several_processes_are_those_of_one(mpirun, tmp_path, family, ranks, threads, accumulate):
    program = (ROOT / "tests" / "rank_families.py", family, threads, accumulate, tmp_path / "found.npz")
    code, _, err = finish(mpirun(ranks, program_args=program))
    assert code == 0, err
    expected = trained_family(family, 50)
    with np.load(tmp_path / "found.npz") as found:
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_evaluate_and_predict_say_the_same_once(mpirun, alone, image_folder, capsys):
    for verb in (
        ("evaluate", "--json", "--batch-size", "50"),
        ("predict", "--json", image_folder, image_folder / "none.png"),
    ):
        args = [*map(str, verb), "--checkpoint", str(alone), "--threads", "1"]
        code = cli.main(args)
        expected = capsys.readouterr()
        found_code, out, err = finish(mpirun(2, *args))
        assert (found_code, len(out.splitlines())) == (code, len(expected.out.splitlines()))
        for a, b in zip(map(json.loads, out.splitlines()), map(json.loads, expected.out.splitlines())):
            for name in TIMINGS:
                a.pop(name, None), b.pop(name, None)
            assert a == b
        assert [line for line in expected.err.splitlines() if line not in err] == []


def test_a_table_of_predictions_is_written_once_and_whole(mpirun, alone, image_folder, tmp_path):
    args = ["predict", str(image_folder), "--checkpoint", str(alone), "--threads", "1", "--csv"]
    assert cli.main([*args, str(tmp_path / "one.csv")]) == 0
    code, out, err = finish(mpirun(2, *args, tmp_path / "ranks.csv"))
    assert (code, out) == (0, ""), err
    assert (tmp_path / "ranks.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def stricken(signum, rank, place, number):
    """Arguments of mpirun for a command line of which a rank, or all, send themselves a signal at the n-th call."""
    return dict(program_args=(ROOT / "tests" / "stricken_rank.py", signum, rank, place, number))


def end_of(process):
    """-> the exit code of a run in which ranks are killed. It ends within 30 seconds of that."""
    watch = threading.Timer(120, process.kill)
    watch.start()
    assert any("here it strikes" in line for line in process.stderr)
    watch.cancel()
    return finish(process, timeout=30)[0]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_run_that_loses_ranks_ends_and_goes_on_with_another_number_of_them(mpirun, alone, tmp_path, seed):
    """On 4, where one rank is killed, on 2, where all are, and on 1. About half of a run has 60 exchanges."""
    out, draw = tmp_path / "run", random.Random(seed)
    resume = lambda: ["--resume"] if (out / "config.json").exists() else []  # noqa: E731
    for ranks, lost in ((4, draw.randrange(4)), (2, "all")):
        how = stricken("KILL", lost, "exchange", draw.randint(1, 60))
        assert end_of(mpirun(ranks, "train", *RUN, "--out", out, *resume(), **how)) != 0
    assert cli.main(["train", "--quiet", *RUN, *resume(), "--out", str(out)]) == 0
    assert_same_run(alone, out)


@pytest.mark.parametrize("kind, expected", [("DataError", 1), ("ConfigError", 2)])
def test_the_error_of_one_rank_names_it_once_and_ends_all(mpirun, tmp_path, kind, expected):
    """With the exit code of a process by itself, by which restart.sh knows bad usage."""
    script = tmp_path / "fail.py"
    script.write_text(
        "import sys\n"
        "from numpyvit import cli, optim\n"
        "from numpyvit.training.launch import launched\n"
        f"from numpyvit.errors import {kind} as Error\n"
        "class Failing(optim.EMA):\n"
        "    def update(self):\n"
        "        super().update()\n"
        "        if self.steps == 3 and launched()[0] == 1:\n"
        "            raise Error('the disk is gone')\n"
        "import numpyvit.training.loop\n"
        "numpyvit.training.loop.EMA = Failing\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    process = mpirun(2, "train", *RUN, "--out", tmp_path / "run", program_args=(str(script),))
    code, _, err = finish(process, timeout=60)
    assert code == expected and err.count("the disk is gone") == 1
    assert "error on rank 1 of 2, which ends all: the disk is gone" in err


def test_an_error_of_all_ranks_is_said_once(mpirun, tmp_path):
    code, _, err = finish(mpirun(2, "train", *RUN, "--lr", "1e30", "--clip-norm", "1e30", "--out", tmp_path / "run"))
    assert code != 0 and err.count("numpyvit: error:") == 1 and "rank" not in err.split("numpyvit: error:")[1][:200]


@pytest.mark.parametrize(
    "options, said",
    [("--steps none", "argument --steps"), ("--device cuda --ranks mpi", "--ranks mpi does not go with")],
)
def test_bad_usage_is_said_once(mpirun, options, said):
    code, _, err = finish(mpirun(2, "train", *options.split()))
    assert code == 2 and err.count(f"error: {said}") == 1


@pytest.mark.parametrize("rank", ["all", 1])
def test_a_stop_of_ranks_saves_and_the_run_goes_on(mpirun, alone, tmp_path, rank):
    out = tmp_path / "run"
    _, _, err = finish(mpirun(2, "train", *RUN, "--out", out, **stricken("TERM", rank, "exchange", 40)), timeout=60)
    assert err.count("everything is saved") == 1, err
    assert cli.main(["train", "--quiet", "--resume", "--out", str(out)]) == 0
    assert_same_run(alone, out)


def test_ranks_of_different_kernels_are_refused_at_once(mpirun, tmp_path):
    """One line says which rank has what, before anything is read or written."""
    script = tmp_path / "mixed.py"
    script.write_text(
        "import sys\n"
        "from numpyvit import cli\n"
        "from numpyvit.training.launch import launched\n"
        "from numpyvit.training import environment\n"
        "environment.__version__ = ('1.0', '1.1')[launched()[0]]\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    code, out, err = finish(mpirun(2, "train", "--out", tmp_path / "run", program_args=(script,)), timeout=30)
    assert code == 2 and out == "" and not (tmp_path / "run").exists()
    assert "numpyvit: error: numpyvit is '1.0' on rank 0, '1.1' on rank 1; ranks that do not compute alike" in err
    assert err.count("numpyvit: error") == 1


@pytest.mark.parametrize(
    "rank, place, number", [(1, "connect", 1), (1, "barrier", 1), (1, "evaluate", 2), (0, "save", 2)]
)
def test_a_rank_that_is_killed_ends_the_others(mpirun, tmp_path, rank, place, number):
    """Before the ranks are connected, within a barrier, while it evaluates, while it writes."""
    process = mpirun(2, "train", *RUN, "--out", tmp_path / "run", **stricken("KILL", rank, place, number))
    assert end_of(process) != 0


def test_the_loop_of_the_examples_goes_on_after_a_failure(mpi, alone, tmp_path):
    """The first time a rank dies in the second epoch."""
    out, programs = tmp_path / "run", tmp_path / "programs"
    programs.mkdir()
    (programs / "numpyvit").write_text(
        "#!/bin/sh\n"
        f'[ -e {out}/config.json ] && exec {sys.executable} -m numpyvit "$@"\n'
        f'exec {sys.executable} {ROOT}/tests/stricken_rank.py KILL 1 evaluate 2 "$@"\n'
    )
    (programs / "mpirun").write_text(f'#!/bin/sh\nexec {mpi[0]} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {**mpi[1], "RANKS": "2", "PATH": f"{programs}:{os.environ['PATH']}"}
    loop = [ROOT / "examples" / "restart.sh", *RUN, "--out", out]
    found = subprocess.run(loop, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("restart.sh: attempt") == 1 and found.stdout.count("test accuracy") == 1
    assert_same_run(alone, out)


@pytest.mark.parametrize("code, attempts", [(0, 1), (2, 1), (130, 1), (143, 1), (1, 5)])
def test_the_loop_ends_where_beginning_again_would_not_help(tmp_path, code, attempts):
    (tmp_path / "mpirun").write_text(f'#!/bin/sh\necho mpirun "$@"\nexit {code}\n')
    (tmp_path / "mpirun").chmod(0o755)
    (tmp_path / "sleep").symlink_to("/bin/true")
    loop = [ROOT / "examples" / "restart.sh", "--out", tmp_path / "run", "--epochs", "1"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RANKS": "3"}
    found = subprocess.run(loop, env=environment, capture_output=True, text=True, timeout=30)
    assert found.returncode == code
    assert found.stdout.splitlines() == [f"mpirun -n 3 numpyvit train --out {tmp_path / 'run'} --epochs 1"] * attempts


@pytest.mark.parametrize("begun", [False, True])
def test_the_script_for_slurm_starts_what_the_command_line_takes(tmp_path, begun):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    if begun:
        (tmp_path / "runs" / "imagenet").mkdir(parents=True)
        (tmp_path / "runs" / "imagenet" / "state.safetensors").touch()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "8"}
    script = ROOT / "examples" / "slurm.sh"
    found = subprocess.run([script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stderr
    srun, _, command = found.stdout.partition("numpyvit ")
    args = cli.build_parser().parse_args(command.split())
    assert "--kill-on-bad-exit=1" in srun and (args.ranks, args.threads, args.resume) == ("mpi", 8, begun)


def test_the_loop_wants_a_run_directory():
    found = subprocess.run([ROOT / "examples" / "restart.sh", "--epochs", "1"], capture_output=True, text=True)
    assert found.returncode == 2 and "name the run directory with --out" in found.stderr


def test_what_one_rank_misses_is_said_though_it_is_not_the_first(mpirun, tmp_path):
    script = tmp_path / "missing.py"
    script.write_text(
        "import sys\n"
        "from numpyvit import cli\n"
        "from numpyvit.training.launch import launched\n"
        "if launched()[0] == 1:\n"
        "    sys.modules['mpi4py'] = None\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    code, _, err = finish(mpirun(2, "train", "--out", tmp_path / "run", program_args=(script,)), timeout=30)
    assert code != 0 and "error on rank 1 of 2, which ends all: several ranks need MPI" in err


def test_one_rank_is_one_process(mpirun, alone, tmp_path):
    for name, options in (("noticed", ()), ("said", ("--ranks", "mpi"))):
        code, out, err = finish(mpirun(1, "train", *RUN, *options, "--out", tmp_path / name))
        assert code == 0 and out.count("test accuracy") == 1, err
        assert_same_run(alone, tmp_path / name)


# ---- how ranks are noticed ------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI_", "SLURM_", "MV2_")):
            monkeypatch.delenv(name)
    return lambda **names: [monkeypatch.setenv(name, value) for name, value in names.items()]


@pytest.mark.parametrize(
    "names, expected",
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3"}, (3, 4)),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, (1, 2)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, (0, 1)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_PROCID": "5"}, (5, 8)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (0, 1)),  # a batch script, which is no task of srun
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (0, 1)),  # srun --pty bash
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "PMI_SIZE": "4", "PMI_RANK": "2"}, (2, 4)),  # --mpi=pmi2
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "PMIX_RANK": "2"}, (2, 4)),  # srun --mpi=pmix
        ({"MV2_COMM_WORLD_SIZE": "3", "MV2_COMM_WORLD_RANK": "2"}, (2, 3)),
        # mpirun in a batch job: srun has started one helper a node, which has started the ranks
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "PMI_SIZE": "8", "PMI_RANK": "0"}, (0, 8)),
        (
            {
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "1",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "0",
            },
            (0, 4),
        ),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "PMI_SIZE": "1", "PMI_RANK": "0"}, (0, 1)),
        ({"PMI_SIZE": "two", "PMI_RANK": "0"}, (0, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, (0, 1)),
    ],
)
def test_ranks_are_noticed_by_their_environment(environment, names, expected):
    environment(**names)
    assert launched() == expected


def test_a_process_by_itself_needs_no_mpi(environment):
    for ranks in (None, "none"):
        group = connect(ranks)
        assert (group.rank, group.size) == (0, 1) and group.gather({"a": 1}) == [{"a": 1}]
    with pytest.raises(ConfigError, match="--ranks mpi does not go with --device cuda"):
        connect("mpi", "cuda")
    with pytest.raises(ConfigError, match="ranks must be mpi, nccl or none, got 'gloo'"):
        connect("gloo")


def test_what_is_missing_is_said_with_what_installs_it(environment, monkeypatch):
    environment(PMI_SIZE="2", PMI_RANK="0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ConfigError, match=r"pip install 'numpyvit\[mpi\]', and an MPI library.*pip install mpich"):
        connect()
