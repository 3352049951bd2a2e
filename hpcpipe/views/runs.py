"""The runs that are known here: how each stands, where it is, and when it was submitted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from hpcpipe.errors import HpcpipeError
from hpcpipe.quantities import format_time
from hpcpipe.status.report import Report, make_report
from hpcpipe.store.recent import last_written
from hpcpipe.store.rundir import RunDir, elapsed
from hpcpipe.views.status import verdict
from hpcpipe.views.text import first_line


class Listed(NamedTuple):
    """One run: its folder, when it was last submitted, and its report, or why there is none."""

    folder: Path
    when: float
    report: Report | None
    trouble: str = ""

    @property
    def name(self) -> str:
        """The workflow and the number of its run."""
        if self.report is None:
            return self.folder.name
        return f"{self.report.record.workflow} (run {self.report.record.run})"

    @property
    def state(self) -> str:
        """How it stands, in a phrase."""
        return verdict(self.report) if self.report else f"unreadable: {first_line(self.trouble)}"


def list_runs(folders: Sequence[Path]) -> Iterator[Listed]:
    """Yield how the runs in these folders stand; schedulers are asked as `status` asks them."""
    for folder in folders:
        when = last_written(folder)
        try:
            yield Listed(folder, when, make_report(RunDir(folder)))
        except (HpcpipeError, OSError) as error:
            yield Listed(folder, when, None, str(error))


def runs_lines(runs: Sequence[Listed], more: int = 0) -> Iterator[str]:
    """Yield one line per run; ``more`` are known and left out."""
    width = max((len(run.name) for run in runs), default=0)
    state = max((len(run.state) for run in runs), default=0)
    for run in runs:
        ago = f"{_rough(elapsed(run.when))} ago"
        yield f"{run.name:<{width}}  {run.state:<{state}}  {ago:>10}  {_typed(run.folder)}"
    if more:
        yield f"{more} more: hpcpipe runs --all"
    if runs:
        yield f"Next: hpcpipe status --run {_typed(runs[0].folder)}"


def _typed(folder: Path) -> str:
    """Return a folder as it can be typed here."""
    below = folder.is_relative_to(Path.cwd())
    return quote(os.path.relpath(folder) if below else str(folder))


def _rough(seconds: float) -> str:
    """Format an age by its largest unit: ``3 h``."""
    for unit in (86400, 3600, 60):
        if seconds >= unit:
            return format_time(seconds // unit * unit).partition(" 0")[0]
    return format_time(round(seconds))


def runs_json(runs: Sequence[Listed]) -> list[dict[str, Any]]:
    """Return the runs as plain JSON values."""
    return [
        {
            "workflow": run.report.record.workflow if run.report else None,
            "run": run.report.record.run if run.report else None,
            "state": run.state,
            "finished": run.report.finished if run.report else None,
            "failed": len(run.report.failures) if run.report else None,
            "tasks": run.report.total.total() if run.report else None,
            "scheduler": run.report.record.scheduler if run.report else None,
            "folder": str(run.folder),
            "submitted": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(run.when)),
        }
        for run in runs
    ]
