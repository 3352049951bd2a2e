"""Write a site file for this cluster: what a probe found, as commented TOML that works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from hpcpipe.errors import ConfigError, UsageError
from hpcpipe.schedulers.probe import Found
from hpcpipe.site.show import bare, toml

_REMARK = 34  # column of the remarks
_QUEUE_HINTS = """\
# What more a queue can say (hpcpipe site schema has all of it):
#   only_asked = true        only tasks that name it get here
#   options = ["--qos=long"] more options for its jobs
#   wait = "2h"              how long jobs usually wait, for --prefer soonest
#   cost = { rate = 1.5 }    what a core-hour is charged, for --prefer cheapest
"""
_MORE = """\
# Software, for tasks that say software = ["fsl>=6"]: set up in their scripts, known by its version.
#
# [software.fsl]
# version = "6.0.7"
# setup = ["module load fsl/6.0.7"]

# What one submission may cost an account at worst.
#
# [accounts.lab]
# budget = 5000
"""


def write_site(found: Found, host: str, today: date) -> str:
    """Write what was found as a site file."""
    return "\n".join(_lines(found, host, today)) + "\n"


def _lines(found: Found, host: str, today: date) -> Iterator[str]:
    version = f" {found.version}" if found.version else ""
    yield f"# Written by `hpcpipe site init` on {host}: what {found.scheduler}{version} said there."
    yield "# `hpcpipe site doctor` holds it against the cluster; `hpcpipe site show` prints all."
    yield ""
    yield f"extends = {toml(found.scheduler)}"
    yield f"description = {toml(f'The cluster of {host}')}"
    yield f"hosts = [{toml(host)}]"
    yield f"as_of = {today.isoformat()}"
    yield f"sources = {toml(list(found.sources))}"
    for name, table in found.settings.items():
        if isinstance(table, Mapping):
            yield ""
            yield f"[{name}]"
            for key, value in table.items():
                yield _setting(key, value, found.remarks.get(f"{name}.{key}", ""))
    if queues := found.settings.get("queues"):
        yield ""
        yield from _QUEUE_HINTS.splitlines()
        for queue in queues:
            yield ""
            yield "[[queues]]"
            for key, value in queue.items():
                yield _setting(key, value, "")
    yield ""
    yield from _MORE.splitlines()


def _setting(key: str, value: Any, remark: str) -> str:
    said = f"{bare(key)} = {toml(value)}"
    return f"{said:{_REMARK}}# {remark}" if remark else said


def save_new(file: Path, text: str) -> None:
    """Write a file that must not be there yet."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UsageError(
            f"{file} is there already, and is not overwritten; name another file, or - to print"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
