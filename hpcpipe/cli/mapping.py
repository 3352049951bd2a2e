"""``hpcpipe map``: one command over many inputs."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from hpcpipe.cli import (
    after_run_option,
    asked,
    calls_option,
    completes,
    consent_options,
    notify_option,
    resource_options,
    site_option,
)
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.quantities import counted
from hpcpipe.submit.options import Options
from hpcpipe.views.text import show


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="-- COMMAND ::: INPUTS...",
    shell_complete=completes("file"),
)
@click.option(
    "--lines",
    metavar="FILE|-",
    shell_complete=completes("file"),
    help="Each line of FILE is a command for bash.",
)
@click.option("--shell", metavar="SHELL", help="Another shell for --lines, such as sh.")
@click.option(
    "-a",
    "--arg-file",
    "files",
    multiple=True,
    metavar="FILE",
    help="As :::: FILE.",
    shell_complete=completes("file"),
)
@click.option("--link", is_flag=True, help="Pair the lists of inputs, as :::+ does.")
@click.option("-C", "--colsep", metavar="REGEX", help="Split each input into {1} {2} ... here.")
@click.option(
    "--header",
    is_flag=False,
    flag_value=":",
    metavar="[:]",
    help="Inputs start with a name; :::: FILE is a table.",
)
@click.option(
    "--bids",
    metavar="DIR",
    shell_complete=completes("dir"),
    help="Take {subject} and {session} from a BIDS data set.",
)
@click.option(
    "--makes", multiple=True, metavar="PATTERN",
    help="A file that each task must make, such as '{.}.png'. Repeatable.",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the run. Default: that of the command.")
@click.option(
    "--base-dir",
    default="hpcpipe_runs",
    show_default=True,
    shell_complete=completes("dir"),
    help="Folder of the runs.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be submitted.")
@click.option("--scripts", "--verbose", is_flag=True, help="With --dry-run: also the scripts.")
@click.option("--wait", is_flag=True, help="Wait for the run; exit with 10 if a task failed.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="As --throttle N.")
@site_option
@consent_options
@calls_option
@notify_option
@after_run_option
@resource_options
def map(  # named as the command; the builtin is not needed here
    words: tuple[str, ...],
    lines: str | None,
    shell: str | None,
    files: tuple[str, ...],
    link: bool,
    colsep: str | None,
    header: str | None,
    bids: str | None,
    makes: tuple[str, ...],
    name: str | None,
    base_dir: str,
    dry_run: bool,
    scripts: bool,
    wait: bool,
    jobs: int | None,
    site: str | None,
    over_budget: bool,
    replace: bool,
    calls: int | None,
    notify: str | None,
    after_run: str | None,
    **resources: Any,
) -> None:
    """Run one command over many inputs, as an array.

    The syntax is that of GNU parallel: {} {.} {/} {//} {/.} {1} {2.} stand for an input and its
    parts; ::: starts a list of inputs, :::: a list of files of inputs. Several lists form a
    product; :::+ pairs a list with the one before. Without any, the lines of standard input are
    the inputs. {#} is the number of the task. Repeating a command runs only what is missing.

      hpcpipe map --time 10m -- gzip -k {} ::: *.nii
    """
    from hpcpipe.cli.sending import send
    from hpcpipe.frontends.map import find_missing, first_and_last, map_workflow, uncounted
    from hpcpipe.submit.prepare import some

    texts: dict[str, str] = {}
    if header not in (None, ":"):  # a flag may stand right before the command
        words = (str(header), *words)
    if jobs is not None:
        resources["throttle"] = jobs
    said = {key: value for key, value in resources.items() if value is not None}
    asked(said)
    options: dict[str, Any] = {
        "words": list(words), "lines": lines, "shell": shell,
        "header": header is not None, "bids": bids,
        "files": files or _piped(words, lines, bids), "link": link, "colsep": colsep,
        "makes": list(makes), "name": name,
        "base_dir": base_dir, "resources": said, "texts": texts,
    }  # fmt: skip
    try:
        workflow = map_workflow(**options)
    except WorkflowError as error:  # here the command line is the workflow
        raise UsageError(str(error)) from error
    (node,) = workflow.nodes.values()
    show(f"{counted(node.size, 'task')}, each {node.resources}")
    for word, command in zip(("first", "last"), first_and_last(workflow), strict=False):
        show(f"  {word:<5}  {shlex.join(command)}")
    for note in uncounted(workflow):
        click.echo(f"  note   {note}")
    if missing := find_missing(workflow):
        click.echo(f"  note   no such file: {some(missing)}; a task that reads it will fail")
    how = Options(
        over_budget=over_budget, replace=replace, calls=calls, notify=notify, after_run=after_run
    )
    if dry_run:
        _print_plan(workflow, site, how, scripts=scripts)
        return
    run = send(workflow, site, how, {"map": options})
    if wait:
        run.wait(show=True)


def _piped(words: tuple[str, ...], lines: str | None, bids: str | None) -> tuple[str, ...]:
    """Name standard input, if nothing else has the inputs and it is not the keyboard."""
    from hpcpipe.frontends.parallel_syntax import MARKS

    elsewhere = not words or lines or bids or any(word in MARKS for word in words)
    return () if elsewhere or sys.stdin.isatty() else ("-",)


def _print_plan(workflow: Any, site: str | None, how: Options, *, scripts: bool) -> None:
    from hpcpipe.cli.sending import say_after
    from hpcpipe.site.load import load_site
    from hpcpipe.submit.prepare import draft
    from hpcpipe.views.plan import plan_lines

    loaded = load_site(site)
    drafted = draft(workflow, loaded.site, how)
    for line in plan_lines(drafted, loaded.why):
        show(line)
    say_after(drafted)
    if not scripts:
        show("--scripts prints the scripts, too.")
    for prepared in drafted.prepared if scripts else ():
        show(f"\n# --- {prepared.id}.sh\n{prepared.script}")
