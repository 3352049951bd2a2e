"""Contradictions between values of a site that are each valid by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from hpcpipe.errors import near
from hpcpipe.schedulers import find_adapter
from hpcpipe.site import Site

_PAIRS = ("time", "memory", "cpus", "gpus")


def clashes(site: Site) -> Iterator[tuple[str, str]]:
    """Yield each contradiction: the key of one of the values, and what is wrong."""
    yield from _queues(site)
    names = [queue.name for queue in site.queues]
    if names and site.defaults.queue not in (None, *names):
        queue = str(site.defaults.queue)
        yield "defaults.queue", f"no queue is named {queue!r}{near(queue, names)}"
    for name, software in site.software.items():
        for queue in software.queues:
            if queue not in names:
                where = f"software.{name}.queues"
                yield where, f"no queue is named {queue!r}{near(queue, names)}"
    known = site.accounts
    if known and site.defaults.account not in (None, *known):
        account = str(site.defaults.account)
        yield "defaults.account", f"no account is named {account!r}{near(account, known)}"
    if site.templates is not None and (wrong := _templates(site.templates, site.written_for)):
        yield "templates", wrong
    if site.scratch.option is not None:
        try:
            site.scratch.option.format(gb=1, mb=1)
        except (KeyError, IndexError, ValueError):
            yield "scratch.option", "only {gb} and {mb} may be in braces; double any other brace"


def _templates(folder: Path, scheduler: str) -> str:
    """Return what is wrong with a folder of templates of which none would be used."""
    if not folder.is_dir():
        beside = [one.name for one in folder.parent.glob("*") if one.is_dir()]
        return f"no folder {str(folder)!r}{near(folder.name, beside)}"
    found = sorted(one.name for one in folder.glob("*.j2"))
    if not found:
        return f"no template (*.j2) in {str(folder)!r}"
    packages = ("hpcpipe.templates", find_adapter(scheduler).package)
    shipped = {one.name for package in packages for one in files(package).iterdir()}
    used = sorted(name for name in shipped if name.endswith(".sh.j2"))
    if any(name in used for name in found):
        return ""
    return f"{found[0]!r} in {str(folder)!r} replaces no template{near(found[0], used)}"


def _queues(site: Site) -> Iterator[tuple[str, str]]:
    names = [queue.name for queue in site.queues]
    defaults = [index for index, queue in enumerate(site.queues) if queue.default]
    for index, queue in enumerate(site.queues):
        at = f"queues[{index}]"
        if queue.name in names[:index]:
            yield f"{at}.name", f"a second queue named {queue.name!r}"
        if index in defaults[1:]:
            yield f"{at}.default", "another queue already is the default"
        for what in _PAIRS:
            least, most = getattr(queue, f"min_{what}"), getattr(queue, f"max_{what}")
            if least and most is not None and least > most:
                yield f"{at}.min_{what}", f"is more than max_{what}, so nothing fits"
        for step in queue.steps:
            if step.nodes is None and step.cpus is None:
                yield f"{at}.steps", "each step needs nodes or cpus, up to which it applies"
        for account in queue.accounts:
            if site.accounts and account not in site.accounts:
                hint = near(account, site.accounts)
                yield f"{at}.accounts", f"no account is named {account!r}{hint}"
