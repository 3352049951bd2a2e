"""Large runs: planning up to 1,000,000 tasks, and the status of 100,000."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import measure
from measure import HPCPIPE, PYTHON, Row, Use, amount, compare, in_turns, use

PLAN = """
from hpcpipe.planner.compile import Limits, make_batches
from hpcpipe.keys.plan import make_plan
from hpcpipe.schedulers.slurm import Slurm
from noop import wf
make_batches(make_plan(wf), Slurm.capabilities, Limits())
"""


def rows(size: int, rounds: int) -> Iterator[Row]:
    """Measure plans of 10, 100 and 1,000 times ``size`` tasks, and the status of 100 times."""
    sizes = [10 * size, 100 * size, 1000 * size]
    plans = dict(zip(sizes, in_turns(rounds, *(partial(plan, n) for n in sizes)), strict=True))
    for tasks in sizes:
        most = (30, 1500) if tasks == sizes[-1] else ()
        yield from used(f"planning {tasks:,} tasks", plans[tasks], *most)
    for fewer, tasks in pairwise(sizes):
        what = f"planning {tasks:,} tasks, beside {fewer:,}"
        yield compare(what, "wall", plans[tasks], plans[fewer])

    with measure.scratch() as folder:
        slurm = measure.Pretended(folder / "bin")
        env = slurm.env | {"SUBJECTS": str(50 * size)}
        taken = [use(HPCPIPE, "submit", measure.NOOP, cwd=folder, env=env)]
        yield from used(f"hpcpipe submit, {100 * size:,} tasks, Slurm pretended", taken)
        run = folder / "runs" / "noop"
        measure.finish(run, "first")
        measure.finish(run, "second")
        before = slurm.calls().total()
        status = partial(use, HPCPIPE, "status", "--fresh", cwd=folder, env=env)
        (taken,) = in_turns(rounds, status)
        yield from used(f"status of {100 * size:,} tasks, all done", taken, 2, 300)
        calls = (slurm.calls().total() - before) / rounds
        yield amount("its calls of the scheduler", calls, "×", 1)


def plan(tasks: int) -> Use:
    """Plan two aligned nodes, up to batches, in a separate process."""
    here = Path(measure.NOOP).parent
    return use(PYTHON, "-c", PLAN, cwd=here, env={"SUBJECTS": str(tasks // 2)})


def used(
    what: str, taken: Sequence[Use], seconds: float | None = None, megabytes: float | None = None
) -> Iterator[Row]:
    """Yield two rows: the time and the peak memory."""
    yield amount(f"{what}: wall", median(one.wall for one in taken), "s", seconds)
    yield amount(f"{what}: memory", median(one.memory for one in taken), "MB", megabytes)


if __name__ == "__main__":
    measure.main(rows)
