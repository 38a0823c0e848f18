"""A program for mpirun: the command line, of which ranks send themselves a signal at some place.

python stricken_rank.py SIGNAL RANK|all PLACE NUMBER VERB …        at the call of that number, from 1, of the place
"""

import contextlib
import itertools
import os
import signal
import sys
from unittest import mock

from numpyvit import cli
from numpyvit.backend import mpi
from numpyvit.training import loop, run_directory
from numpyvit.training.launch import launched

PLACES = {
    "connect": [(mpi, "MPIGroup")],
    "exchange": [(mpi.MPIGroup, "gather"), (mpi.MPIGroup, "swap"), (mpi.MPIGroup, "barrier")],
    "barrier": [(mpi.MPIGroup, "barrier")],
    "evaluate": [(loop, "evaluate_task")],
    "save": [(run_directory, "save_tensors")],
}


def main(name, unlucky, place, number, *args):
    numbers = itertools.count(1)

    def struck(function):
        def call(*args, **options):
            if unlucky in ("all", str(launched()[0])) and next(numbers) == int(number):
                print("here it strikes", file=sys.__stderr__, flush=True)
                os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
            return function(*args, **options)

        return call

    with contextlib.ExitStack() as stack:
        for target, function in PLACES[place]:
            stack.enter_context(mock.patch.object(target, function, struck(getattr(target, function))))
        return cli.main(args)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
