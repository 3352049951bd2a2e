"""Which elements of a batch see to it that what is due is submitted soon; `hpcpipe.continuing`."""

from __future__ import annotations

from typing import NamedTuple

from hpcpipe.resources import Resources
from hpcpipe.site import Site

# In a larger run it would take an element too long: 22 s were seen for 100,000 tasks, and 173 MB.
_TASKS = 20_000
_MEMORY = 100  # MiB that suffice for so many, beside a worker


class Waking(NamedTuple):
    """What the elements of a batch do for those that fail, and for what there is room for later.

    ``on_failure``: a task that fails calls for a continuation, and so do the elements at the
    positions ``at`` when they end. ``early``: one that begins meanwhile does its work.
    """

    on_failure: bool = False
    at: tuple[int, ...] = ()
    early: bool = False


NOTHING = Waking()


def find_waking(site: Site, asked: Resources, elements: int, windows: int, tasks: int) -> Waking:
    """Decide what the ``elements`` of a batch do, each of which asks for so much.

    ``windows`` and ``tasks`` are those of the run. An element must have the memory to submit, or
    its task would be killed with it; and it has a slot, in which nothing is to be waited for.
    """
    if site.nodes.may_submit is False:
        return NOTHING
    on_failure, at = asked.attempts is not None, _positions(elements) if windows > 1 else ()
    can = tasks <= _TASKS and (asked.memory is None or asked.memory >= _MEMORY)
    can = can and site.limits.submits_per_minute is None
    return Waking(on_failure, at, can and (on_failure or bool(at)))


def _positions(elements: int) -> tuple[int, ...]:
    """Return the elements of a batch at whose end there may be room for more."""
    return tuple(dict.fromkeys((elements // 3, 2 * elements // 3)))
