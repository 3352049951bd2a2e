"""What a worker adds to an empty task: to a Python function and to a command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import measure
from measure import HPCPIPE, PYTHON, Row, Use, bare_python, compare, in_turns, use

ELEMENTS = 200
PYTHON_TASK = ("submit", measure.NOOP)
COMMAND = (
    "map",
    "--name=noop",
    "--base-dir=runs",
    "--",
    "/bin/true",
    ":::",
    *map(str, range(ELEMENTS)),
)


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Measure the scripts that are submitted: run directly, and as arrays of 200."""
    del size  # the cost per task does not depend on their number
    turns = min(20 * rounds, ELEMENTS)
    with measure.scratch() as folder:
        bare = measure.bare_script(folder / "bare.sh", "/bin/true", "7")
        python = measure.bare_script(folder / "python.sh", PYTHON, "-c", "pass")

        ours, floor = in_turns(turns, elements(script(folder, PYTHON_TASK)), bare_python)
        yield compare("Python task, run directly", "cpu", ours, floor, 2)
        ours, floor = in_turns(turns, elements(script(folder, COMMAND)), lambda: use("sh", bare))
        yield compare("command, run directly", "cpu", ours, floor)

        if missing := measure.slurm_missing():
            yield f"worker.py has no arrays, as no Slurm answers: {missing}"
            return
        ours, floor = in_turns(
            rounds, lambda: array(script(folder, PYTHON_TASK)), lambda: array(python)
        )
        yield compare(f"array of {ELEMENTS} Python tasks", "wall", ours, floor)
        ours, floor = in_turns(rounds, lambda: array(script(folder, COMMAND)), lambda: array(bare))
        yield compare(f"array of {ELEMENTS} commands", "wall", ours, floor, 1.4)


def script(folder: Path, words: tuple[str, ...]) -> Path:
    """Return the script of a new run, which is not submitted."""
    new = measure.fresh(folder)
    slurm = measure.Pretended(new / "bin")
    use(HPCPIPE, *words, cwd=new, env=slurm.env | {"SUBJECTS": str(ELEMENTS)})
    return min(new.glob("runs/noop/.hpcpipe/batches/*.sh"))  # that of the first of two nodes


def elements(script: Path) -> Callable[[], Use]:
    """Return a call that runs the elements of an array one by one, without a scheduler."""
    indices = count()

    def one() -> Use:
        array = {"SLURM_ARRAY_TASK_ID": str(next(indices)), "SLURM_ARRAY_JOB_ID": "1"}
        return use("sh", str(script), cwd=script.parent.parent, env=array)

    return one


def array(script: Path) -> Use:
    """Run a script as an array; return the time until the last element has ended."""
    options = ("--parsable", f"--array=0-{ELEMENTS - 1}")
    began = time.perf_counter()
    taken = use("sbatch", *options, str(script), cwd=script.parent.parent)
    measure.wait_for([taken.said])
    return Use(time.perf_counter() - began, 0, 0)


if __name__ == "__main__":
    measure.main(rows)
