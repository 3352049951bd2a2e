"""All benchmarks, as one table: see README.rst beside this file."""

from __future__ import annotations

from collections.abc import Iterator

import big
import local
import measure
import neuro
import night
import planner
import poster
import startup
import submit
import worker


def rows(size: int, rounds: int) -> Iterator[measure.Row | str]:
    """Run the measurements of all scripts."""
    for script in (startup, worker, submit, big, local, planner, neuro, poster, night):
        yield from script.rows(size, rounds)


if __name__ == "__main__":
    measure.main(rows)
