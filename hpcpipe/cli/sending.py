"""The verbs that hand work to the scheduler, or take it back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcpipe.cli import asked, budget_option, resource_options, run_option, site_option
from hpcpipe.model import Resources

if TYPE_CHECKING:
    from hpcpipe.draft import Draft
    from hpcpipe.run import Run
    from hpcpipe.workflow import Workflow


@click.command()
@click.argument("workflow", metavar="FILE[:NAME]")
@site_option
@budget_option
@resource_options
def submit(workflow: str, site: str | None, over_budget: bool, **resources: Any) -> None:
    """Submit everything of a workflow that is not done, and return.

    FILE defines one Workflow, or NAME says which. Options are laid over what its tasks ask for.
    """
    from hpcpipe.loading import load_workflow

    source = {"file": _source(workflow)}
    send(load_workflow(workflow), site, asked(resources), source, over_budget=over_budget)


@click.command()
@click.argument("workflow", metavar="FILE[:NAME]")
@site_option
@budget_option
@resource_options
def run(workflow: str, site: str | None, over_budget: bool, **resources: Any) -> None:
    """Submit, show progress, and leave with 0 if all went well.

    Interrupting it stops only the showing: the tasks go on.
    """
    from hpcpipe.loading import load_workflow

    source = {"file": _source(workflow)}
    made = send(load_workflow(workflow), site, asked(resources), source, over_budget=over_budget)
    made.wait(show=True)


def _source(workflow: str) -> str:
    file, colon, name = workflow.partition(":")
    return str(Path(file).resolve()) + colon + name


def send(
    workflow: Workflow,
    site: str | None,
    resources: Resources,
    source: Mapping[str, Any],
    *,
    over_budget: bool,
) -> Run:
    """Submit a workflow and say what was submitted, in how many calls, and what to type next."""
    from hpcpipe.run import submit_with_draft
    from hpcpipe.site.load import load_site

    loaded = load_site(site)
    made, draft = submit_with_draft(
        workflow, site=loaded, resources=resources, source=source, over_budget=over_budget
    )
    say_submitted(draft, loaded.why)
    return made


def say_submitted(draft: Draft, site_why: str) -> None:
    """Say back what a submission came to."""
    from hpcpipe.planning import submitted_lines

    for line in submitted_lines(draft, site_why):
        click.echo(line)


@click.command()
@click.argument("workflow", metavar="FILE[:NAME]")
@click.option("--scripts", is_flag=True, help="Print the scripts, as they would be submitted.")
@click.option("--why", is_flag=True, help="Say of every other queue why not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--simulate",
    "cores",
    type=click.IntRange(1),
    metavar="CORES",
    help="Also predict how long it takes on so many cores.",
)
@click.option(
    "--draw",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the batches into FILE.svg or FILE.html.",
)
@site_option
@resource_options
def plan(
    workflow: str,
    scripts: bool,
    why: bool,
    as_json: bool,
    cores: int | None,
    draw: Path | None,
    site: str | None,
    **resources: Any,
) -> None:
    """Print what would be submitted, and why the rest would not. Submits nothing."""
    from hpcpipe.draft import draft
    from hpcpipe.loading import load_workflow
    from hpcpipe.planning import plan_json, plan_lines
    from hpcpipe.site.load import load_site

    loaded = load_site(site)
    drafted = draft(load_workflow(workflow), loaded.site, resources=asked(resources))
    if draw:
        from hpcpipe.drawing import write_drawing

        write_drawing(drafted, draw, list(plan_lines(drafted, loaded.why, cores)))
    if as_json:
        click.echo(json.dumps(plan_json(drafted, cores), indent=1))
        return
    for line in plan_lines(drafted, loaded.why, cores, others=why):
        click.echo(line)
    for prepared in drafted.prepared if scripts else ():
        click.echo(f"\n# --- {prepared.id}.sh")
        click.echo(prepared.script)


@click.command()
@run_option
@site_option
@budget_option
@resource_options
def retry(run_folder: str | None, site: str | None, over_budget: bool, **resources: Any) -> None:
    """Submit again what failed, with more of what it ran out of.

    The workflow's file is read again, so that a mended function is the one that runs. A task that
    ran out of memory or time asks for twice as much, or for what the options say.
    """
    from hpcpipe.loading import load_source
    from hpcpipe.retry import raised_resources
    from hpcpipe.run import Run, find_run, submit_with_draft
    from hpcpipe.site.load import load_site

    before = Run(find_run(run_folder)).record
    loaded = load_site(site or before.site)
    _, draft = submit_with_draft(
        load_source(before),
        site=loaded,
        resources=asked(resources),
        source=before.source,
        raise_for=lambda rundir: raised_resources(rundir, loaded.site),
        over_budget=over_budget,
    )
    say_submitted(draft, loaded.why if site else "the site of the run before")


@click.command()
@click.argument("tasks", nargs=-1, metavar="[NODE[/LABEL]]...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@run_option
def cancel(tasks: tuple[str, ...], yes: bool, run_folder: str | None) -> None:
    """Cancel a run, or some of its tasks.

    Tasks that depend on a cancelled one can no longer run; hpcpipe retry submits them again.
    """
    from hpcpipe.cancel import cancel
    from hpcpipe.run import Run, find_run

    run = Run(find_run(run_folder))
    what = " ".join(tasks) or "the whole run"
    if sys.stdin.isatty() and not yes:
        click.confirm(f"Cancel {what} of {run.rundir.folder}?", abort=True)
    count, along = cancel(run.rundir, tasks)
    if not count:
        click.echo("Nothing was queued or running.")
        return
    click.echo(f"{count} task{'s' * (count > 1)} cancelled.")
    if along:
        some = ", ".join(along[:5]) + ", …" * (len(along) > 5)
        click.echo(f"{len(along)} of them only as it shared an element: {some}")
    click.echo("Again: hpcpipe retry")
