"""Two aligned nodes of empty tasks; $SUBJECTS is the number of tasks of each."""

import os

from hpcpipe import Workflow, each


def first(subject: int) -> int:
    """Return the value."""
    return subject


def second(value: int) -> int:
    """Return the value."""
    return value


wf = Workflow("noop", base_dir="runs")
wf.add(second, value=wf.add(first, subject=each(range(int(os.environ.get("SUBJECTS", "1000"))))))
