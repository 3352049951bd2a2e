"""The append-only record of a workflow's submissions: facts, never states.

One JSON object a line, on disk before the next thing happens: ``run`` (a plan was made, and for
which scheduler), ``submitting`` (about to hand a batch over: its token, and the instance of a
scheduler that gets it), ``submitted`` (its job id), ``released``, ``cancelled``, ``dropped``,
``stopped`` (a person is cancelling all of a run), ``refused``, ``cleaned`` (nothing uses these
batches of earlier runs any more), ``continued`` (a continuation has done its work). An intent
without an id means that a client died in between: the token finds the job. Each try of a submit
command is an intent of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcpipe.errors import UsageError

BY_US = "by hpcpipe cancel"  # why something was cancelled
NEVER_ARRIVED = "never reached the scheduler"  # the reason for an interrupted submission
NOT_FOLLOWED = "gave up: "  # begins the reason for one whose other run (--after-run) failed
MAIL = "+mail-"  # begins the id of the job that has mail sent when a run has ended; its number
CONTINUATION = "+continue-"  # begins a continuation's id, where a batch's has a node's name


class Try(NamedTuple):
    """One submit command that was or may have been run: its token, when, and for which instance."""

    token: str
    instance: str
    time: float


class Submission(NamedTuple):
    """A batch that was handed over, or was about to be (``job`` None).

    A job id means nothing without the ``instance`` of a scheduler that gave it.
    """

    batch: str
    run: int
    token: str
    time: float
    held: bool
    instance: str = ""
    job: str | None = None
    released: bool = False
    cancelled: bool = False
    why: str = ""  # it was cancelled, in words
    dropped: frozenset[str] = frozenset()  # elements that were cancelled by themselves
    spared: frozenset[str] = frozenset()  # elements that had ended when the rest was cancelled
    refused: bool = False  # by the scheduler, it or a batch of the same submission,
    full: bool = False  # as a limit of jobs was reached
    hint: str = ""  # options that would avert a refusal
    given_up: tuple[Try, ...] = ()  # earlier tries, whose jobs may still turn up
    continued: bool = False  # a continuation, which has done all it had to
    stands_in_for: str = ""  # another continuation

    @property
    def continues(self) -> bool:
        """Whether it is no batch of tasks, but what looks after them."""
        return self.batch.startswith(CONTINUATION)

    @property
    def has_tasks(self) -> bool:
        """Whether it is a batch of tasks: neither a continuation nor the mail at the end."""
        return not self.batch.startswith((CONTINUATION, MAIL))

    @property
    def last_try(self) -> Try:
        """The latest submit command."""
        return Try(self.token, self.instance, self.time)


class History(NamedTuple):
    """What the ledger's lines amount to."""

    runs: list[dict[str, Any]]
    submissions: dict[str, Submission]  # by batch

    @property
    def last(self) -> dict[str, Any]:
        """The facts of the latest run; raises UsageError if nothing was submitted."""
        if not self.runs:
            raise UsageError("nothing was submitted here yet; start a run: hpcpipe submit FILE")
        return self.runs[-1]

    @property
    def next_run(self) -> int:
        """A number that no run has had, though the ledger may have lost a line."""
        known = (
            *(run["run"] for run in self.runs),
            *(s.run for s in self.submissions.values()),
        )
        return max(known, default=0) + 1

    def scheduler_of(self, run: int) -> tuple[str, Mapping[str, Any]]:
        """Return the name and the options of the scheduler that a run was planned for."""
        facts = next((one for one in self.runs if one["run"] == run), None) or self.last
        return facts["scheduler"], facts.get("options", {})

    def continuations(self) -> list[Submission]:
        """Continuations that may not have done their work yet."""
        return [
            one
            for one in self.submissions.values()
            if one.continues and one.job and not (one.continued or one.cancelled)
        ]

    def adrift(self) -> list[Submission]:
        """Intents without an id: may have been submitted."""
        return [s for s in self.submissions.values() if s.job is None and not s.cancelled]

    def void(self) -> list[Try]:
        """Tries that were given up, as the scheduler did not know them: a job may still arrive."""
        return [
            one
            for s in self.submissions.values()
            for one in (*s.given_up, *([s.last_try] if s.job is None and s.cancelled else ()))
            if one.token
        ]

    def held(self) -> list[Submission]:
        """Accepted submissions that were handed over held and that nobody has released yet."""
        return [
            s
            for s in self.submissions.values()
            if s.held and s.job is not None and not s.released and not s.cancelled
        ]


class Ledger:
    """Appends to the record; written by whoever holds the run's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> None:
        """Add one fact, on disk before this returns.

        A client killed in the middle of a line leaves half of one: a newline first keeps the next
        line whole.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts}) + "\n"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = "\n" + line
            data = line.encode()
            while data:  # a full disk takes half of it, and raises at the other half
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        finally:
            os.close(fd)

    def run(self, number: int, **facts: Any) -> None:
        """Record that a plan was made and is about to be submitted."""
        self.append("run", run=number, **facts)

    def submitting(
        self, batch: str, run: int, token: str, *, held: bool, instance: str, **facts: str
    ) -> Submission:
        """Record the intent to submit, before the command runs, and return it."""
        intent = {"batch": batch, "run": run, "token": token, "held": held, "instance": instance}
        self.append("submitting", **intent, **facts)
        return _begun(None, {**intent, "time": time.time()})

    def submitted(self, intent: Submission, job: str, token: str) -> None:
        """Record the scheduler's id, and the token of the try that it answers.

        With all that the intent said: either line can be lost.
        """
        self.append(
            "submitted",
            batch=intent.batch,
            job=job,
            token=token,
            run=intent.run,
            held=intent.held,
            instance=intent.instance,
        )

    def released(self, batches: Sequence[str]) -> None:
        """Record that held batches were released."""
        self.append("released", batches=list(batches))

    def cancelled(self, batches: Sequence[str], why: str, spared: Iterable[str] = ()) -> None:
        """Record that whole batches were cancelled by us, or never came to be.

        ``spared`` are elements that had already ended.
        """
        self.append("cancelled", batches=list(batches), why=why, spared=list(spared))

    def stopped(self) -> None:
        """Record that a person is cancelling all of the latest run: nothing of it is retried."""
        self.append("stopped")

    def dropped(self, batch: str, elements: Sequence[str]) -> None:
        """Record that elements of a batch were cancelled by us."""
        self.append("dropped", batch=batch, elements=list(elements))

    def refused(self, batches: Sequence[str], why: str, hint: str, *, full: bool) -> None:
        """Record that the scheduler refused one of these batches, so that none is with it.

        ``full``: as a limit of jobs was reached, so that it may be accepted later.
        """
        self.append("refused", batches=list(batches), why=why, hint=hint, full=full)

    def cleaned(self, runs: Iterable[int], batches: Iterable[str]) -> None:
        """Record that nobody reaches the plans of runs any more, and nothing uses these batches.

        Before any of their files is deleted.
        """
        self.append("cleaned", runs=[*runs], batches=[*batches])

    def continued(self, batch: str) -> None:
        """Record that a continuation has done all it had to."""
        self.append("continued", batch=batch)

    def read(self) -> History:
        """Replay the record; a line that a killed client left half-written is passed over.

        So is one that was damaged: its content is in doubt then, and the scheduler is asked.
        """
        history = History([], {})
        for fact in self._facts():
            try:
                _replay(history, fact)
            except (KeyError, TypeError, ValueError):
                continue
        for run in {one.run for one in history.submissions.values()} - {
            one["run"] for one in history.runs
        }:
            history.runs.append(_lost_run(run, history))
        history.runs.sort(key=lambda one: one["run"])
        used = {one.run for one in history.submissions.values()}
        history.runs[:] = (one for one in history.runs if one["run"] in used or not is_cleaned(one))
        return history

    def _facts(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                fact = json.loads(line)
            except ValueError:
                continue
            if isinstance(fact, dict):
                yield fact


def _replay(history: History, fact: dict[str, Any]) -> None:
    submissions = history.submissions

    def change(batch: str, **facts: Any) -> None:
        submissions[batch] = submissions[batch]._replace(**facts)

    match fact["event"]:
        case "run":
            history.runs.append({"scheduler": "", "site": "", **fact})
        case "submitting":
            submissions[fact["batch"]] = _begun(submissions.get(fact["batch"]), fact)
        case "submitted":
            intent = submissions.get(fact["batch"]) or _begun(None, fact)
            submissions[fact["batch"]] = _accepted(intent, fact)
        case "released":
            for batch in fact["batches"]:
                change(batch, released=True)
        case "continued":
            change(fact["batch"], continued=True)
        case "stopped" if history.runs:
            history.runs[-1]["stopped"] = True
        case "dropped":
            batch = fact["batch"]
            change(batch, dropped=submissions[batch].dropped | set(fact["elements"]))
        case "cancelled" | "refused":
            _cancel(history, fact)
        case "cleaned":
            for run in history.runs:
                run["cleaned"] = is_cleaned(run) or run["run"] in fact["runs"]
            for batch in fact["batches"]:
                submissions.pop(batch, None)


def _cancel(history: History, fact: dict[str, Any]) -> None:
    for batch in fact["batches"]:  # of those refused together, some were not even begun
        unbegun = Submission(batch, history.last["run"], "", fact["time"], held=False)
        before = history.submissions.get(batch, unbegun)
        history.submissions[batch] = before._replace(
            cancelled=True,
            why=fact["why"],
            refused=fact["event"] == "refused",
            full=fact.get("full", False),
            hint=fact.get("hint", ""),
            spared=before.spared | set(fact.get("spared", ())),
        )


def is_cleaned(run: Mapping[str, Any]) -> bool:
    """Return whether nobody reaches the plan of a run any more, by its facts."""
    return bool(run.get("cleaned"))


def _lost_run(run: int, history: History) -> dict[str, Any]:
    """Return what is still known of a run whose line was lost: its kind of scheduler."""
    instances = (one.instance for one in history.submissions.values() if one.run == run)
    return {"run": run, "scheduler": next(instances, "").partition(":")[0], "site": ""}


def _begun(before: Submission | None, fact: Mapping[str, Any]) -> Submission:
    """Return a submission that is about to be tried, perhaps again."""
    given_up = ()
    if before is not None:
        again = before.job is None and before.token
        given_up = (*before.given_up, *([before.last_try] if again else ()))
    return Submission(
        fact["batch"], fact["run"], fact["token"], fact["time"], fact["held"],
        fact.get("instance", ""), given_up=given_up, stands_in_for=fact.get("stands_in_for", ""),
    )  # fmt: skip


def _accepted(one: Submission, fact: Mapping[str, Any]) -> Submission:
    """Return a submission with the id that one of its tries was given."""
    token = fact.get("token", one.token)
    tries = (*one.given_up, one.last_try)
    taken = next((each for each in tries if each.token == token), one.last_try)
    return one._replace(
        job=fact["job"],
        token=taken.token,
        instance=taken.instance,
        given_up=tuple(each for each in tries if each.token != token),
    )
