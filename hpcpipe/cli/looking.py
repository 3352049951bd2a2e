"""The commands that show a run. They import little, because they are used often."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from hpcpipe.cli import completes, run_option
from hpcpipe.errors import ResultError, TasksFailed, UsageError
from hpcpipe.run import Run
from hpcpipe.store.recent import find_run, suggested
from hpcpipe.views.text import redraws, screen_size, show

if TYPE_CHECKING:
    from hpcpipe.status.logs import Log


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fresh", is_flag=True, help="Ask the scheduler even if its last answer is recent.")
@click.option("--all", "whole", is_flag=True, help="Show every node, however many lines it takes.")
@run_option
def status(as_json: bool, fresh: bool, whole: bool, run_folder: str | None) -> None:
    """Show the state of a run, what failed and why, and what to type next.

    Asks the scheduler at most once, only if files do not tell, and no more often than the site
    allows. Of more nodes than the screen has lines for, those that are done are one line.
    """
    from hpcpipe.status.left_out import find_left_out
    from hpcpipe.store.usage import measure
    from hpcpipe.views.status import report_json, status_lines

    run = Run(find_run(run_folder))
    report = run.report(fresh=fresh)
    left_out, usage = find_left_out(run.rundir), measure(run.rundir)
    if as_json:
        facts = report_json(report, lambda task: _log_name(run, task), left_out, usage)
        click.echo(json.dumps(facts, indent=1))
        return
    for line in status_lines(report, left_out, screen_size(), whole=whole, usage=usage):
        show(line)


@click.command()
@run_option
def watch(run_folder: str | None) -> None:
    """Follow a run until it has finished. Interrupting this command does not stop the run."""
    run = Run(find_run(run_folder))
    try:
        run.wait(show=True)
    except TasksFailed:
        _show_end(run)
        raise
    _show_end(run)


def _show_end(run: Run) -> None:
    """Print the status screen, unless it was on the screen all the time."""
    from hpcpipe.status.left_out import find_left_out
    from hpcpipe.views.status import status_lines

    if not redraws():
        for line in status_lines(run.report(), find_left_out(run.rundir), screen_size()):
            show(line)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--all", "every", is_flag=True, help="List all, not only the latest 20.")
def runs(as_json: bool, every: bool) -> None:
    """List the runs that are known here: those you submitted, and those in the folders below.

    Of each its state, when it was last submitted, and the folder that --run takes.
    """
    from hpcpipe.store.recent import known_runs
    from hpcpipe.views.runs import list_runs, runs_json, runs_lines

    folders = known_runs()
    chosen = folders if every else folders[:20]
    found = [*list_runs(chosen)]
    if as_json:
        click.echo(json.dumps(runs_json(found), indent=1))
        return
    if not found:
        show("No run is known here. Start one: hpcpipe submit FILE")
    for line in runs_lines(found, len(folders) - len(chosen)):
        show(line)


def _log_name(run: Run, task: Any) -> str | None:
    from hpcpipe.status.logs import log_of

    if task.place is None:
        return None
    batch, index = task.place.batch, task.place.array_index
    return str(log_of(run.rundir, batch, task.node, task.key, index).path)


@click.command()
@click.argument("name", metavar="NODE[/LABEL]", shell_complete=completes("task"))
@click.option("--key", is_flag=True, help="Show what is in a task's key: all that makes it rerun.")
@run_option
def explain(name: str, key: bool, run_folder: str | None) -> None:
    """Show all that is known about one task: error, end of the log, where it ran, what it used.

    For a node: which queue its tasks went to, why, and why not to each other queue.
    """
    from hpcpipe.views.explain import explain as lines_of
    from hpcpipe.views.keys import key_lines

    for line in (key_lines if key else lines_of)(Run(find_run(run_folder)).rundir, name):
        show(line)


@click.command()
@click.argument("task", metavar="NODE/LABEL", shell_complete=completes("task"))
@click.option("-n", "--lines", type=int, help="Print only the last N lines.", metavar="N")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the task has ended.")
@click.option("--path", "only_path", is_flag=True, help="Print the path of the log instead.")
@run_option
def logs(
    task: str, lines: int | None, follow: bool, only_path: bool, run_folder: str | None
) -> None:
    """Print a task's standard output and error.

    Byte by byte into a pipe or a file; on a terminal without escape codes, and of a progress bar
    only its last state.
    """
    from hpcpipe.views.explain import find_log

    run = Run(find_run(run_folder))
    log = find_log(run.rundir, task)
    if only_path:
        click.echo(log.path)
        return
    if not log.path.exists() and not follow:
        raise UsageError(f"{task}: no output yet")
    whole = b"".join(log.lines())
    text = whole if lines is None else b"".join(log.tail(lines))
    _print_log(text)
    if text and not text.endswith(b"\n"):
        click.echo()
    if follow:
        _follow(run, task, log, len(whole))


def _print_log(text: bytes) -> None:
    if sys.stdout.isatty():
        show(text.decode(errors="replace"), end="")
    else:
        click.echo(text, nl=False)


def _follow(run: Run, task: str, log: Log, at: int) -> None:
    """Print what is appended to a log until its task has ended."""
    ended = False
    while True:
        new = b"".join(log.lines(at))
        at += len(new)
        _print_log(new)
        if ended:
            return
        time.sleep(0.5)
        names = {t.name for t in run.report().tasks if t.state.live}
        ended = not any(node.task(index) in names for node, index in run.record.find(task))


@click.command()
@click.argument("name", metavar="NODE[/LABEL]", shell_complete=completes("task"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON; other values as their repr.")
@run_option
def results(name: str, as_json: bool, run_folder: str | None) -> None:
    """Print the return values of a node or a task.

    Unpickling runs code, so a result that another user could have written is refused.
    """
    run = Run(find_run(run_folder))
    record = run.record
    sys.path[:0] = [record.cwd]
    if name in record.nodes:
        values = run.results(name)
        if not values:
            status = suggested(run.rundir.folder, "status")
            raise ResultError(f"{name}: no task has succeeded yet; see {status}")
    else:
        node, index = record.one(name)
        values = {node.label(index): run.result(node.task(index))}
    if as_json:
        click.echo(json.dumps(values, default=_plain, indent=1))
        return
    for label, value in values.items():
        shown = os.fspath(value) if isinstance(value, os.PathLike) else repr(value)
        show(f"{label}\t{shown}" if label else shown)


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else repr(value)


@click.command()
@click.option("--yes", is_flag=True, help="The client is surely gone: do not ask.")
@run_option
def unlock(yes: bool, run_folder: str | None) -> None:
    """Break the lock of a client that is surely gone, having named it.

    Refused while the client is seen to run on this host. One on another host, or in a container,
    cannot be seen: say that it is gone, when asked or by --yes.
    """
    run = Run(find_run(run_folder))
    holder = run.rundir.holder()
    if not holder:
        click.echo("Not locked.")
        return
    show(f"Locked by {holder}.")
    if sys.stdin.isatty() and run.rundir.is_held() and not yes:
        yes = click.confirm("Is it surely gone?", abort=True)
    run.rundir.unlock(sure=yes)
    click.echo("Unlocked.")
