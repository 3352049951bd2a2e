"""Two aligned nodes on a real Slurm, compared with two arrays written by hand."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import measure
from measure import HPCPIPE, PYTHON, Row, Use, amount, compare, in_turns, use


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Measure a run of ``size`` subjects: its submission, and the time until it has finished."""
    if missing := measure.slurm_missing():
        yield f"submit.py is skipped, as no Slurm answers: {missing}"
        return
    with measure.scratch() as folder:
        ours, floor = in_turns(
            2 * rounds,
            lambda: dropped(*submit(measure.fresh(folder), size)),
            lambda: (
                use(PYTHON, "-c", "import networkx, jinja2")
                + dropped(*by_hand(folder, size, "--hold"))
            ),
        )
        yield compare("hpcpipe submit", "wall", ours, floor, 2.5)
        yield compare("hpcpipe submit", "cpu", ours, floor, 2.5)

        tools = measure.Tools(folder / "bin", {})
        dropped(*submit(measure.fresh(folder), size, tools.env))
        calls = tools.calls()
        yield amount("its calls of sbatch", calls.pop("sbatch"), "×", 2)
        yield amount("its calls of squeue, sacct and scontrol", calls.total(), "×", 1)

        runs: list[Path] = []

        def whole() -> Use:
            runs.append(measure.fresh(folder))
            return ended(*submit(runs[-1], size))

        ours, floor = in_turns(rounds, whole, lambda: ended(*by_hand(folder, size)))
        yield compare(f"submit until {2 * size:,} tasks have ended", "wall", ours, floor, 1.6)
        if any("tasks succeeded" not in use(HPCPIPE, "status", cwd=run).said for run in runs):
            raise RuntimeError("not all tasks succeeded, so the time until then means nothing")
        files = sum(path.is_file() for path in runs[-1].rglob("*"))
        yield amount(f"files that {2 * size:,} tasks made", files, "files", 4 * size + 10)


def submit(folder: Path, size: int, env: Mapping[str, str] | None = None) -> tuple[Use, list[str]]:
    """Submit with hpcpipe; also return the job ids."""
    env = {"SUBJECTS": str(size), "HPCPIPE_SITE": measure.SITE, **(env or {})}
    taken = use(HPCPIPE, "submit", measure.NOOP, cwd=folder, env=env)
    return taken, measure.jobs_of(folder / "runs" / "noop")


def by_hand(folder: Path, size: int, *options: str) -> tuple[Use, list[str]]:
    """Submit two arrays of bare Python with sbatch alone; also return the job ids."""
    script = measure.bare_script(folder / "bare.sh", PYTHON, "-c", "pass")
    array = ("sbatch", "--parsable", f"--array=0-{size - 1}")
    first = use(*array, *options, script)
    after = (f"--dependency=aftercorr:{first.said}", "--kill-on-invalid-dep=yes")
    second = use(*array, *after, script)
    return first + second, [first.said, second.said]


def dropped(taken: Use, jobs: list[str]) -> Use:
    """Cancel jobs, so that they do not disturb the next measurement."""
    subprocess.run(["scancel", *jobs], check=True)
    measure.wait_for(jobs)
    return taken


def ended(taken: Use, jobs: list[str]) -> Use:
    """Add the time until jobs have ended to that of their submission."""
    began = time.perf_counter()
    measure.wait_for(jobs)
    return taken + Use(time.perf_counter() - began, 0, 0)


if __name__ == "__main__":
    measure.main(rows)
