"""Asking the scheduler politely: one question an interval, its answer shared by all clients.

The answer lies in the run's folder. What has ended stays in it, since schedulers forget; what is
live is replaced each time. While one client asks, the others take the answer before, or, if there
is none, wait for the one that is coming.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.ledger import Submission
from hpcpipe.model import JobEnd, JobStatus, Reason, State
from hpcpipe.record import RunRecord
from hpcpipe.rundir import RunDir, read_pickle, sign, signer_lives, write_pickle

LOOK = 0.5  # seconds between looks at a run's folder; the scheduler is asked far less often
_TURN = 300.0  # seconds after which a client that still asks was killed; commands end before
_WAIT = 20.0  # seconds that another client's answer is waited for, where there is none yet
_SINGLY = 200  # elements the accounting is asked for by name; more are asked for by their job


def next_look(began: float) -> float:
    """Give the seconds until a run is looked at again, after a look that began at ``began`` by
    `time.thread_time`.

    A very large run is much to look at: at most a tenth of a core is spent. A scheduler that is
    slow to answer is waited for, which is no work, and no reason to see later what files say.
    """
    return max(LOOK, 10 * (time.thread_time() - began))


class Answer(NamedTuple):
    """What the scheduler said last, as clients share it."""

    asked: float
    live: Mapping[str, JobStatus]
    ended: Mapping[str, JobEnd]
    missing: Mapping[str, float]  # first seen without an end or outcome
    trouble: str = ""


def ask(
    rundir: RunDir,
    record: RunRecord,
    unresolved: Mapping[str, Submission],
    doubtful: Mapping[str, Submission],
    *,
    fresh: bool,
    now: float,
) -> Answer:
    """Ask the scheduler, if files leave something open and its last answer is too old.

    ``unresolved`` are elements without an outcome: the queue is asked about them, and of those
    that have left it, the accounting. ``doubtful`` ones ended by a signal: the accounting tells
    whose. Never raises for a scheduler that cannot be asked: the answer says so.
    """
    answer = _read_answer(rundir)
    open_ = {one for one in unresolved if one not in answer.ended}
    doubts = {one for one in doubtful if one not in answer.ended}
    if not open_ and not doubts:
        return answer
    # At the end of a run the last doubts are worth a question of their own, but not before.
    last = not open_ and not answer.trouble and doubts - answer.missing.keys()
    if not fresh and not last and now - answer.asked < record.poll_seconds:
        return answer
    if not _take_turn(rundir):
        return _await_answer(rundir, answer) if fresh or not answer.asked else answer
    try:
        latest = _read_answer(rundir)
        if latest.asked > answer.asked:
            return latest  # somebody asked in the meantime
        return _ask(rundir, record, answer, {**unresolved, **doubtful}, open_, doubts, now)
    finally:
        with suppress(OSError):
            rundir.asking.unlink()


def _take_turn(rundir: RunDir) -> bool:
    """Become the one client that asks, unless another is at it.

    Who cannot write to the run's folder asks for itself; so do all where files have no hard links.
    """
    for _ in range(2):
        try:
            sign(rundir.asking)
        except FileExistsError:
            with suppress(OSError):
                late = time.time() - rundir.asking.stat().st_mtime >= _TURN
                if not late and signer_lives(rundir.asking) is not False:
                    return False
                rundir.asking.unlink()  # of one that was killed
        except OSError:
            return True
        else:
            return True
    return False


def _await_answer(rundir: RunDir, before: Answer) -> Answer:
    """Wait for the answer that another client is about to get; else take the one before."""
    give_up = time.monotonic() + _WAIT
    while time.monotonic() < give_up:
        time.sleep(0.1)
        answer = _read_answer(rundir)
        if answer.asked > before.asked:
            return answer
        if not rundir.asking.exists():
            break
    return before


def _ask(
    rundir: RunDir,
    record: RunRecord,
    answer: Answer,
    of: Mapping[str, Submission],
    open_: Collection[str],
    doubts: Collection[str],
    now: float,
) -> Answer:
    """Ask about what is open, and leave the answer for all."""
    from hpcpipe.schedulers import make_scheduler

    scheduler = make_scheduler(record.scheduler, record.options)
    try:
        polled = scheduler.poll(_jobs(of, open_))
        live = {element: polled[element] for element in open_ if element in polled}
        stuck = {e: live.pop(e) for e in [*live] if live[e].state is State.FAILED}
        if stuck:  # it goes, or what waits for it would wait for ever
            scheduler.cancel([*stuck])
        gone = {one for one in open_ if one not in live and one not in stuck} | {*doubts}
        since = min((of[element].time for element in gone), default=now)
        ended = scheduler.account(gone if len(gone) <= _SINGLY else _jobs(of, gone), since)
    except SchedulerUnavailable as error:
        answer = Answer(now, {}, answer.ended, answer.missing, str(error))
    else:
        ended = {element: ended[element] for element in gone if element in ended}
        never = {e: JobEnd(_said(one), one.reason) for e, one in stuck.items()}
        # Ended well, by the accounting: then it is the outcome that is missing.
        absent = {e for e in gone if e not in ended or ended[e].reason is None}
        missing = {e: at for e, at in answer.missing.items() if e in answer.ended}
        missing |= {e: answer.missing.get(e, now) for e in absent}
        answer = Answer(now, live, {**answer.ended, **ended, **never}, missing)
    _write_answer(rundir, answer)
    return answer


def _said(status: JobStatus) -> str:
    return f"{status.native}: {status.why}" if status.why else status.native


def _jobs(submissions: Mapping[str, Submission], elements: Collection[str]) -> set[str]:
    return {job for element in elements if (job := submissions[element].job)}


def _read_answer(rundir: RunDir) -> Answer:
    plain = read_pickle(rundir.asked)
    if plain is None:
        return Answer(0.0, {}, {}, {})
    asked, live, ended, missing, trouble = plain
    return Answer(
        asked,
        {
            element: status
            for state, native, why, elements in live
            for status in (JobStatus(State(state), native, why),)
            for element in elements
        },
        {
            element: JobEnd(native, Reason(reason) if reason else None, *facts)
            for element, (native, reason, *facts) in ended.items()
        },
        missing,
        trouble,
    )


def _write_answer(rundir: RunDir, answer: Answer) -> None:
    alike: dict[JobStatus, list[str]] = {}  # a hundred thousand elements share a handful
    for element, status in answer.live.items():
        alike.setdefault(status, []).append(element)
    live = [(str(one.state), one.native, one.why, elements) for one, elements in alike.items()]
    ended = {
        e: (native, reason and str(reason), *facts)
        for e, (native, reason, *facts) in answer.ended.items()
    }
    with suppress(OSError):  # somebody else's run, which we may read but not write to
        facts = (answer.asked, live, ended, answer.missing, answer.trouble)
        write_pickle(rundir.asked, facts)
