"""This machine, as the local scheduler sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found

if TYPE_CHECKING:
    from hpcpipe.site import Site


class Probe:
    """Counts what there is."""

    name: ClassVar[str] = "local"
    from_node: ClassVar[tuple[str, ...]] = ()

    def look(self, run: Run) -> Found:
        import psutil

        del run
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        memory = psutil.virtual_memory().total // 2**20
        settings = {"local": {"cpus": cpus or 1, "memory": f"{memory}M"}}
        remarks = {"local.cpus": "all there are", "local.memory": "all there is"}
        return Found("local", "", settings, remarks, sources=("this machine",))

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        del site
        local = found.settings["local"]
        yield Finding("machine", "ok", f"{local['cpus']} cpus, {local['memory']} of memory")
