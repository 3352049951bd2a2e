"""Routing: which queue a task goes to, why, and what its script needs there.

Pure and deterministic: the same request on the same site gives the same queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hpcpipe.errors import ConfigError, near
from hpcpipe.resources import Resources
from hpcpipe.site import Queue, Site
from hpcpipe.site.fit import Lack, charge, find_lacks, fit, limited, pretty, room
from hpcpipe.site.software import Found, find_software

_BY_NAME_ONLY = Lack("only for tasks that request it by name")
_MOST = 3  # rejected queues named in a sentence, to keep it readable; `Route.others` has all


@dataclass(frozen=True)
class Route:
    """Where a task goes: the queue, its resources with the site's defaults, and why.

    Without a queue the scheduler chooses one. On a site that lists no queues, a requested queue is
    passed on, known only by name. ``others`` says for every other queue why it was not chosen.
    ``account``, ``constraints``, ``licences`` and ``gpu_model`` are in the scheduler's terms,
    ``setup`` in shell code; ``charge`` is what an element costs at worst. ``room`` is how many such
    tasks may share an element side by side.
    """

    queue: Queue | None
    resources: Resources
    why: str
    others: tuple[str, ...] = ()
    account: str | None = None
    software: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    gpu_model: str = ""
    throttle: int | None = None
    options: tuple[str, ...] = ()
    charge: float | None = None
    room: int = 1


def route(asked: Resources, site: Site, lanes: int = 1) -> Route:
    """Choose the queue for the request of one task, or of ``lanes`` that run side by side.

    A requested queue must exist and fit. Otherwise the first that fits is chosen: in the preferred
    order, or else ``defaults.queue``, the default queue, and the order of the site file. Raises
    ConfigError if none fits, naming the nearest and what it lacks.
    """
    wanted = asked.over(site.defaults.resources()).times(lanes, 1)
    _check_account(wanted, site)
    if not site.queues:
        return _unlisted(wanted, site)
    ranked = _ranked(wanted, site)
    lacking = {queue.name: find_lacks(fit(wanted, queue), queue, site) for queue in ranked}
    if asked.queue is not None:
        chosen = _asked(asked.queue, wanted, site, lacking)
        reason = f"{_fits(wanted, chosen, site)}; requested"
    else:
        for queue in ranked:
            if queue.only_asked:
                lacking[queue.name].append(_BY_NAME_ONLY)
        fitting = [queue for queue in ranked if not lacking[queue.name]]
        if not fitting:
            raise ConfigError(_nowhere(wanted, site, ranked, lacking))
        chosen = fitting[0]
        before = [queue for queue in ranked[: ranked.index(chosen)] if not queue.only_asked]
        passed = [f"not {queue.name}: {_all(lacking[queue.name])}" for queue in before]
        more = [f"nor {len(passed) - _MOST} more"] if len(passed) > _MOST else []
        reason = "; ".join([_fits(wanted, chosen, site), *passed[:_MOST], *more])
    others = tuple(
        f"{queue.name}: {_all(lacking[queue.name]) or _behind(wanted, queue, chosen, site)}"
        for queue in ranked
        if queue is not chosen
    )
    return _to(chosen, wanted, site, f"{chosen.name}: {reason}", others)


def _ranked(wanted: Resources, site: Site) -> list[Queue]:
    """Return the queues in the order in which they are considered."""

    def rank(queue: Queue) -> tuple[bool, bool, tuple[float, ...], bool]:
        preference = _preference(wanted, queue)
        return queue.name != wanted.queue, queue.preemptible, preference, not queue.default

    return sorted(site.queues, key=rank)


def _preference(wanted: Resources, queue: Queue) -> tuple[float, ...]:
    if wanted.prefer == "cheapest":
        cost = charge(fit(wanted, queue), queue)
        return (inf if cost is None else cost,)
    if wanted.prefer == "soonest":
        return (queue.wait or inf,)
    return ()


def _behind(wanted: Resources, queue: Queue, chosen: Queue, site: Site) -> str:
    """Return why a queue that also fits was not chosen."""
    if queue.preemptible and not chosen.preemptible:
        return "also fits, but its jobs may be preempted"
    here, there = _preference(wanted, queue), _preference(wanted, chosen)
    if here != there:
        if wanted.prefer == "cheapest":
            return f"also fits, but costs {_sum(here[0], site)}, not {_sum(there[0], site)}"
        waits = "unknown" if here[0] == inf else pretty("time", int(here[0]))
        return f"also fits, but the usual wait is {waits}, not {pretty('time', int(there[0]))}"
    return f"also fits, but {chosen.name} comes first"


def _sum(cost: float, site: Site) -> str:
    return "an unknown amount" if cost == inf else f"{cost:.4g} {site.charged_in}"


def _nowhere(
    wanted: Resources, site: Site, ranked: list[Queue], lacking: dict[str, list[Lack]]
) -> str:
    open_ = [queue for queue in ranked if not queue.only_asked] or ranked

    def distance(queue: Queue) -> tuple[int, float]:
        lacks = lacking[queue.name]
        return len(lacks), sum(lack.excess for lack in lacks)

    nearest = min(open_, key=distance)
    said = f"no queue of site {site.name!r} takes {wanted}; nearest is {nearest.name!r}: "
    by_name = [
        queue.name
        for queue in ranked
        if queue.only_asked and lacking[queue.name] == [_BY_NAME_ONLY]
    ]
    hint = f"; {by_name[0]!r} would, if requested by name" if by_name else ""
    return said + _all(lacking[nearest.name]) + hint


def _unlisted(wanted: Resources, site: Site) -> Route:
    queue = Queue(name=wanted.queue) if wanted.queue else None
    because = f"because site {site.name!r} lists no queues"
    if queue:
        why = f"{queue.name}: not checked, {because}"
    else:
        why = f"site {site.name!r} lists no queues; the scheduler chooses"
    if wanted.requires:
        why += f"; {', '.join(wanted.requires)}: not checked"
    return _to(queue, wanted, site, why, ())


def _asked(name: str, wanted: Resources, site: Site, lacking: dict[str, list[Lack]]) -> Queue:
    queues = {queue.name: queue for queue in site.queues}
    if name not in queues:
        raise ConfigError(f"site {site.name!r} has no queue {name!r}{near(name, queues)}")
    if lacks := lacking[name]:
        fitting = [one for one in lacking if not lacking[one] and not queues[one].only_asked]
        instead = f"; {fitting[0]!r} would" if fitting else ""
        raise ConfigError(
            f"queue {name!r} of site {site.name!r} does not take {wanted}: {_all(lacks)}{instead}"
        )
    return queues[name]


def _check_account(wanted: Resources, site: Site) -> None:
    account = wanted.account
    if site.accounts and account and account not in site.accounts:
        hint = near(account, site.accounts)
        raise ConfigError(f"site {site.name!r} has no account {account!r}{hint}")


def _to(
    queue: Queue | None, wanted: Resources, site: Site, why: str, others: tuple[str, ...]
) -> Route:
    """Return the route to the chosen queue, with all that the script needs there."""
    asked = fit(wanted, queue)._replace(queue=queue.name) if queue else wanted
    _check_said(asked, site)
    programs = _programs(asked, site, queue)
    if asked.software and not site.software:
        why += f"; {', '.join(asked.software)}: not checked, because the site lists no software"
    account = site.accounts.get(asked.account or "")
    suffix = queue.account_suffix if queue else ""
    words = {word.lower() for word in asked.requires or ()}
    ask_for = queue.constraints if queue else {}
    models = queue.gpu_models if queue else {}
    at_once = (asked.throttle, site.limits.array_throttle, *(p.software.at_once for p in programs))
    return Route(
        queue,
        asked,
        why,
        others,
        account=asked.account and asked.account + suffix,
        software=tuple(program.said for program in programs),
        setup=tuple(line for program in programs for line in program.software.setup),
        licences=tuple(word for program in programs for word in program.software.licences),
        constraints=tuple(word for name, word in ask_for.items() if name.lower() in words),
        gpu_model=next((word for name, word in models.items() if name.lower() in words), ""),
        throttle=min((most for most in at_once if most is not None), default=None),
        options=(
            *(queue.options if queue else ()),
            *(account.options if account else ()),
            *_scratch(asked, site),
        ),
        charge=charge(asked, queue),
        room=1 if any(map(_counted, programs)) or queue is None else room(wanted, queue),
    )


def _counted(program: Found) -> bool:
    """Return whether a job counts a program once, however many of its tasks use it."""
    return bool(program.software.licences or program.software.at_once)


def _programs(asked: Resources, site: Site, queue: Queue | None) -> list[Found]:
    """Return the requested programs from the catalogue; without a catalogue, nothing is checked."""
    if not site.software:
        return []
    name = queue.name if queue else None
    found = [find_software(one, site, name) for one in asked.software or ()]
    if lacking := [one for one in found if isinstance(one, str)]:
        raise ConfigError(f"site {site.name!r}: {', '.join(lacking)}")
    return [one for one in found if not isinstance(one, str)]


def _check_said(asked: Resources, site: Site) -> None:
    """Raise ConfigError if this request lacks what the site requires of every job."""
    for what in site.mandatory:
        if getattr(asked, what) is None:
            raise ConfigError(
                f"site {site.name!r} requires every job to name its {what}; "
                f"use --{what}, or set defaults.{what} in your site file"
            )


def _scratch(asked: Resources, site: Site) -> tuple[str, ...]:
    if not asked.scratch or site.scratch.option is None:
        return ()
    mb = asked.scratch
    if site.scratch.per_cpu:
        mb = -(-mb // (asked.cpus or 1))
    return (site.scratch.option.format(gb=-(-mb // 1024), mb=mb),)


def _all(lacks: list[Lack]) -> str:
    return ", ".join(lack.words for lack in lacks)


def _fits(wanted: Resources, queue: Queue, site: Site) -> str:
    """Describe how a request fits: ``2 h fits its 4 h limit, 8 of its 10 cpus``."""
    asked = fit(wanted, queue)
    words = []
    for name, amount, limit in limited(asked, queue):
        if name in ("time", "memory"):
            words.append(f"{pretty(name, amount)} fits its {pretty(name, limit)} limit")
        elif name == "scratch":
            words.append(f"{pretty(name, amount)} of its {pretty(name, limit)} of scratch")
        elif (name, amount) not in (("cpus", 1), ("gpus", 0)):
            words.append(f"{amount} of its {limit} {name}")
    if wanted.time != asked.time:
        words.append(f"time raised to its minimum, {pretty('time', asked.time or 0)}")
    if wanted.cpus != asked.cpus:
        words.append(f"cpus rounded up to {asked.cpus}")
    if wanted.requires:
        words.append(f"has {', '.join(wanted.requires)}")
    if wanted.software and site.software:
        words.append(f"has {', '.join(wanted.software)}")
    if wanted.prefer:
        words.append(_preferred(wanted, queue, site))
    return ", ".join(words) or f"takes {wanted}"


def _preferred(wanted: Resources, queue: Queue, site: Site) -> str:
    (value,) = _preference(wanted, queue)
    if wanted.prefer == "cheapest":
        return f"the cheapest, {_sum(value, site)} at worst"
    return "the soonest" + ("" if value == inf else f", usually {pretty('time', int(value))}")
