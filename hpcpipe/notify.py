"""Telling a person that a run has ended, or needs them: once for each run, by a command or mail.

The continuation that finds nothing left to do runs a command of theirs, on its node, or submits a
job at whose end the scheduler sends mail.
"""

from __future__ import annotations

import os
import subprocess
import sys
from getpass import getuser
from pathlib import Path

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import State
from hpcpipe.run import pick_site
from hpcpipe.status.report import Report, make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir, write_whole
from hpcpipe.submit.continuation import Follower, mail_of
from hpcpipe.submit.locking import locked
from hpcpipe.submit.mail import Mail, address, is_mail
from hpcpipe.submit.recover import recover
from hpcpipe.views.status import status_lines, verdict, verdict_word

_SECONDS = 300.0  # that the command may take, so that it holds no slot for long
_ALIVE = (State.QUEUED, State.HELD, State.RUNNING)


def notify(rundir: RunDir, mine: str = "") -> None:
    """Announce the end of a run, unless that was done or jobs of it are still queued.

    ``mine`` is the continuation that does this, and has nothing else left to do. Raises
    SchedulerUnavailable where the scheduler is to send mail and gives no answer.
    """
    report = make_report(rundir, fresh=True, without=mine)
    record = report.record
    grows = report.mending and report.awaited
    if not record.notify or grows or any(report.total[state] for state in _ALIVE):
        return
    if is_mail(record.notify):
        with locked(rundir, holder=mine):
            _send_mail(rundir, report)
    elif _is_first(rundir, record, mine):
        _run(report)


def _run(report: Report) -> None:
    """Run a person's command."""
    record = report.record
    folder = str((report.folder or Path()).absolute())
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
        _complain(error)


def _send_mail(rundir: RunDir, report: Report) -> None:
    """Submit the job at whose end the scheduler sends mail, unless it has it.

    The ledger knows: whoever was killed while they submitted it may have done so.
    """
    record = report.record
    recover(rundir, submitting=True)
    ledger = Ledger(rundir.ledger)
    batch = mail_of(record.run)
    before = ledger.read().submissions.get(batch)
    if before and (before.job or before.refused):
        return
    if before and not before.cancelled:
        raise SchedulerUnavailable(f"{batch}: it is not known whether it was submitted")
    mail = Mail(address(record.notify), getuser(), (*status_lines(report),))
    try:
        follower = Follower.of(rundir, record, pick_site(record.site)[0])
        # The verdict first, since some schedulers cut names short.
        name = f"{verdict_word(report)}.{record.workflow}-{record.run}"
        follower.submit_mail(name, mail)
    except SchedulerUnavailable:
        raise
    except SchedulerError as error:
        ledger.refused([batch], str(error), "", full=error.passing)
        _complain(error)


def _complain(error: Exception) -> None:
    sys.stderr.write(f"hpcpipe: notify: {error}\n")


def _is_first(rundir: RunDir, record: RunRecord, mine: str) -> bool:
    """Note that the end of a run was told; return whether it had not been."""
    with locked(rundir, holder=mine):
        if rundir.told() == record.run:
            return False
        write_whole(rundir.notified, b"%d\n" % record.run)
    return True
