"""What to do when a scheduler refuses: take back what was begun, and say what would help."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.schedulers.base import Scheduler, shown
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.recent import run_option, suggested
from hpcpipe.submit.prepare import Draft, Prepared

_ACCOUNT = "account|project|bank"  # what it is called on Grid Engine and OAR, and on Flux


def take_back(draft: Draft, ledger: Ledger, why: SchedulerError) -> SchedulerError:
    """Cancel what this submission had begun, and return what to raise."""
    mine = [prepared.id for prepared in draft.prepared]
    known = ledger.read().submissions
    begun = [known[batch] for batch in mine if batch in known]
    tokens = {each.token for one in begun for each in (*one.given_up, one.last_try)}
    try:
        left = _cancel([one.job for one in begun if one.job], tokens, draft.scheduler)
    except SchedulerUnavailable as error:
        return SchedulerUnavailable(
            f"{why}\nWhat was submitted before it is held, unless it could be cancelled: {error}\n"
            f"Type: hpcpipe cancel{run_option(draft.rundir.folder)}"
        )
    refused = next((p for p in draft.prepared if p.id not in known or not known[p.id].job), None)
    refused = refused or draft.prepared[-1]
    hint = _hint(why, draft.scheduler, refused.route.account)
    still = {one.batch for one in begun if one.job in left}
    over = [batch for batch in mine if batch not in still]
    ledger.refused(over, str(why), hint, full=why.passing)
    return SchedulerError(_refusal(why, refused, hint, left, draft))


def _cancel(jobs: Sequence[str], tokens: Collection[str], scheduler: Scheduler) -> list[str]:
    """Cancel jobs, and those of some tokens; return the jobs that are still in the queue."""
    left: list[str] = []
    for pause in (0, 0.5, 1, 2, 4):
        if pause:
            time.sleep(pause)
        left = [*dict.fromkeys((*(left if pause else jobs), *scheduler.find(tokens).values()))]
        try:
            scheduler.cancel(left)
        except SchedulerUnavailable:
            raise
        except SchedulerError:
            pass  # what it refuses to cancel is named as left
        left = [job for job in left if scheduler.poll([job])]
        if not left:
            break
    return left


def _hint(error: SchedulerError, scheduler: Scheduler, refused: str | None) -> str:
    """Return options that would avert a refusal, or nothing.

    "accounting/QOS policy" and a limit that an account has reached are no matter of its name.
    Where nothing tells the user's accounts, the scheduler may have a default one.
    """
    words = str(error).lower()
    if error.passing or not re.search(rf"\b({_ACCOUNT})s?\b", words) or "limit" in words:
        return ""
    try:
        accounts = scheduler.accounts()
    except SchedulerError:
        return ""
    other = next((one for one in accounts if one != refused), "''" if refused else "")
    return f"--account {other}" if other else ""


def _refusal(
    error: SchedulerError, prepared: Prepared, hint: str, left: Sequence[str], draft: Draft
) -> str:
    nodes = " ".join(node.node.name for node in prepared.batch.nodes)
    words = f"{error}\nRefused: batch {prepared.id} of {nodes} ({prepared.route.resources})"
    if prepared.route.queue:
        words += f" for queue {prepared.route.queue.name}"
    again = suggested(draft.rundir.folder, "retry", hint)
    if left:
        words += f". Still in the queue, though cancelled: {' '.join(map(shown, left))}.\n"
    else:
        words += ". Nothing of this submission is left in the queue.\n"
    if error.passing:
        return (
            f"{words}A limit of jobs is reached: submit again later, or with fewer jobs, --pack N."
        )
    if hint:
        return f"{words}Use another account, or none. Type: {again}"
    return f"{words}Change what it requests and submit again, or the site file, then: {again}"
