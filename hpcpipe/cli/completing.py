"""``hpcpipe completion``: the shell's completion script, and what it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script, which also completes nodes, labels, runs and sites.

    For bash, in ~/.bashrc: eval "$(hpcpipe completion bash)"
    For zsh, in ~/.zshrc:   eval "$(hpcpipe completion zsh)"
    For fish:               hpcpipe completion fish > ~/.config/fish/completions/hpcpipe.fish
    """
    from hpcpipe.cli import hpcpipe

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(hpcpipe, {}, "hpcpipe", "_HPCPIPE_COMPLETE").source())


def offered(kind: str, params: Mapping[str, Any], start: str) -> list[CompletionItem[str]]:
    """Return what completes a word: names that begin like it, or else files.

    ``params`` are the options before it. Never raises: the shell would show it on the prompt.
    """
    files = {"file": "file", "run": "dir", "dir": "dir", "site": "file"}.get(kind)
    try:
        names = [*_NAMES[kind](params, start)] if kind in _NAMES else []
    except Exception:  # a damaged run or site file: there is nothing to offer
        names = []
    items = [CompletionItem(name) for name in names if name.startswith(start)]
    if kind == "run" and items:  # zsh takes back what was typed if a folder above them fits, too
        return items
    return [*([CompletionItem(start, files)] if files else []), *items]


def _tasks(params: Mapping[str, Any], start: str) -> Iterator[str]:
    """Yield the nodes of the run, and the tasks of the node that the word begins with."""
    from hpcpipe.store.recent import find_run
    from hpcpipe.store.record import latest_record
    from hpcpipe.store.rundir import RunDir

    nodes = latest_record(RunDir(find_run(params.get("run_folder")))).nodes
    yield from nodes
    named = [nodes[node] for node in [start.partition("/")[0]] if node in nodes]
    unnamed = [] if any(node.startswith(start) for node in nodes) else [*nodes.values()]
    for node in named:
        yield from (node.task(index) for index in range(len(node)) if node.axes)
    for node in () if named else unnamed:  # a label by itself, where it is unique
        yield from (node.label(index) for index in range(len(node)))


def _runs(_: Mapping[str, Any], start: str) -> Iterator[str]:
    import os

    from hpcpipe.store.recent import known_runs

    for folder in known_runs():
        yield str(folder) if start.startswith("/") else os.path.relpath(folder)


def _sites(*_: Any) -> Iterator[str]:
    from hpcpipe.site.file import Machine, known_sites

    yield from known_sites(Machine.here())


def _queues(params: Mapping[str, Any], _: str) -> Iterator[str]:
    from hpcpipe.site.load import load_site

    yield from (queue.name for queue in load_site(params.get("site")).site.queues)


def _accounts(params: Mapping[str, Any], _: str) -> Iterator[str]:
    from hpcpipe.site.load import load_site

    yield from load_site(params.get("site")).site.accounts


def _schedulers(*_: Any) -> Iterator[str]:
    from hpcpipe.schedulers import REGISTRY

    yield from REGISTRY


_NAMES: Mapping[str, Callable[[Mapping[str, Any], str], Iterable[str]]] = {
    "task": _tasks,
    "run": _runs,
    "site": _sites,
    "queue": _queues,
    "account": _accounts,
    "scheduler": _schedulers,
    "prefer": lambda *_: ("soonest", "cheapest"),
}
