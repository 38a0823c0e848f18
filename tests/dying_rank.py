"""A program for mpirun: the command line, of which one rank is killed at some place.

python dying_rank.py PLACE VERB …
"""

import itertools
import os
import signal
import sys
from unittest import mock

from numpyvit import cli
from numpyvit.backend import mpi
from numpyvit.training import loop, run_directory
from numpyvit.training.launch import launched

# place: (object, name of its function, which rank dies there, at which call)
PLACES = {
    "connect": (mpi, "MPIGroup", 1, 1),
    "barrier": (mpi.MPIGroup, "barrier", 1, 1),
    "evaluate": (loop, "evaluate_task", 1, 2),
    "save_state": (run_directory, "save_tensors", 0, 2),
}


def main(place, *args):
    target, name, unlucky, at = PLACES[place]
    function, calls = getattr(target, name), itertools.count(1)

    def dying(*args, **options):
        if launched()[0] == unlucky and next(calls) == at:
            print("here it dies", file=sys.__stderr__, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    with mock.patch.object(target, name, dying):
        return cli.main(args)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
