"""Has tasks save their state: passes on the signal that is to precede their time limit.

Imported only where a task has a ``checkpoint``. ``templates/command.sh.j2`` does the same in
``sh``: change both.
"""

from __future__ import annotations

import os
import time
from _signal import (  # type: ignore[import-not-found]
    ITIMER_REAL,
    SIGALRM,
    SIGTERM,
    setitimer,
    signal,
)

from hpcpipe.worker.fork import children, ending, terminate, terminated

told: list[int] = []  # the signal, once it was passed on
due: list[float] = []  # when this process's own timer sends it


def expect(number: int, after: int) -> None:
    """Pass a signal on to the tasks, once, when it comes or ``after`` so many seconds."""

    def tell(got: int, _: object) -> None:
        mine = got == SIGALRM and due and time.monotonic() >= due[0]
        if got in (SIGTERM, SIGALRM) and not mine:
            if told:
                terminate()
                return
            terminated.append(True)
        if not told:
            told.append(number)
            for child in children:
                try:  # noqa: SIM105  as in fork
                    os.kill(child, number)
                except ProcessLookupError:
                    pass

    if number not in ending:
        ending.append(number)
    for one in ending:
        signal(one, tell)
    if after:
        due.append(time.monotonic() + after - 0.5)
        setitimer(ITIMER_REAL, after)


def ended_by(code: int) -> bool:
    """Return whether a task ended by the signal that it was to save its state at."""
    return bool(told) and code == -told[0]
