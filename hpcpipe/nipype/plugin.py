"""The plugin for nipype's ``Workflow.run``: the whole graph goes to the scheduler at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nipype import logging
from nipype.pipeline.plugins.base import PluginBase
from nipype.utils.misc import str2bool

from hpcpipe.errors import WorkflowError
from hpcpipe.model import Resources
from hpcpipe.nipype.following import follow
from hpcpipe.nipype.taking import convert
from hpcpipe.run import submit_with_draft

if TYPE_CHECKING:
    import networkx

    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded
    from hpcpipe.workflow import Workflow

logger = logging.getLogger("nipype.workflow")

_RESOURCES = Resources._fields
_OURS = {"site", "wait", "status_callback", "map_procs", "sbatch_args", *_RESOURCES}
# What MultiProc takes, and programs pass whatever the plugin is.
_LIMITS = {"n_procs", "memory_gb", "n_gpu_procs", "raise_insufficient"}


class Plugin(PluginBase):  # type: ignore[misc]
    """Runs nipype's workflows by hpcpipe: ``wf.run(plugin=Plugin(site="…"))``.

    ``site`` is a site's name or file (default: the one that counts here). With ``wait=False`` it
    returns when all is handed over. Anything else is for all nodes that do not say it themselves:
    ``time``, ``memory``, ``cpus``, ``queue``, ``account``, and ``map_procs``, how many sub-nodes of
    a MapNode run at a time where they share an element. ``plugin_args`` may say all this, too.
    """

    def __init__(
        self,
        plugin_args: Mapping[str, Any] | None = None,
        *,
        site: str | Site | Loaded | None = None,
        wait: bool | None = None,
        **usual: Any,
    ) -> None:
        super().__init__({**(plugin_args or {}), **usual})
        self.site = site if site is not None else self.plugin_args.get("site")
        self.wait = wait if wait is not None else bool(self.plugin_args.get("wait", True))
        if odd := self.plugin_args.keys() - _OURS - _LIMITS:
            logger.info("hpcpipe: plugin_args it has no use for: %s", ", ".join(sorted(odd)))

    def run(
        self, graph: networkx.DiGraph, config: Mapping[str, Any], updatehash: bool = False
    ) -> None:
        """Submit all that nipype's hashes say must run, and wait for its end if told to.

        Raises WorkflowError for what cannot be read, SchedulerError, LockHeld, and after waiting
        the first node's own error.
        """
        if not len(graph):
            return
        self._check_limits(graph)
        self._check_end(config)
        workflow = convert(graph, config, updatehash=updatehash, usual=self.plugin_args)
        run, draft = submit_with_draft(workflow, site=self.site, source=self._source(workflow))
        calls = draft.calls
        logger.info(
            "hpcpipe: %s",
            f"submitted in {calls} calls: {' '.join(draft.jobs())}; see hpcpipe "
            f"status --run {run.rundir.folder}"
            if calls
            else "nothing to submit",
        )
        if self.wait:
            stop_first = str2bool(config["execution"]["stop_on_first_crash"])
            follow(run, graph, workflow.units, self._status_callback, stop_first)

    def _source(self, workflow: Workflow) -> dict[str, Any]:
        """Say where the workflow can be read again, and what it was run with, for `retry`."""
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        plain = {
            name: value
            for name, value in self.plugin_args.items()
            if isinstance(value, str | int | float)
        }
        where = {"file": os.path.abspath(file), "name": workflow.name} if file else {}
        return {**where, "nipype": plain}

    def _check_limits(self, graph: networkx.DiGraph) -> None:
        """Raise RuntimeError, as MultiProc does, for a node above what ``plugin_args`` allow."""
        if not self.plugin_args.get("raise_insufficient", True):
            return
        most = {name: self.plugin_args.get(name) for name in _LIMITS}
        for node in graph:
            needs = {
                "n_procs": node.n_procs,
                "memory_gb": node.mem_gb,
                "n_gpu_procs": node.n_procs if node.is_gpu_node() else 0,
            }
            for name, need in needs.items():
                limit = most[name]
                if limit is not None and need > limit:
                    raise RuntimeError(
                        f"Insufficient resources available for job: {node.fullname} wants "
                        f"{need} of {name}, and plugin_args allow {limit}"
                    )

    def _check_end(self, config: Mapping[str, Any]) -> None:
        """Raise WorkflowError where nipype wants all results at the end, and nobody waits."""
        if self.wait:
            return
        if str2bool(config["execution"]["write_provenance"]):
            raise WorkflowError(
                "write_provenance needs all results: leave out wait=False, or set it to false"
            )


def register() -> None:
    """Let nipype find the plugin by its name: ``wf.run(plugin="hpcpipe")``."""
    from nipype.pipeline import plugins

    plugins.hpcpipePlugin = Plugin
