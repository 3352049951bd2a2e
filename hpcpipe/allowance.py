"""What a submission takes of what the site allows: an account's budget, places in queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from hpcpipe.errors import ConfigError, OverBudget
from hpcpipe.model import Resources, format_time
from hpcpipe.planner.batch import Batch
from hpcpipe.routing import Route
from hpcpipe.site import Site

Routed = Sequence[tuple[Batch, Route]]


@dataclass(frozen=True)
class Bill:
    """What a submission costs at worst, by account; "" is no account by name.

    ``open`` are the nodes whose tasks ask for no time, so that nobody can tell.
    """

    accounts: Mapping[str, float]
    open: tuple[str, ...]

    @property
    def total(self) -> float:
        """All accounts together."""
        return sum(self.accounts.values())


def make_bill(routed: Routed) -> Bill:
    """Add up what every element costs if it takes all the time it asks for."""
    accounts: dict[str, float] = defaultdict(float)
    open_: dict[str, None] = {}
    for batch, route in routed:
        if route.charge is None:
            open_[batch.name] = None
        else:
            accounts[route.resources.account or ""] += batch.elements * route.charge
    return Bill(accounts, tuple(open_))


def over_budget(routed: Routed, site: Site) -> list[str]:
    """Say of each account what this would cost beyond its budget, or that nobody can tell."""
    said = []
    for name, account in site.accounts.items():
        if account.budget is None:
            continue
        mine = [(batch, route) for batch, route in routed if route.resources.account == name]
        cost = make_bill(mine)
        if cost.total > account.budget:
            said.append(
                f"{name}: {_sum(cost.total)} {site.charged_in} at worst, "
                f"and its budget is {_sum(account.budget)} a submission"
            )
        elif cost.open:
            unknown = ", ".join(cost.open)
            said.append(f"{name}: nobody can tell the cost of {unknown}, which ask for no time")
    return said


def check_budget(routed: Routed, site: Site) -> None:
    """Raise OverBudget where an account may be charged more than its budget."""
    if said := over_budget(routed, site):
        raise OverBudget(
            "\n".join(said) + "\nNothing was submitted. Ask for less time, "
            "or say that it may cost so much: --over-budget"
        )


def bill_line(bill: Bill, site: Site) -> str:
    """Say in a line what a submission costs at worst; nothing where no time is asked for."""
    words = [
        f"{_sum(cost)} {site.charged_in}" + (f" of {account}" if account else "")
        for account, cost in bill.accounts.items()
    ]
    if not words:
        return ""
    if bill.open:
        words.append(f"what {', '.join(bill.open)} takes, without a time limit")
    return f"Costs at worst {' and '.join(words)}."


def _sum(cost: float) -> str:
    return f"{cost:.2f}" if cost < 10 else f"{cost:,.0f}"


def find_packs(
    routed: Routed, site: Site, pack_of: Callable[[Resources], int]
) -> dict[Resources, int]:
    """Say how many tasks, by what they ask for, must share a job for the site to take them all.

    Empty where it takes them as they are, packed as ``pack_of`` says. Raises ConfigError where no
    packing helps.
    """
    packs: dict[Resources, int] = {}
    for where, most, batches in _limited(routed, site):
        jobs = sum(batch.elements if site.limits.elements_count else 1 for batch in batches)
        if jobs <= most:
            continue
        now = {batch.resources: pack_of(batch.resources) for batch in batches}
        if not site.limits.elements_count or min(now.values()) >= sum(
            len(b.tasks) for b in batches
        ):
            raise ConfigError(
                f"{where} takes {most} job{'s' * (most > 1)} at a time, and this makes {jobs}, "
                "however many tasks share one; submit less of it at a time"
            )
        for asked, pack in now.items():
            packs[asked] = max(packs.get(asked, 1), ceil(pack * jobs / most))
    return packs


def _limited(routed: Routed, site: Site) -> Iterator[tuple[str, int, list[Batch]]]:
    """Walk the limits on jobs: whose it is, how many it takes, and the batches it is about."""
    limits = site.limits
    if limits.overflow == "held":
        return
    for queue in site.queues:
        if queue.max_jobs is not None:
            mine = [batch for batch, route in routed if route.queue is queue]
            yield f"queue {queue.name!r} of site {site.name!r}", queue.max_jobs, mine
    if limits.max_jobs is not None:
        yield f"site {site.name!r}", limits.max_jobs, [batch for batch, _ in routed]


def pace_line(calls: int, site: Site) -> str:
    """Say how long submitting takes where the site wants it slow; else nothing."""
    rate = site.limits.submits_per_minute
    if rate is None or calls < 2:
        return ""
    seconds = round((calls - 1) * 60 / rate)
    return f"{site.name} takes {rate} submit commands a minute: this takes {format_time(seconds)}."
