"""Asking the schedulers politely: one question an interval, its answer shared by all clients.

The answer lies in the run's folder. What has ended stays in it, since schedulers forget; what is
live is replaced each time. While one client asks, the others take the answer before, or, if there
is none, wait for the one that is coming. Each instance is asked about its own jobs only.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.status.places import Place
from hpcpipe.store.rundir import RunDir, age, elapsed, read_pickle, sign, signer_lives, write_pickle

LOOK = 0.5  # seconds between looks at a run's folder; the scheduler is asked far less often
_TURN = 300.0  # seconds after which a client that still asks was killed; commands end before
_WAIT = 20.0  # seconds that another client's answer is waited for, where there is none yet
_SINGLY = 200  # elements the accounting is asked for by name; more are asked for by their job
# Seconds that the accounting may take to tell of an end, though files settle sooner: a busy
# slurmdbd was seen to be 4 behind.
LATE = 30.0
_SKEW = 60.0  # seconds that the clocks of two hosts may differ by

Asked = Mapping[ElementId, Place]  # elements to ask about, each with the place of a task in it


def next_look(began: float) -> float:
    """Return the seconds until a run is looked at again, after a look that began at ``began`` by
    `time.thread_time`.

    A very large run is much to look at: at most a tenth of a core is spent. Waiting on a slow
    scheduler does not count as work: results on disk must still show up promptly.
    """
    return max(LOOK, 10 * (time.thread_time() - began))


class Answer(NamedTuple):
    """What the schedulers said last, as clients share it. An element is live, or has ended."""

    asked: float
    live: Mapping[ElementId, JobStatus]
    ended: Mapping[ElementId, JobEnd]
    missing: Mapping[ElementId, float]  # first seen without an end or outcome
    gone: frozenset[ElementId] = frozenset()  # have left the queue, whatever the accounting has
    trouble: Mapping[str, str] = {}


SILENCE = Answer(0.0, {}, {}, {})


class Questions(NamedTuple):
    """What files leave open about elements that were submitted.

    ``unresolved`` have no outcome: the queue is asked about them, and of those that have left it,
    the accounting. ``failed`` have one, or a later place, but the queue may still have them.
    ``doubtful`` were ended by a signal: the accounting knows who sent it.
    """

    unresolved: Asked
    failed: Asked
    doubtful: Asked


def ask(
    rundir: RunDir,
    instances: Instances,
    questions: Questions,
    *,
    every: float,
    fresh: bool,
    now: float,
) -> Answer:
    """Ask the schedulers, if files leave something open and the last answer is too old.

    The answer is too old after ``every`` seconds, or for ``fresh`` always; one from the future is
    of a host whose clock is wrong. Never raises for a scheduler that cannot be asked: the answer
    says so.
    """
    answer = _read_answer(rundir)
    unresolved, failed, doubtful = questions
    open_ = {one for one in unresolved if fresh or one not in answer.ended}
    again = {one for one in failed if fresh or one not in answer.gone}
    doubts = {one for one in doubtful if one not in answer.ended}
    if not open_ and not again and not doubts:
        return answer
    # At the end of a run the last doubts are worth a question of their own, but not before.
    ends = not open_ and not answer.trouble
    last = ends and ((doubts - answer.missing.keys()) or (again - answer.live.keys()))
    if not fresh and not last and elapsed(answer.asked, now) < every:
        return answer
    if not _take_turn(rundir):
        return _await_answer(rundir, answer) if fresh or not answer.asked else answer
    try:
        latest = _read_answer(rundir)
        if answer.asked < latest.asked <= now + _SKEW:
            return latest  # somebody asked in the meantime
        of = {**unresolved, **failed, **doubtful}
        # All, where any is asked about: what has ended may have been started anew.
        queued = {**unresolved, **failed} if open_ or again else {}
        answer = _ask_all(instances, answer, of, queued, open_, doubts, now)
        _write_answer(rundir, answer)
        return answer
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
                if age(rundir.asking) < _TURN and signer_lives(rundir.asking) is not False:
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


def _ask_all(
    instances: Instances,
    answer: Answer,
    of: Asked,
    queued: Collection[ElementId],
    open_: Collection[ElementId],
    doubts: Collection[ElementId],
    now: float,
) -> Answer:
    """Ask each instance about its own elements."""
    live: dict[ElementId, JobStatus] = {}
    ended = dict(answer.ended)
    gone, trouble, hidden = set(answer.gone), {}, set[ElementId]()
    for instance in {one.instance for one in (*queued, *doubts)}:
        mine = {one for one in of if one.instance == instance}
        try:
            adapter = instances.reach(instance)
            polled = adapter.poll({of[one].submission.job or "" for one in mine & {*queued}})
            here = {one: polled[one.spelled] for one in mine if one.spelled in polled}
            stuck = {one for one, status in here.items() if status.state is State.FAILED}
            if stuck:  # it goes, or what waits for it would wait for ever
                adapter.cancel([one.spelled for one in stuck])
            live |= {one: here[one] for one in here.keys() - stuck}
            # The first word counts: what never started is cancelled by us.
            ended = {one: JobEnd(_said(here[one]), here[one].reason) for one in stuck} | ended
            gone |= stuck
            left = mine - here.keys()
            accounted = _account(adapter, of, (left & {*open_}) | (left & {*doubts}), now)
        except SchedulerUnavailable as error:
            trouble[instance] = str(error)
            continue
        ends = {one: end for one, end in accounted.items() if isinstance(end, JobEnd)}
        ended = ends | ended
        words = {one: word for one, word in accounted.items() if isinstance(word, JobStatus)}
        hidden |= words.keys()
        live |= {
            one: _hidden(word)
            for one, word in words.items()
            if now - answer.missing.get(one, now) >= LATE  # else it may just have ended
        }
        gone |= left
    gone -= live.keys()
    ended = {one: end for one, end in ended.items() if one not in live}
    # Ended well, by the accounting: then it is the outcome that is missing.
    absent = {one for one in gone & of.keys() if one not in ended or ended[one].reason is None}
    first = {one: at for one, at in answer.missing.items() if at <= now + _SKEW}
    known = first.keys() & (ended.keys() | hidden)
    missing = {one: first.get(one, now) for one in absent | known}
    return Answer(now, live, ended, missing, frozenset(gone), trouble)


def _account(
    adapter: Any, of: Asked, elements: Collection[ElementId], now: float
) -> dict[ElementId, JobEnd | JobStatus]:
    """Ask the accounting of one instance about elements that its queue does not list."""
    since = min((of[one].submission.time for one in elements), default=now)
    few = len(elements) <= _SINGLY
    ids = {one.spelled if few else of[one].submission.job or "" for one in elements}
    accounted = adapter.account(ids, min(since, now))
    return {one: accounted[one.spelled] for one in elements if one.spelled in accounted}


def _hidden(status: JobStatus) -> JobStatus:
    """Return what is concluded of an element that only the accounting knows to be live."""
    why = f"the queue does not list it, but the accounting says {status.native}"
    return JobStatus(State.UNKNOWN, status.native, why)


def _said(status: JobStatus) -> str:
    if status.why and status.reason is Reason.NEVER:
        return status.why  # that it is pending is no news
    return f"{status.native}: {status.why}" if status.why else status.native


def _read_answer(rundir: RunDir) -> Answer:
    plain = read_pickle(rundir.asked)
    try:
        asked, live, ended, missing, gone, trouble = plain
        return Answer(
            asked,
            {
                ElementId(*element): status
                for state, native, why, elements in live
                for status in (JobStatus(State(state), native, why),)
                for element in elements
            },
            {
                ElementId(*element): JobEnd(native, Reason(reason) if reason else None, *facts)
                for element, (native, reason, *facts) in ended.items()
            },
            {ElementId(*element): at for element, at in missing.items()},
            frozenset(ElementId(*element) for element in gone),
            dict(trouble),
        )
    except (TypeError, ValueError, AttributeError):  # none yet, or damaged: it is asked for anew
        return SILENCE


def _write_answer(rundir: RunDir, answer: Answer) -> None:
    alike: dict[JobStatus, list[tuple[str, ...]]] = {}  # 100,000 elements share a handful
    for element, status in answer.live.items():
        alike.setdefault(status, []).append(tuple(element))
    live = [(str(one.state), one.native, one.why, elements) for one, elements in alike.items()]
    ended = {
        tuple(e): (native, reason and str(reason), *facts)
        for e, (native, reason, *facts) in answer.ended.items()
    }
    missing = {tuple(e): at for e, at in answer.missing.items()}
    gone = [tuple(e) for e in answer.gone]
    with suppress(OSError):  # somebody else's run, which we may read but not write to
        facts = (answer.asked, live, ended, missing, gone, dict(answer.trouble))
        write_pickle(rundir.asked, facts)
