"""Routing: which queue a task goes to, what its script needs there, and a sentence that says why.

Pure and deterministic: the same demands on the same site give the same queue. Nothing is asked of
the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hpcpipe.errors import ConfigError, near
from hpcpipe.fitting import Lack, charge, find_lacks, fit, limited, room, say
from hpcpipe.model import Resources
from hpcpipe.site import Queue, Site
from hpcpipe.software import Found, find_software

_BY_NAME_ONLY = Lack("only for tasks that name it")
_MOST = 3  # queues that were passed over, in a sentence; all are in `Route.others`


@dataclass(frozen=True)
class Route:
    """Where a task goes: the queue, its resources with the site's defaults, and why.

    Without a queue the scheduler's own choice holds. A queue asked for on a site that lists none
    is passed on, known by nothing but its name. ``others`` says of every other queue why not.
    ``account``, ``constraints``, ``licences`` and ``gpu_model`` are in the scheduler's words, and
    ``setup`` in those of sh; ``charge`` is what an element costs at worst. ``room`` is how many
    such tasks may share an element side by side.
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
    """Choose the queue for what one task asks, or so many that run side by side.

    A queue asked for must exist and fit. Otherwise it is the first that fits: of those preferred,
    else in the order of the site file, after ``defaults.queue`` and the default queue. Raises
    ConfigError where none does, naming the nearest and what it lacks.
    """
    wanted = asked.over(site.defaults.resources()).times(lanes, 1)
    _check_account(wanted, site)
    if not site.queues:
        return _unlisted(wanted, site)
    ranked = _ranked(wanted, site)
    lacking = {queue.name: find_lacks(fit(wanted, queue), queue, site) for queue in ranked}
    if asked.queue is not None:
        chosen = _asked(asked.queue, wanted, site, lacking)
        reason = f"{_fits(wanted, chosen, site)}; asked for"
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
    """Put the queues in the order in which they are considered."""

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
    """Say why a queue that fits too was not chosen."""
    if queue.preemptible and not chosen.preemptible:
        return "would do, but its jobs may be ended for others"
    here, there = _preference(wanted, queue), _preference(wanted, chosen)
    if here != there:
        if wanted.prefer == "cheapest":
            return f"would do, but costs {_sum(here[0], site)}, not {_sum(there[0], site)}"
        waits = "an unknown time" if here[0] == inf else say("time", int(here[0]))
        return f"would do, but one waits {waits} there, not {say('time', int(there[0]))}"
    return f"would do, but {chosen.name} comes first"


def _sum(cost: float, site: Site) -> str:
    return "an unknown sum" if cost == inf else f"{cost:.4g} {site.charged_in}"


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
    hint = f"; {by_name[0]!r} would, if a task names it" if by_name else ""
    return said + _all(lacking[nearest.name]) + hint


def _unlisted(wanted: Resources, site: Site) -> Route:
    queue = Queue(name=wanted.queue) if wanted.queue else None
    because = f"since site {site.name!r} lists no queues"
    if queue:
        why = f"{queue.name}: taken at its word, {because}"
    else:
        why = f"site {site.name!r} lists no queues, so none is named"
    if wanted.requires:
        why += f"; {', '.join(wanted.requires)}: taken at its word"
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
    if site.accounts and account is not None and account not in site.accounts:
        hint = near(account, site.accounts)
        raise ConfigError(f"site {site.name!r} has no account {account!r}{hint}")


def _to(
    queue: Queue | None, wanted: Resources, site: Site, why: str, others: tuple[str, ...]
) -> Route:
    """Work out all that the script needs in the queue that was chosen."""
    asked = fit(wanted, queue)._replace(queue=queue.name) if queue else wanted
    _check_said(asked, site)
    programs = _programs(asked, site, queue)
    if asked.software and not site.software:
        why += f"; {', '.join(asked.software)}: taken at its word, as the site lists no software"
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
    """Tell whether a job takes a program once, whatever runs in it."""
    return bool(program.software.licences or program.software.at_once)


def _programs(asked: Resources, site: Site, queue: Queue | None) -> list[Found]:
    """Take the programs demanded from the catalogue; without one they are taken at their word."""
    if not site.software:
        return []
    name = queue.name if queue else None
    found = [find_software(one, site, name) for one in asked.software or ()]
    if lacking := [one for one in found if isinstance(one, str)]:
        raise ConfigError(f"site {site.name!r}: {', '.join(lacking)}")
    return [one for one in found if not isinstance(one, str)]


def _check_said(asked: Resources, site: Site) -> None:
    """Raise ConfigError for what every job must say here, and this one does not."""
    for what in site.mandatory:
        if getattr(asked, what) is None:
            raise ConfigError(
                f"site {site.name!r} wants every job to say its {what}; "
                f"type --{what}, or set defaults.{what} in your site file"
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
    """Say how what is wanted fits: ``2 h fits its 4 h limit, 8 of its 10 cpus``."""
    asked = fit(wanted, queue)
    words = []
    for name, amount, limit in limited(asked, queue):
        if name in ("time", "memory"):
            words.append(f"{say(name, amount)} fits its {say(name, limit)} limit")
        elif name == "scratch":
            words.append(f"{say(name, amount)} of its {say(name, limit)} of scratch")
        elif (name, amount) not in (("cpus", 1), ("gpus", 0)):
            words.append(f"{amount} of its {limit} {name}")
    if wanted.time != asked.time:
        words.append(f"time raised to its least, {say('time', asked.time or 0)}")
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
    return "the soonest" + ("" if value == inf else f", {say('time', int(value))} as a rule")
