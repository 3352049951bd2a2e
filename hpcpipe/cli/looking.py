"""The verbs that look at a run; light, since they are typed often."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from hpcpipe.cli import run_option
from hpcpipe.errors import ResultError, UsageError
from hpcpipe.run import Run, find_run

if TYPE_CHECKING:
    from hpcpipe.explaining import Log


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fresh", is_flag=True, help="Ask the scheduler even if its last answer is new.")
@run_option
def status(as_json: bool, fresh: bool, run_folder: str | None) -> None:
    """Tell how a run stands, what failed and why, and what to type next.

    The scheduler is asked once, if a file does not tell, and no more than the site allows.
    """
    from hpcpipe.show import report_json, status_lines

    run = Run(find_run(run_folder))
    report = run.report(fresh=fresh)
    if as_json:
        click.echo(json.dumps(report_json(report, lambda task: _log_name(run, task)), indent=1))
        return
    for line in status_lines(report):
        click.echo(line)


@click.command()
@run_option
def watch(run_folder: str | None) -> None:
    """Follow a run until it has ended. Interrupting it stops only the showing."""
    from hpcpipe.show import status_lines

    run = Run(find_run(run_folder))
    try:
        run.wait(show=True)
    finally:
        if not sys.stdout.isatty():
            for line in status_lines(run.report()):
                click.echo(line)


def _log_name(run: Run, task: Any) -> str | None:
    from hpcpipe.explaining import log_of

    if task.place is None:
        return None
    batch, index = task.place.batch, task.place.array_index
    return str(log_of(run.rundir, batch, task.node, task.key, index).path)


@click.command()
@click.argument("name", metavar="NODE[/LABEL]")
@run_option
def explain(name: str, run_folder: str | None) -> None:
    """Tell all that is known of one task: its error, its log's end, where it ran, what it used.

    Of a node: to which queue its tasks went, why there, and why not to each other queue.
    """
    from hpcpipe.explaining import explain as lines_of

    for line in lines_of(Run(find_run(run_folder)), name):
        click.echo(line)


@click.command()
@click.argument("task", metavar="NODE/LABEL")
@click.option("-n", "--lines", type=int, help="Only the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the task has ended.")
@click.option("--path", "only_path", is_flag=True, help="Print the file's name instead.")
@run_option
def logs(
    task: str, lines: int | None, follow: bool, only_path: bool, run_folder: str | None
) -> None:
    """Print what a task wrote to its standard output and error."""
    from hpcpipe.explaining import find_log

    run = Run(find_run(run_folder))
    log = find_log(run, task)
    if only_path:
        click.echo(log.path)
        return
    if not log.path.exists() and not follow:
        raise UsageError(f"{task}: has written nothing yet")
    whole = b"".join(log.lines())
    text = whole if lines is None else b"".join(log.tail(lines))
    click.echo(text.decode(errors="replace"), nl=bool(text) and not text.endswith(b"\n"))
    if follow:
        _follow(run, task, log, len(whole))


def _follow(run: Run, task: str, log: Log, at: int) -> None:
    """Print what is added to a log until its task is no longer live."""
    ended = False
    while True:
        new = b"".join(log.lines(at))
        at += len(new)
        click.echo(new.decode(errors="replace"), nl=False)
        if ended:
            return
        time.sleep(0.5)
        names = {t.name for t in run.report().tasks if t.state.live}
        ended = not any(node.task(index) in names for node, index in run.record.find(task))


@click.command()
@click.argument("name", metavar="NODE[/LABEL]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, where the values allow.")
@run_option
def results(name: str, as_json: bool, run_folder: str | None) -> None:
    """Print what a node or a task returned.

    Only results that nobody but you could have written are read: a pickle runs code.
    """
    run = Run(find_run(run_folder))
    record = run.record
    sys.path[:0] = [record.cwd]
    if name in record.nodes:
        values = run.results(name)
        if not values:
            raise ResultError(f"{name}: no good outcome yet; see hpcpipe status")
    else:
        node, index = record.one(name)
        values = {node.label(index): run.result(node.task(index))}
    if as_json:
        click.echo(json.dumps(values, default=_plain, indent=1))
        return
    for label, value in values.items():
        shown = os.fspath(value) if isinstance(value, os.PathLike) else repr(value)
        click.echo(f"{label}\t{shown}" if label else shown)


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else repr(value)


@click.command()
@run_option
def unlock(run_folder: str | None) -> None:
    """Break the lock of a client that is surely gone, having said whose it is."""
    run = Run(find_run(run_folder))
    holder = run.rundir.holder()
    if not holder:
        click.echo("Not locked.")
        return
    click.echo(f"Locked by {holder}.")
    if sys.stdin.isatty():
        click.confirm("Is it surely gone?", abort=True)
    run.rundir.lock_file.unlink(missing_ok=True)
    click.echo("Unlocked.")
