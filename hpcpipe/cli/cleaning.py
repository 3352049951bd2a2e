"""The command that deletes what earlier runs left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hpcpipe.cli import run_option
from hpcpipe.errors import HpcpipeError, UsageError
from hpcpipe.quantities import counted, format_bytes, parse_time
from hpcpipe.store.leftovers import FOLDERS
from hpcpipe.store.recent import find_run, known_runs, suggested
from hpcpipe.store.rundir import RunDir
from hpcpipe.views.text import show

if TYPE_CHECKING:
    from hpcpipe.submit.clean import Leftovers


@click.command()
@click.option(
    "--older",
    default="30d",
    show_default=True,
    metavar="TIME",
    help="Only what runs left whose last submission is that long ago.",
)
@click.option("--folders", is_flag=True, help="Also the working folders of their tasks.")
@click.option("--all", "every", is_flag=True, help="In all runs that are known; see hpcpipe runs.")
@click.option("--yes", is_flag=True, help="Delete it. Without this, it is only counted.")
@run_option
def clean(older: str, folders: bool, every: bool, yes: bool, run_folder: str | None) -> None:
    """Delete what earlier runs of a workflow left and nothing uses any more.

    That is: results, logs, scripts and plans of which the latest run has nothing, nor one that is
    younger than --older, or has tasks that may still run. Deletes nothing without --yes.
    """
    if every and run_folder:
        raise UsageError("--all is about all runs: leave out --run")
    seconds = parse_time(older)
    for folder in known_runs() if every else [find_run(run_folder)]:
        if every:
            show(f"{folder}:")
        try:
            for line in _clean(RunDir(folder), older, seconds, folders=folders, yes=yes):
                show(line)
        except HpcpipeError as error:
            if not every:
                raise
            show(f"hpcpipe: {error}", err=True)


def _clean(
    rundir: RunDir, older: str, seconds: float, *, folders: bool, yes: bool
) -> Iterator[str]:
    from hpcpipe.submit.clean import clean, look

    done = clean(rundir, seconds, folders=folders) if yes else look(rundir, seconds)
    yield from _lines(done, older, folders=folders)
    left = [one for kind, some in done.found.items() if folders or kind != FOLDERS for one in some]
    if yes:
        yield f"Deleted: {counted(sum(one.files for one in left), 'file')}."
    elif left:
        words = ["clean", "--yes", "--folders" * folders, f"--older {older}" * (older != "30d")]
        yield f"Nothing was deleted. To delete them: {suggested(rundir.folder, *words)}"


def _lines(done: Leftovers, older: str, *, folders: bool) -> Iterator[str]:
    """Yield what was found: files and bytes, by kind."""
    if done.busy:
        runs = ", ".join(map(str, done.busy))
        yield f"Kept, as tasks of them are in a queue or their state is unknown: run {runs}"
    if not any(done.found.values()):
        yield f"Nothing is left that only runs older than {older} have."
        return
    yield f"Of runs older than {older}, and used by no other:"
    for kind, some in done.found.items():
        files, size = sum(one.files for one in some), sum(one.bytes for one in some)
        kept = "   kept; add --folders" if kind == FOLDERS and not folders else ""
        if some:
            yield f"  {kind:<22}  {counted(files, 'file'):>13}  {format_bytes(size):>8}{kept}"
