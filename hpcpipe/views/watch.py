"""Follow a run until it has finished: live on a terminal, line by line elsewhere.

It only reads: the run continues whether or not anybody follows it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from hpcpipe.status.left_out import find_left_out
from hpcpipe.status.poll import next_look
from hpcpipe.status.report import Report, make_report
from hpcpipe.store.recent import suggested
from hpcpipe.store.rundir import RunDir
from hpcpipe.views.status import change_lines, status_lines
from hpcpipe.views.text import redraws, screen_size, show, shown

# Without wrapping, a line of text is a line of the screen, whatever the width of its characters.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


def follow(
    rundir: RunDir,
    *,
    show: bool = False,
    timeout: float | None = None,
    mend: Callable[[Report], bool] = lambda _: False,
) -> Report:
    """Follow a run until it has finished, and return its last report.

    With ``show``, displays progress. ``mend`` retries what nothing in the queue would, and returns
    whether there was anything. Raises TimeoutError after ``timeout`` seconds, and
    KeyboardInterrupt as it comes; the run itself continues.
    """
    display = (_Screen() if redraws() else _Lines()) if show else None
    try:
        return _until_finished(rundir, display or (lambda _: None), timeout, mend)
    except KeyboardInterrupt:
        if display:
            _say_interrupted(rundir)
        raise


def _say_interrupted(rundir: RunDir) -> None:
    again = suggested(rundir.folder, "watch")
    show(f"The tasks keep running. Watch them again with: {again}")


def _until_finished(
    rundir: RunDir,
    display: Callable[[Report], None],
    timeout: float | None,
    mend: Callable[[Report], bool],
) -> Report:
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        began = time.thread_time()
        report = make_report(rundir)
        display(report)
        if (report.failures or report.awaited) and mend(report):
            continue
        if report.finished:
            return report
        if until is not None and time.monotonic() > until:
            raise TimeoutError(f"{report.record.workflow}: not finished; it continues by itself")
        time.sleep(next_look(began))


class _Lines:
    """Prints what has changed, a line for each change."""

    def __init__(self) -> None:
        self._before: Report | None = None

    def __call__(self, report: Report) -> None:
        for line in change_lines(self._before, report):
            show(line)
        self._before = report


class _Screen:
    """Draws the status screen with progress bars, each time over the one before."""

    def __init__(self) -> None:
        self._lines = 0

    def __call__(self, report: Report) -> None:
        lines = screen(report)
        up = f"\x1b[{self._lines}F" if self._lines else ""
        text = shown("\n".join(lines), sys.stdout.encoding)
        print(f"{up}\x1b[J{_NO_WRAP}{text}{_WRAP}", flush=True)
        self._lines = len(lines)


def screen(report: Report) -> list[str]:
    """Return the lines of one frame of the live view."""
    left_out = find_left_out(RunDir(report.folder)) if report.finished and report.folder else ()
    size = screen_size()
    return [*status_lines(report, left_out, size, bars=True)][: size.lines - 1]
