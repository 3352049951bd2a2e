"""What is wrong with a site only between values, each of which is right by itself."""

from __future__ import annotations

from collections.abc import Iterator

from hpcpipe.errors import near
from hpcpipe.site import Site

_PAIRS = ("time", "memory", "cpus", "gpus")


def clashes(site: Site) -> Iterator[tuple[str, str]]:
    """Walk what is wrong: the key of one of the values, and why."""
    yield from _queues(site)
    names = [queue.name for queue in site.queues]
    if names and site.defaults.queue not in (None, *names):
        queue = str(site.defaults.queue)
        yield "defaults.queue", f"no queue is called {queue!r}{near(queue, names)}"
    for name, software in site.software.items():
        for queue in software.queues:
            if queue not in names:
                where = f"software.{name}.queues"
                yield where, f"no queue is called {queue!r}{near(queue, names)}"
    known = site.accounts
    if known and site.defaults.account not in (None, *known):
        account = str(site.defaults.account)
        yield "defaults.account", f"no account is called {account!r}{near(account, known)}"
    if site.scratch.option is not None:
        try:
            site.scratch.option.format(gb=1, mb=1)
        except (KeyError, IndexError, ValueError):
            yield "scratch.option", "only {gb} and {mb} may stand in braces; double any others"


def _queues(site: Site) -> Iterator[tuple[str, str]]:
    names = [queue.name for queue in site.queues]
    defaults = [index for index, queue in enumerate(site.queues) if queue.default]
    for index, queue in enumerate(site.queues):
        at = f"queues[{index}]"
        if queue.name in names[:index]:
            yield f"{at}.name", f"a second queue called {queue.name!r}"
        if index in defaults[1:]:
            yield f"{at}.default", "another queue is the default already"
        for what in _PAIRS:
            least, most = getattr(queue, f"min_{what}"), getattr(queue, f"max_{what}")
            if least and most is not None and least > most:
                yield f"{at}.min_{what}", f"is more than max_{what}, so nothing fits"
        for step in queue.steps:
            if step.nodes is None and step.cpus is None:
                yield f"{at}.steps", "each step says up to how many nodes or cpus it holds"
        for account in queue.accounts:
            if site.accounts and account not in site.accounts:
                hint = near(account, site.accounts)
                yield f"{at}.accounts", f"no account is called {account!r}{hint}"
