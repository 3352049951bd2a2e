"""Two stages of nipype over a hundred iterables, compared with nipype's own SLURMGraph plugin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import measure
from measure import PYTHON, Row, Use, amount, compare, in_turns, use

FLOW = """
import os, sys
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function

def add(x):
    return x + 1

wf = pe.Workflow("two", base_dir=os.path.abspath("work"))
one = pe.Node(Function(function=add), name="one")
one.iterables = ("x", list(range(int(sys.argv[2]))))
two = pe.Node(Function(function=add), name="two")
wf.connect(one, "out", two, "x")
if sys.argv[1] == "hpcpipe":
    from hpcpipe.nipype import Plugin
    wf.run(plugin=Plugin(wait=False))
else:
    wf.run(plugin="SLURMGraph", plugin_args={"dont_resubmit_completed_jobs": True})
"""
QUIET = {"NIPYPE_NO_ET": "1", "HPCPIPE_SITE": measure.SITE}
MOST = 100  # iterables; SLURMGraph takes two calls of sbatch for each


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Measure the imports of an element, and a run until all of its nodes have ended."""
    ours, whole = in_turns(
        3 * rounds,
        lambda: use(PYTHON, "-c", "import hpcpipe.nipype.element", env=QUIET),
        lambda: use(PYTHON, "-c", "import nipype.pipeline.plugins.base", env=QUIET),
    )
    yield compare("imports of a nipype element, beside all of nipype", "cpu", ours, whole)
    if missing := measure.slurm_missing():
        yield f"neuro.py runs no workflow, as no Slurm answers: {missing}"
        return
    size = min(size, MOST)
    with measure.scratch() as folder:
        handed: list[list[Use]] = []
        ended: list[list[Use]] = []
        for plugin in ("hpcpipe", "SLURMGraph"):
            tools = measure.Tools(folder / f"{plugin}-bin", {})
            taken, all_ended = run(plugin, folder / plugin, size, tools)
            handed.append([taken])
            ended.append([all_ended])
            yield amount(f"{plugin}: calls of sbatch", tools.calls()["sbatch"], "×")
        count = f"2 × {size} nodes of nipype"
        ours, theirs = handed
        yield compare(f"{count} handed over, beside SLURMGraph", "wall", ours, theirs, 1 / 3)
        ours, theirs = ended
        yield compare(f"{count} until all have ended, beside it", "wall", ours, theirs, 1 / 4)


def run(plugin: str, folder: Path, size: int, tools: measure.Tools) -> tuple[Use, Use]:
    """Run the workflow; return the times of its submission and until its last node has ended."""
    folder.mkdir()
    script = folder / "flow.py"
    script.write_text(FLOW)
    began = time.perf_counter()
    handed = use(PYTHON, script, plugin, str(size), cwd=folder, env={**QUIET, **tools.env})
    while done(folder) < size:
        if time.perf_counter() - began > measure.PATIENCE:
            raise TimeoutError(f"{plugin}: {done(folder)} of {size} have ended")
        time.sleep(0.2)
    return handed, Use(time.perf_counter() - began, 0, 0)


def done(folder: Path) -> int:
    """Return the number of nodes of the second stage that are done by nipype's hash."""
    return sum(
        not path.name.endswith("_unfinished.json")
        for path in folder.glob("work/two/*/two/_0x*.json")
    )


if __name__ == "__main__":
    measure.main(rows)
