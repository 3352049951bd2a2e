"""The poster's study, 69 subjects on 40 slots, compared with the list-scheduling bound.

The bound is that of one job per task, longest path first, on a scheduler without overhead.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import measure
import slots
from measure import Row
from slots import SLOTS

from hpcpipe.keys.plan import make_plan
from hpcpipe.planner.element_graph import make_elements
from hpcpipe.planner.search.baseline import exact_jobs
from hpcpipe.planner.simulate import simulate

POSTER = Path(__file__).parents[1] / "examples" / "poster"
sys.path.append(str(POSTER))
GOAL = 0.95  # the bound divided by the makespan
FIGURE = Path("poster.svg")


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Run the study once; draw it into the current folder if matplotlib is installed."""
    del size, rounds  # a single study of four minutes
    if missing := measure.slurm_missing():
        yield f"poster.py runs nothing, as no Slurm answers: {missing}"
        return
    from study import MINUTE, STEPS, SUBJECTS, study

    workflow = study()
    seconds = {name: [STEPS[name][0] * MINUTE] * SUBJECTS for name in workflow.nodes}
    jobs = exact_jobs(make_elements(make_plan(workflow), seconds))
    with measure.scratch() as folder:
        env = slots.slots_site(folder)
        added = slots.latency(folder, env)
        taken = slots.spans(folder, env, workflow.name, "submit", str(POSTER / "study.py"))
    took = slots.lasted(taken)
    bound = simulate(jobs, SLOTS).makespan
    slower = simulate(jobs, SLOTS, latency=added).makespan
    yield Row("what Slurm adds to an element of a full cluster", f"{added * 1000:.0f} ms")
    what = f"{SUBJECTS} subjects, {len(taken)} tasks on {SLOTS} slots: wall"
    yield _row(f"{what}, beside the bound", took, bound, GOAL)
    yield _row(f"{what}, beside it and what Slurm adds", took, slower)
    if importlib.util.find_spec("matplotlib"):
        from figure import draw

        draw(taken, SLOTS, bound, MINUTE, FIGURE)
        yield f"poster.py drew {FIGURE}"


def _row(what: str, took: float, bound: float, goal: float | None = None) -> Row:
    part = bound / took
    said = f"≥ {goal:g}" + (" (missed)" if part < goal else "") if goal else ""
    return Row(what, f"{took:.0f} s", f"{bound:.0f} s", f"{part:.3f}", said)


if __name__ == "__main__":
    measure.main(rows)
