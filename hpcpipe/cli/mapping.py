"""``hpcpipe map``: the one-liner."""

from __future__ import annotations

import shlex
from typing import Any

import click

from hpcpipe.cli import asked, budget_option, resource_options, site_option
from hpcpipe.model import Resources


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND ::: INPUTS...")
@click.option("--lines", metavar="FILE|-", help="Every line of FILE is a whole command, for sh.")
@click.option("--header", is_flag=True, help="Inputs begin with their name; :::: FILE is a table.")
@click.option("--bids", metavar="DIR", help="{subject}, {session}: those of a BIDS data set.")
@click.option("--name", metavar="NAME", help="Name of the run. Default: the command's.")
@click.option("--base-dir", default="hpcpipe_runs", show_default=True, help="Where runs lie.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted, and the scripts.")
@click.option("--wait", is_flag=True, help="Wait for the end; leave with 10 if a task failed.")
@site_option
@budget_option
@resource_options
def map(  # the verb's name; the builtin is not needed here
    words: tuple[str, ...],
    lines: str | None,
    header: bool,
    bids: str | None,
    name: str | None,
    base_dir: str,
    dry_run: bool,
    wait: bool,
    site: str | None,
    over_budget: bool,
    **resources: Any,
) -> None:
    """Run one command over many inputs, as an array.

    Speaks GNU parallel's words: {} {.} {/} {//} {/.} {1} {2.} stand for an input and its parts;
    ::: begins inputs, :::: files of inputs, several make a product, :::+ goes along with the one
    before. The same command again runs only what is missing.

      hpcpipe map --time 10m -- gzip -k {} ::: *.nii
    """
    from hpcpipe.cli.sending import send
    from hpcpipe.mapping import first_and_last, map_workflow

    texts: dict[str, str] = {}
    said = {key: value for key, value in resources.items() if value is not None}
    asked(said)
    options: dict[str, Any] = {
        "words": list(words), "lines": lines, "header": header, "bids": bids,
        "name": name,
        "base_dir": base_dir, "resources": said, "texts": texts,
    }  # fmt: skip
    workflow = map_workflow(**options)
    (node,) = workflow.nodes.values()
    count = "1 task" if node.size == 1 else f"{node.size} tasks"
    click.echo(f"{count}, each {node.resources}")
    for word, command in zip(("first", "last"), first_and_last(workflow), strict=False):
        click.echo(f"  {word:<5}  {shlex.join(command)}")
    if dry_run:
        _print_plan(workflow, site)
        return
    run = send(workflow, site, Resources(), {"map": options}, over_budget=over_budget)
    if wait:
        run.wait(show=True)


def _print_plan(workflow: Any, site: str | None) -> None:
    from hpcpipe.draft import draft
    from hpcpipe.planning import plan_lines
    from hpcpipe.site.load import load_site

    loaded = load_site(site)
    drafted = draft(workflow, loaded.site)
    for line in plan_lines(drafted, loaded.why):
        click.echo(line)
    for prepared in drafted.prepared:
        click.echo(f"\n# --- {prepared.id}.sh\n{prepared.script}")
