"""The plugin for nipype's ``Workflow.run``: submit the whole graph to the scheduler at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nipype import logging
from nipype.pipeline.plugins.base import PluginBase
from nipype.utils.misc import str2bool

from hpcpipe.errors import WorkflowError
from hpcpipe.nipype.capture import convert
from hpcpipe.nipype.wait import follow
from hpcpipe.resources import Resources
from hpcpipe.run import file_source, submit_with_draft

if TYPE_CHECKING:
    import networkx

    from hpcpipe.graph.workflow import Workflow
    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded

logger = logging.getLogger("nipype.workflow")

_RESOURCES = Resources._fields
_OURS = {"site", "wait", "status_callback", "map_procs", "map_tasks", "sbatch_args", *_RESOURCES}
# Arguments of MultiProc, which programs pass to any plugin.
_LIMITS = {"n_procs", "memory_gb", "n_gpu_procs", "raise_insufficient"}


class Plugin(PluginBase):  # type: ignore[misc]
    """A plugin that runs nipype workflows with hpcpipe: ``wf.run(plugin=Plugin(site="…"))``.

    ``site`` is a site's name or file (default: the one in use here). With ``wait=False`` it returns
    once everything is submitted. Further arguments are defaults for all nodes: ``time``,
    ``memory``, ``cpus``, ``queue``, ``account``, and ``map_procs``, the number of sub-nodes of a
    MapNode that run in parallel if they share an element; with ``map_tasks=True``, each is a task,
    even if only a node upstream knows how many there are. ``plugin_args`` may set all of these too.
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
        """Submit all nodes that must run according to nipype's hashes; wait for them if requested.

        Raises WorkflowError for arguments that cannot be read, SchedulerError, LockHeld, and after
        waiting the first node's own error.
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
        """Return where `retry` can read the workflow again, and the arguments it was run with."""
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        plain = {
            name: value
            for name, value in self.plugin_args.items()
            if isinstance(value, str | int | float)
        }
        where = {**file_source(file, sys.argv[1:]), "name": workflow.name} if file else {}
        return {**where, "nipype": plain}

    def _check_limits(self, graph: networkx.DiGraph) -> None:
        """Raise RuntimeError, like MultiProc, if a node exceeds the limits of ``plugin_args``."""
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
        """Raise WorkflowError if nipype needs all results at the end, and nobody waits for them."""
        if self.wait:
            return
        if str2bool(config["execution"]["write_provenance"]):
            raise WorkflowError(
                "write_provenance needs all results: omit wait=False, or set it to false"
            )


def register() -> None:
    """Register the plugin with nipype by name: ``wf.run(plugin="hpcpipe")``."""
    from nipype.pipeline import plugins

    plugins.hpcpipePlugin = Plugin
