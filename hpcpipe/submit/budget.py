"""What a submission costs at worst, beside the budgets of its accounts; and how long it takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcpipe.errors import OverBudget
from hpcpipe.planner.batch import Batch
from hpcpipe.quantities import format_time
from hpcpipe.site import Site
from hpcpipe.site.route import Route

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
    """Return for each account what this would cost beyond its budget, or that it is unknown."""
    excess = []
    for name, account in site.accounts.items():
        if account.budget is None:
            continue
        mine = [(batch, route) for batch, route in routed if route.resources.account == name]
        cost = make_bill(mine)
        if cost.total > account.budget:
            excess.append(
                f"{name}: {_sum(cost.total)} {site.charged_in} at worst, "
                f"and its budget is {_sum(account.budget)} a submission"
            )
        elif cost.open:
            unknown = ", ".join(cost.open)
            excess.append(f"{name}: nobody can tell the cost of {unknown}, which ask for no time")
    return excess


def check_budget(routed: Routed, site: Site) -> None:
    """Raise OverBudget where an account may be charged more than its budget."""
    if excess := over_budget(routed, site):
        raise OverBudget(
            "\n".join(excess) + "\nNothing was submitted. Ask for less time, "
            "or say that it may cost so much: --over-budget"
        )


def bill_line(bill: Bill, site: Site) -> str:
    """Return in a line what a submission costs at worst; nothing if no time is requested."""
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


def pace_line(calls: int, site: Site) -> str:
    """Return how long submitting takes where the site wants it slow; else nothing."""
    rate = site.limits.submits_per_minute
    if rate is None or calls < 2:
        return ""
    seconds = round((calls - 1) * 60 / rate)
    return f"{site.name} takes {rate} submit commands a minute: this takes {format_time(seconds)}."
