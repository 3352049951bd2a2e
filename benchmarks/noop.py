"""Two aligned nodes of tasks that do nothing; $SUBJECTS says how many tasks each has."""

import os

from hpcpipe import Workflow, each


def first(subject: int) -> int:
    """Hand a value on."""
    return subject


def second(value: int) -> int:
    """Hand a value on."""
    return value


wf = Workflow("noop", base_dir="runs")
wf.add(second, value=wf.add(first, subject=each(range(int(os.environ.get("SUBJECTS", "1000"))))))
