"""What a failed task printed last: of a command it is the cause, where an exit code says little."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from hpcpipe.jobs import Reason
from hpcpipe.printable import printable
from hpcpipe.status.diagnose import reason_said
from hpcpipe.status.logs import log_of
from hpcpipe.status.state import Task
from hpcpipe.store.rundir import RunDir

_MOST = 1000  # logs that are read for one report
_LINES = 10  # of a log that may name the cause
_SEEN = 60  # lines of a log that are read: a traceback may begin before those
_FRAME = r'\s+File ".+", line \d+'
_LONG = 200  # characters of a line that are kept
_NOT_ITS_OWN = r"(slurmstepd|srun): |hpcpipe: task "  # lines that others add


def with_last_words(rundir: RunDir, tasks: Iterable[Task]) -> Iterator[Task]:
    """Add to exit codes the last line that each task printed, and the reason that it gives away."""
    left = _MOST
    for task in tasks:
        if task.reason is Reason.EXIT and task.place and task.outcome.get("exit") and left:
            left -= 1
            yield _with_last_words(rundir, task)
        else:
            yield task


def _with_last_words(rundir: RunDir, task: Task) -> Task:
    assert task.place is not None
    batch, index = task.place.batch, task.place.array_index
    ours = len(str(task.outcome.get("trace", "")).splitlines())  # what Python's worker adds
    log = log_of(rundir, batch, task.node, task.key, index)
    printed = log.last_lines(_SEEN + ours)
    printed = printed[: len(printed) - ours]
    lines = [printable(line.rstrip().decode(errors="replace")) for line in printed]
    lines = [line for line in lines if line.strip() and not re.match(_NOT_ITS_OWN, line.strip())]
    if not lines:
        return task
    last = [line.strip() for line in lines[-_LINES:]]
    telling = next((line for line in reversed(last) if reason_said(line)), "")
    telling = telling or _raised(lines) or last[-1]
    words = f"{task.words}: {telling[:_LONG]}" if task.words.startswith("exit ") else task.words
    return task._replace(reason=reason_said(telling) or task.reason, words=words)


def _raised(lines: Sequence[str]) -> str:
    """Return the exception of a Python traceback that a log ends with: its type, and the first line
    of a message that may have several."""
    frames = [at for at, line in enumerate(lines) if re.match(_FRAME, line)]
    after = range(frames[-1] + 1, len(lines)) if frames else ()
    at = next((at for at in after if not lines[at][:1].isspace()), 0)
    return lines[at] if at and len(lines) - at <= _LINES else ""
