"""How a task fits a queue: its adjusted request, what keeps it out, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf

from hpcpipe.quantities import format_memory, format_time
from hpcpipe.resources import Resources
from hpcpipe.site import Queue, Site
from hpcpipe.site.software import find_software

_SAY: dict[str, Callable[[int], str]] = {
    "time": format_time,
    "memory": format_memory,
    "cpus": str,
    "gpus": str,
    "scratch": format_memory,
}
_EXACT = {"time": "{} s", "memory": "{} MB", "cpus": "{}", "gpus": "{}", "scratch": "{} MB"}


@dataclass(frozen=True)
class Lack:
    """One obstacle that keeps a task out of a queue: in words, and by what factor."""

    words: str
    excess: float = inf


def fit(wanted: Resources, queue: Queue) -> Resources:
    """Return the request raised to the queue's minimum: time, cpu granularity, GPUs."""
    words = {word.lower() for word in wanted.requires or ()}
    gpus = wanted.gpus
    if not gpus and any(model.lower() in words for model in queue.gpu_models):
        gpus = 1  # a GPU model was requested by name
    cpus = wanted.cpus
    if gpus and queue.cpus_per_gpu:
        cpus = max(cpus or 1, gpus * queue.cpus_per_gpu)
    if queue.cpus_multiple:
        cpus = ceil((cpus or 1) / queue.cpus_multiple) * queue.cpus_multiple
    time = wanted.time
    if time and queue.min_time:
        time = max(time, queue.min_time)
    return wanted._replace(gpus=gpus, cpus=cpus, time=time)


def room(wanted: Resources, queue: Queue) -> int:
    """Return how many such tasks run side by side on one node of a queue.

    One, unless a job gets a whole node whose size is known.
    """
    cores = queue.cpus_per_node or queue.max_cpus
    gpus = fit(wanted, queue).gpus
    if not queue.exclusive or not cores or gpus != wanted.gpus:  # a model's name means one GPU
        return 1
    parts = [
        (cores, wanted.cpus or 1),
        (queue.max_memory, wanted.memory),
        (queue.max_scratch, wanted.scratch),
        (queue.max_gpus, gpus),
    ]
    return max(1, min(whole // part for whole, part in parts if whole and part))


def find_lacks(wanted: Resources, queue: Queue, site: Site) -> list[Lack]:
    """Return the obstacles that keep a fitted request out of a queue."""
    return [*_sizes(wanted, queue), *_offers(wanted, queue, site)]


def limited(wanted: Resources, queue: Queue) -> Iterator[tuple[str, int, int]]:
    """Yield the name, requested amount and limit of each resource that is requested and limited."""
    for name in _SAY:
        asked = getattr(wanted, name)
        limit = _time_limit(wanted, queue) if name == "time" else getattr(queue, f"max_{name}")
        if asked is not None and limit is not None:
            yield name, asked, limit


def pretty(name: str, amount: int) -> str:
    """Format an amount of a resource for people."""
    return _SAY[name](amount)


def compare(name: str, one: int, sign: str, other: int) -> str:
    """Format a comparison of two amounts: ``time 2 d > 4 h``."""
    left, right = _SAY[name](one), _SAY[name](other)
    if left == right:  # rounded amounts may look equal
        left, right = _EXACT[name].format(one), _EXACT[name].format(other)
    return f"{name} {left} {sign} {right}"


def _time_limit(wanted: Resources, queue: Queue) -> int | None:
    """Return the time limit for a job of this size."""
    for step in queue.steps:
        if (step.cpus or inf) >= (wanted.cpus or 1):
            return step.max_time
    return queue.max_time


def _sizes(wanted: Resources, queue: Queue) -> Iterator[Lack]:
    for name, asked, limit in limited(wanted, queue):
        if asked > limit:
            yield Lack(compare(name, asked, ">", limit), asked / limit if limit else inf)
    for name in ("memory", "cpus", "gpus"):
        asked, least = getattr(wanted, name) or 0, getattr(queue, f"min_{name}")
        if least is not None and asked < least:
            said = compare(name, asked, "<", least) if asked else f"no {name} requested"
            yield Lack(said if asked or least == 1 else f"{said}, at least {pretty(name, least)}")
    if (queue.min_nodes or 1) > 1:
        yield Lack(f"only for jobs of {queue.min_nodes} nodes or more")
    widest = [step.cpus for step in queue.steps if step.cpus]
    if len(widest) == len(queue.steps) > 0 and (wanted.cpus or 1) > max(widest):
        yield Lack(compare("cpus", wanted.cpus or 1, ">", max(widest)))


def _offers(wanted: Resources, queue: Queue, site: Site) -> Iterator[Lack]:
    have = {word.lower() for word in (*queue.features, *queue.constraints, *queue.gpu_models)}
    for word in wanted.requires or ():
        if word.lower() not in have:
            yield Lack(f"no {word}")
    if site.software:
        for demand in wanted.software or ():
            found = find_software(demand, site, queue.name)
            if isinstance(found, str):
                yield Lack(found)
    if queue.accounts and wanted.account not in queue.accounts:
        whose = f"account {wanted.account}" if wanted.account else "no account"
        yield Lack(f"{whose}: only for {', '.join(queue.accounts)}")


def charge(wanted: Resources, queue: Queue | None) -> float | None:
    """Return what one element costs if it uses its whole time; None if no time is known."""
    queue = queue or Queue(name="none")
    cost = queue.cost
    time = wanted.time or queue.default_time or _time_limit(wanted, queue)
    if time is None:
        return None
    cores = wanted.cpus or 1
    if cost.memory_per_core and wanted.memory:
        cores = max(cores, ceil(wanted.memory / cost.memory_per_core))
    if queue.exclusive:
        cores = queue.cpus_per_node or queue.max_cpus or cores
    units = {"core": cores, "node": 1, "gpu": wanted.gpus or 0}[cost.unit]
    return cost.rate * units * max(time, cost.least or 0) / 3600
