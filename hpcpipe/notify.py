"""Telling a person that a run has ended, or needs them: by a command of theirs, once for each run.

It is run by the continuation that finds nothing left to do, on its node.
"""

from __future__ import annotations

import os
import subprocess
import sys

from hpcpipe.jobs import State
from hpcpipe.status.report import make_report
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir, write_whole
from hpcpipe.submit.locking import locked
from hpcpipe.views.status import status_lines, verdict

_SECONDS = 300.0  # that the command may take, so that it holds no slot for long
_ALIVE = (State.QUEUED, State.HELD, State.RUNNING)


def notify(rundir: RunDir, mine: str = "") -> None:
    """Run the command of a run that has ended, unless that was done, or jobs of it are queued.

    ``mine`` is the continuation that does this, and has nothing else left to do.
    """
    report = make_report(rundir, fresh=True, without=mine)
    record = report.record
    grows = report.mending and report.awaited
    if not record.notify or grows or any(report.total[state] for state in _ALIVE):
        return
    if _is_first(rundir, record, mine):
        folder = str(rundir.folder.absolute())
        said = {"HPCPIPE_RUN": folder, "HPCPIPE_VERDICT": f"{record.workflow} {verdict(report)}"}
        try:
            subprocess.run(
                ["sh", "-c", record.notify],
                input="".join(f"{line}\n" for line in status_lines(report)),
                text=True,
                cwd=record.cwd,
                env={**os.environ, **said},
                timeout=_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"hpcpipe: notify: {error}\n")


def _is_first(rundir: RunDir, record: RunRecord, mine: str) -> bool:
    """Note that the end of a run was told; return whether it had not been."""
    mark = b"%d\n" % record.run
    with locked(rundir, continuation=mine):
        if rundir.notified.exists() and rundir.notified.read_bytes() == mark:
            return False
        write_whole(rundir.notified, mark)
    return True
