"""The commands that submit work to the scheduler or cancel it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcpipe.cli import (
    after_run_option,
    asked,
    calls_option,
    completes,
    consent_options,
    notify_option,
    resource_options,
    run_option,
    site_option,
)
from hpcpipe.errors import ResultError, UsageError
from hpcpipe.submit.options import Options
from hpcpipe.views.text import show

if TYPE_CHECKING:
    from hpcpipe.graph.workflow import Workflow
    from hpcpipe.run import Run
    from hpcpipe.site.load import Loaded
    from hpcpipe.submit.prepare import Draft


def workflow_arguments(function: Any) -> Any:
    """Add the workflow's file, and the arguments that are its own."""
    function = click.argument(
        "arguments", nargs=-1, metavar="[ARGUMENTS]...", shell_complete=completes("file")
    )(function)
    return click.argument("workflow", metavar="FILE[:NAME]", shell_complete=completes("file"))(
        function
    )


@click.command()
@workflow_arguments
@site_option
@consent_options
@calls_option
@notify_option
@after_run_option
@resource_options
def submit(**given: Any) -> None:
    """Submit the tasks of a workflow that still need to run, and return.

    FILE defines one Workflow, or NAME selects one. ARGUMENTS are passed to the file; put -- before
    any that begin with a dash. Options override the resources of its tasks.
    """
    _send_file(**given)


@click.command()
@workflow_arguments
@site_option
@consent_options
@calls_option
@notify_option
@after_run_option
@resource_options
def run(**given: Any) -> None:
    """Submit, show progress, and exit with 0 if all tasks succeed.

    Interrupting this command does not stop the tasks.
    """
    _send_file(**given).wait(show=True)


def _send_file(
    workflow: str,
    arguments: tuple[str, ...],
    site: str | None,
    over_budget: bool,
    replace: bool,
    calls: int | None,
    notify: str | None,
    after_run: str | None,
    **resources: Any,
) -> Run:
    from hpcpipe.frontends.load import load_workflow
    from hpcpipe.run import file_source

    source = file_source(workflow, arguments)
    options = Options(asked(resources), over_budget, replace, calls, notify, after_run)
    return send(load_workflow(workflow, arguments), site, options, source)


def send(workflow: Workflow, site: str | None, options: Options, source: Mapping[str, Any]) -> Run:
    """Submit a workflow, and print what was submitted and what to type next."""
    from hpcpipe.run import submit_with_draft
    from hpcpipe.site.load import load_site

    loaded = load_site(site)
    made, draft = submit_with_draft(workflow, options, site=loaded, source=source)
    say_submitted(draft, loaded.why)
    return made


def say_submitted(draft: Draft, site_why: str) -> None:
    """Print what was submitted."""
    from hpcpipe.views.plan import submitted_lines

    for line in submitted_lines(draft, site_why):
        show(line)


@click.command()
@workflow_arguments
@click.option("--scripts", is_flag=True, help="Also print the scripts.")
@click.option("--why", is_flag=True, help="Also show why each other queue was not chosen.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--simulate",
    "cores",
    type=click.IntRange(1),
    metavar="CORES",
    help="Also predict how long it takes on CORES cores.",
)
@click.option(
    "--draw",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the batches into FILE.svg or FILE.html.",
)
@site_option
@calls_option
@after_run_option
@resource_options
def plan(
    workflow: str,
    arguments: tuple[str, ...],
    scripts: bool,
    why: bool,
    as_json: bool,
    cores: int | None,
    draw: Path | None,
    site: str | None,
    calls: int | None,
    after_run: str | None,
    **resources: Any,
) -> None:
    """Show what would be submitted, and why the rest would not. Submits nothing."""
    from hpcpipe.frontends.load import load_workflow
    from hpcpipe.site.load import load_site
    from hpcpipe.submit.prepare import draft
    from hpcpipe.views.plan import plan_json, plan_lines

    loaded = load_site(site)
    made = load_workflow(workflow, arguments)
    options = Options(asked(resources), calls=calls, after_run=after_run)
    drafted = draft(made, loaded.site, options)
    if draw:
        from hpcpipe.views.plan_svg import write_drawing

        write_drawing(drafted, draw, list(plan_lines(drafted, loaded.why, cores)))
    if as_json:
        ids = {task: str(vertex) for vertex, task in made.tasks.items()}
        click.echo(json.dumps({**plan_json(drafted, cores), "ids": ids}, indent=1))
        return
    for line in plan_lines(drafted, loaded.why, cores, others=why):
        show(line)
    say_after(drafted)
    for prepared in drafted.prepared if scripts else ():
        show(f"\n# --- {prepared.id}.sh")
        show(prepared.script)


def say_after(drafted: Draft) -> None:
    """Print what a plan is to wait for."""
    from hpcpipe.after_run import after_words

    if drafted.options.after_run:
        show(after_words(drafted))


@click.command()
@click.argument("tasks", nargs=-1, metavar="[NODE[/LABEL]]...", shell_complete=completes("task"))
@click.option("--force", is_flag=True, help="Run the named tasks even if they succeeded.")
@run_option
@click.option(
    "--reload",
    "file",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    shell_complete=completes("file"),
    help="Read the workflow's file again, with its arguments, instead of the plan on disk.",
)
@site_option
@consent_options
@calls_option
@notify_option
@resource_options
def retry(
    tasks: tuple[str, ...],
    force: bool,
    run_folder: str | None,
    file: str | None,
    site: str | None,
    over_budget: bool,
    replace: bool,
    calls: int | None,
    notify: str | None,
    **resources: Any,
) -> None:
    """Submit again what failed, with more of what it ran out of: all, or the named tasks only.

    Runs what was submitted before, so the workflow's file is not needed; after a change to it, use
    --reload. A task that ran out of memory or time requests twice as much, or what the options say.
    """
    from hpcpipe.run import Run, has_changed
    from hpcpipe.run import retry as again
    from hpcpipe.site.load import load_site
    from hpcpipe.status.left_out import find_left_out
    from hpcpipe.store.recent import find_run
    from hpcpipe.views.status import left_out_lines

    run = Run(find_run(run_folder))
    if not site and os.path.isabs(run.record.site) and not os.path.exists(run.record.site):
        raise UsageError(f"{run.record.site}: the site file of this run is gone; add --site NAME")
    loaded = load_site(site or run.record.site)
    if file is None and has_changed(source := run.record.source):
        show(f"{source['file']} has changed since. To run it as it is now, add --reload")
    options = Options(asked(resources), over_budget, replace, calls, notify)
    if file is None:
        _, draft = again(run.rundir.folder, options, site=loaded, tasks=tasks, force=force)
    elif tasks or force:
        raise UsageError("--reload plans all tasks again: name none, and leave out --force")
    else:
        draft = _reload(run, file, loaded, options)
    say_submitted(draft, loaded.why if site else "the site of the run before")
    for line in left_out_lines(find_left_out(run.rundir)):
        show(line)


def _reload(run: Run, file: str, site: Loaded, options: Options) -> Draft:
    """Plan again from the workflow's file, and submit."""
    from hpcpipe.frontends.load import load_source
    from hpcpipe.run import file_source, submit_with_draft

    record = run.record
    source = record.source
    path = source.get("file", "").partition(":")[0]
    if path and not file and not os.path.exists(path):
        raise UsageError(f"{path}: the file of this run is gone; name it: --reload FILE")
    if "file" in source or file:
        source = {**source, **file_source(file or source["file"], source.get("arguments", ()))}
    return submit_with_draft(
        load_source(record, file, run.rundir.folder),
        options,
        site=site,
        kept=record.resources,
        source=source,
    )[1]


@click.command()
@click.argument("tasks", nargs=-1, metavar="[NODE[/LABEL]]...", shell_complete=completes("task"))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@run_option
def cancel(tasks: tuple[str, ...], yes: bool, run_folder: str | None) -> None:
    """Cancel a run, or some of its tasks.

    Tasks that depend on a cancelled one cannot run; hpcpipe retry submits them again.
    """
    from hpcpipe.run import Run
    from hpcpipe.store import recent
    from hpcpipe.store.record import PLAN_AGAIN, latest_record
    from hpcpipe.submit.cancel import cancel

    run = Run(recent.find_run(run_folder))
    what = " ".join(tasks) or "the whole run"
    if sys.stdin.isatty() and not yes:
        click.confirm(f"Cancel {what} of {run.rundir.folder}?", abort=True)
    count, along = cancel(run.rundir, tasks)
    if not count:
        show("Nothing was queued or running.")
        return
    show(f"{count} task{'s' * (count > 1)} cancelled.")
    if along:
        some = ", ".join(along[:5]) + ", …" * (len(along) > 5)
        show(f"{len(along)} of them because they share a job with others: {some}")
    try:
        latest_record(run.rundir)
        show(f"To run them again: {recent.suggested(run.rundir.folder, 'retry')}")
    except ResultError:  # what was planned is lost: no retry is possible
        show(PLAN_AGAIN)
