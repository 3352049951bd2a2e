"""What a command costs: the CPU of the whole process, compared with bare Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import measure
from measure import HPCPIPE, Row, bare_python, compare, in_turns, use


def rows(size: int, rounds: int) -> Iterator[Row]:
    """Measure the most frequent commands; the run has ``size`` tasks of two nodes."""
    half, turns = size // 2, 10 * rounds
    with measure.scratch() as folder:
        ours, floor = in_turns(turns, partial(use, HPCPIPE, "--help"), bare_python)
        yield compare("hpcpipe --help", "cpu", ours, floor, 5)

        slurm = measure.Pretended(folder / "bin")
        use(HPCPIPE, "submit", measure.NOOP, cwd=folder, env=slurm.env | {"SUBJECTS": str(half)})
        status = partial(use, HPCPIPE, "status", "--fresh", cwd=folder, env=slurm.env)
        call = partial(use, "env", "squeue", env=slurm.env)
        run = folder / "runs" / "noop"
        slurm.have_queued(measure.jobs_of(run), half)
        for what in ("all queued", "half queued"):
            ours, asking, floor = in_turns(turns, status, call, bare_python)
            less = [whole - part for whole, part in zip(ours, asking, strict=True)]
            yield compare(f"status of {size:,} tasks, {what}", "cpu", ours, floor)
            name = f"status of {size:,} tasks, {what}, less its squeue"
            yield compare(name, "cpu", less, floor, 6)
            measure.finish(run, "first")
        measure.finish(run, "second")
        ours, floor = in_turns(turns, status, bare_python)
        yield compare(f"status of {size:,} tasks, all done", "cpu", ours, floor, 6)


if __name__ == "__main__":
    measure.main(rows)
