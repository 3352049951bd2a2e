"""Following a run until nothing may change any more: live on a terminal, line by line in a pipe.

Only looks: the run goes on whether or not anybody follows it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcpipe.asking import next_look
from hpcpipe.model import State
from hpcpipe.rundir import RunDir
from hpcpipe.show import change_lines, status_lines
from hpcpipe.status import Report, make_report

if TYPE_CHECKING:
    from rich.console import RenderableType


def follow(rundir: RunDir, *, show: bool = False, timeout: float | None = None) -> Report:
    """Look at a run until it is finished, and return its last report.

    Raises TimeoutError after ``timeout`` seconds.
    """
    if show and sys.stdout.isatty():
        return _live(rundir, timeout)
    before: Report | None = None

    def say(report: Report) -> None:
        nonlocal before
        if show:
            for line in change_lines(before, report):
                print(line, flush=True)
        before = report

    return _until_finished(rundir, say, timeout)


def _until_finished(
    rundir: RunDir, show: Callable[[Report], None], timeout: float | None
) -> Report:
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        began = time.thread_time()
        report = make_report(rundir)
        show(report)
        if report.finished:
            return report
        if until is not None and time.monotonic() > until:
            raise TimeoutError(f"{report.record.workflow}: not finished; it goes on by itself")
        time.sleep(next_look(began))


def _live(rundir: RunDir, timeout: float | None) -> Report:
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        try:
            return _until_finished(rundir, lambda report: live.update(screen(report)), timeout)
        except KeyboardInterrupt:
            live.stop()
            print("The tasks go on. Look again with: hpcpipe watch")
            return make_report(rundir)


def screen(report: Report) -> RenderableType:
    """Draw one frame of the live view: a bar a node, then what `hpcpipe status` says."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1))
    for title, side in (("node", "left"), ("done/all", "right"), ("", "left"), ("run", "right"),
                        ("wait", "right"), ("fail", "right")):  # fmt: skip
        table.add_column(title, justify="right" if side == "right" else "left")
    for name, counts in report.counts.items():
        failed = sum(counts[state] for state in State if state.bad)
        waiting = counts[State.QUEUED] + counts[State.HELD] + counts[State.WAITING]
        table.add_row(
            name,
            f"{counts[State.DONE]}/{counts.total()}",
            ProgressBar(total=counts.total(), completed=counts[State.DONE], width=24),
            str(counts[State.RUNNING]),
            str(waiting),
            Text(str(failed), style="red" if failed else ""),
        )
    lines = list(status_lines(report))
    rest = [line for line in lines[1:] if not line.startswith("node")][len(report.counts) :]
    return Group(lines[0], table, *rest)
