"""Empty tasks on local processes, compared with xargs, which keeps no record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import measure
from measure import HPCPIPE, PYTHON, Row, Use, compare, in_turns, use


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Measure ``size`` commands, and as many Python tasks, until all have ended."""
    cpus = os.cpu_count() or 1
    with measure.scratch() as folder:

        def ours(*words: str) -> Use:
            env = {"HPCPIPE_SITE": "local", "SUBJECTS": str(size // 2)}
            return use(HPCPIPE, *words, cwd=measure.fresh(folder), env=env)

        def shell(line: str) -> Use:
            return use("sh", "-c", f"seq {size} | {line}", cwd=folder)

        mapped = ("map", "--wait", "--", "/bin/true", ":::", *map(str, range(size)))
        kinds = {
            "hpcpipe map": lambda: ours(*mapped),
            "sh loop": lambda: shell("while read -r n; do /bin/true $n; done"),
        }
        parallel = f"parallel --will-cite -j{cpus} --joblog log /bin/true"
        if shutil.which("parallel"):
            kinds["GNU parallel with a log"] = lambda: shell(parallel)
        else:
            yield "local.py has no GNU parallel to measure beside"
        floor, *taken = in_turns(
            rounds, lambda: shell(f"xargs -P{cpus} -n1 /bin/true"), *kinds.values()
        )
        for name, column in zip(kinds, taken, strict=True):
            yield compare(f"{size:,} commands by {name}, beside xargs", "wall", column, floor)

        tasks, floor = in_turns(
            rounds,
            lambda: ours("run", measure.NOOP),
            lambda: shell(f"xargs -P{cpus} -n1 {PYTHON} -c pass"),
        )
        yield compare(f"{size:,} Python tasks by hpcpipe run, beside xargs", "wall", tasks, floor)


if __name__ == "__main__":
    measure.main(rows)
