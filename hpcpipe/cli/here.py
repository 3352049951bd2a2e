"""Bare ``hpcpipe``: where you are, and what to type."""

from __future__ import annotations

import os

import click

from hpcpipe import __version__
from hpcpipe.errors import HpcpipeError, UsageError
from hpcpipe.model import format_memory, format_time
from hpcpipe.run import Run, find_run
from hpcpipe.site import Site
from hpcpipe.site.load import load_site


def here() -> None:
    """Say which scheduler and site count here, and how the last run stands."""
    try:
        loaded = load_site()
    except HpcpipeError as error:
        click.echo(f"hpcpipe {__version__}   {os.uname().nodename}   site file: {error}")
    else:
        click.echo(f"hpcpipe {__version__}   {os.uname().nodename}   {loaded.why}")
        _say_site(loaded.site)
    try:
        run = Run(find_run(None))
    except UsageError:
        click.echo("Nothing submitted from this folder yet. Try")
        click.echo("  hpcpipe map --time 10m -- gzip -k {} ::: *.nii    one command, many files")
        click.echo("  hpcpipe submit workflow.py                        a workflow")
        click.echo("  hpcpipe site show                                 the settings that count")
        click.echo(
            "  hpcpipe site init                                 write what the cluster says"
        )
        return
    from hpcpipe.show import status_lines

    for line in status_lines(run.report()):
        click.echo(line)


def _say_site(site: Site) -> None:
    queues = "  ".join(
        queue.name
        + ("*" if queue.default else "")
        + (f" {format_time(queue.max_time)}" if queue.max_time else "")
        for queue in site.queues
    )
    if queues:
        click.echo(f"  queues    {queues}")
    if site.scheduler == "local":
        cpus = site.local.cpus or os.cpu_count()
        memory = f", {format_memory(site.local.memory)}" if site.local.memory else ""
        click.echo(f"  uses      {cpus} cpus{memory} of this machine")
    else:
        click.echo(f"  arrays    up to {site.limits.array_size} elements")
