"""Many ids of jobs as one: ``8-30,32-108``, where every element of an array is a job of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache

from hpcpipe.indices import ranges


def unfold(job: str) -> Iterator[int]:
    """Yield each of the ids."""
    return (one for first, last in _runs(job) for one in range(first, last + 1))


def nth(job: str, at: int) -> int:
    """Return one of the ids by its place, from 0; or 0, which is no job's, if there are fewer."""
    for first, last in _runs(job):
        if at <= last - first:
            return first + at
        at -= last - first + 1
    return 0


def among(jobs: Collection[str]) -> str:
    """Return "is one of these" in SQL."""
    runs = ranges(sorted({one for job in jobs for one in unfold(job)}))
    return " OR ".join(f"job_id BETWEEN {a} AND {b}" for a, b in runs) or "job_id = 0"


@lru_cache(4096)
def _runs(job: str) -> tuple[tuple[int, int], ...]:
    """Parse a folded id; a malformed id matches no job."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", job):
        return ()
    parts = (part.partition("-") for part in job.split(","))
    return tuple((int(first), int(last or first)) for first, _, last in parts)
