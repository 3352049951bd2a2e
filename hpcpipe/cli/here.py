"""``hpcpipe`` without a command: the site in use here, the last run, and what to type next."""

from __future__ import annotations

import os

from hpcpipe import __version__
from hpcpipe.errors import HpcpipeError, UsageError
from hpcpipe.quantities import format_memory, format_time
from hpcpipe.run import Run
from hpcpipe.site import Site
from hpcpipe.site.load import load_site
from hpcpipe.store.recent import find_run
from hpcpipe.views.text import show


def here() -> None:
    """Print the scheduler and site in use here, and the state of the last run."""
    try:
        loaded = load_site()
    except HpcpipeError as error:
        show(f"hpcpipe {__version__}   {os.uname().nodename}   site file: {error}")
    else:
        show(f"hpcpipe {__version__}   {os.uname().nodename}   {loaded.why}")
        _print_site(loaded.site)
    try:
        run = Run(find_run(None))
    except UsageError:
        show("Nothing submitted from this folder yet. Try")
        show("  hpcpipe map --time 10m -- gzip -k {} ::: *.nii    one command, many files")
        show("  hpcpipe submit workflow.py                        a workflow")
        show("  hpcpipe site show                                 the settings in use")
        show(
            "  hpcpipe site init                                 write a site file for this cluster"
        )
        return
    from hpcpipe.status.left_out import find_left_out
    from hpcpipe.views.status import status_lines

    for line in status_lines(run.report(), find_left_out(run.rundir)):
        show(line)


def _print_site(site: Site) -> None:
    queues = "  ".join(
        queue.name
        + ("*" if queue.default else "")
        + (f" {format_time(queue.max_time)}" if queue.max_time else "")
        for queue in site.queues
    )
    if queues:
        show(f"  queues    {queues}")
    if site.scheduler == "local":
        cpus = site.own.cpus or os.cpu_count()
        memory = f", {format_memory(site.own.memory)}" if site.own.memory else ""
        show(f"  uses      {cpus} cpus{memory} of this machine")
    else:
        show(f"  arrays    up to {site.limits.array_size} elements")
