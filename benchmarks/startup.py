"""What typing a command costs: the CPU of the whole process, beside bare Python's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import measure
from measure import HPCPIPE, Row, bare_python, compare, in_turns, use


def rows(size: int, rounds: int) -> Iterator[Row]:
    """Measure the commands that are typed most; the run has ``size`` tasks of two nodes."""
    half, turns = size // 2, 10 * rounds
    with measure.scratch() as folder:
        ours, floor = in_turns(turns, partial(use, HPCPIPE, "--help"), bare_python)
        yield compare("hpcpipe --help", "cpu", ours, floor, 5)

        slurm = measure.Pretended(folder / "bin")
        use(HPCPIPE, "submit", measure.NOOP, cwd=folder, env=slurm.env | {"SUBJECTS": str(half)})
        status = partial(use, HPCPIPE, "status", "--fresh", cwd=folder, env=slurm.env)
        call = partial(use, "squeue", env=slurm.env)
        run = folder / "runs" / "noop"

        measure.finish(run, "first")
        slurm.have_running(measure.jobs_of(run)[1], half)
        ours, asking, floor = in_turns(turns, status, call, bare_python)
        less = [whole - part for whole, part in zip(ours, asking, strict=True)]
        yield compare("status, half of it running", "cpu", ours, floor)
        yield compare("one call of squeue, pretended", "cpu", asking, floor)
        yield compare("status less that call", "cpu", less, floor, 6)

        measure.finish(run, "second")
        ours, floor = in_turns(turns, status, bare_python)
        yield compare("status, all of it done", "cpu", ours, floor, 6)


if __name__ == "__main__":
    measure.main(rows)
