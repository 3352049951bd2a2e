"""Run nipype nodes on a compute node, one after another, as nipype itself does.

nipype's results, hashes, reports and crash files are where they always are. An element gets only
its own nodes of the graph; they find their inputs in the results of upstream nodes.
"""

from __future__ import annotations

import os
import re
import sys
import time
from _pickle import loads
from contextlib import nullcontext

from hpcpipe.nipype.lazy_imports import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import Any

# Imported with this module, so that tasks that share an element import it once.
os.environ.setdefault("NIPYPE_NO_ET", "1")  # else every process asks the network for updates
with lazily():
    from nipype import config, logging
    from nipype.pipeline.engine.nodes import NodeExecutionError
    from nipype.utils import profiler  # noqa: F401  or each node's process would load it anew


class SpmFailed(NodeExecutionError):  # type: ignore[misc]
    """A node whose SPM failed; its text is SPM's own message."""

    @property
    def words(self) -> str:
        """Return SPM's message."""
        return str(self)


class Stopped(Exception):
    """A node that was not run because another crashed and stop_on_first_crash is set."""

    @property
    def hpcpipe_words(self) -> str:
        """Return the message without the name of the class."""
        return str(self)


def run(
    parts: bytes,
    classes: bytes,
    script: bytes,
    updatehash: bool,
    at_a_time: int,
    stop: bytes,
    number: int | None = None,
    counters: bytes = b"",
) -> Any:
    """Run the pickled nodes of one task; return the last one's folder.

    ``classes`` are the user's own, ``script`` is the module of the workflow's file. ``at_a_time``
    sub-nodes of a MapNode run in parallel; of one that is whole in ``parts``, only the sub-node of
    this ``number`` does. ``stop`` names the file that records the first crash, if it must stop the
    others. A node whose predecessor in ``parts`` failed is skipped; the first error is raised at
    the end. With ``counters``, of lists that others are mapped over, the numbers of their items are
    returned, too.
    """
    stopping = loads(stop)
    if stopping and os.path.exists(stopping):
        with open(stopping) as file:
            raise Stopped(f"not run: {file.read()} crashed, and stop_on_first_crash is set")
    _install(loads(classes), loads(script))
    failed: set[str] = set()
    first: Exception | None = None
    folder, whole = "", number is not None
    for node, sub in loads(parts):
        result = os.path.join(node.output_dir(), f"result_{node.name}.pklz")
        if not failed.isdisjoint(source for source, _ in node.input_source.values()):
            failed.add(result)
            continue
        try:
            folder = _run_part(node, number if whole else sub, updatehash, at_a_time, whole=whole)
        except Exception as error:
            failed.add(result)
            first = first or error
            if stopping:
                with open(stopping, "w") as file:
                    file.write(node.fullname)
    if first is not None:
        raise first
    if counters:
        return {"folder": folder, **_numbers(loads(counters))}
    return folder


def _numbers(counters: dict[str, Any]) -> dict[str, range]:
    from hpcpipe.nipype.mapnodes import count

    return {name: range(0 if one is None else count(one)) for name, one in counters.items()}


def _install(classes: Iterable[type], script: str) -> None:
    """Install the user's own classes where nipype's pickles look for them.

    They were sent by value. The workflow's file must not be executed here, so a module of its name
    replaces it.
    """
    from importlib import import_module
    from types import ModuleType

    for cls in classes:
        name = cls.__module__
        if name not in sys.modules:
            try:
                module = ModuleType(name) if name == script else import_module(name)
            except ImportError:
                module = ModuleType(name)
            sys.modules[name] = module
        setattr(sys.modules[name], cls.__name__, cls)


def _run_part(node: Any, sub: int | None, updatehash: bool, at_a_time: int, *, whole: bool) -> str:
    """Run a node, or a sub-node of a MapNode; on an error leave nipype's crash file."""
    # nipype's own jobs import matplotlib here, whether or not the node needs it.
    os.environ.setdefault("MPLBACKEND", node.config["execution"]["matplotlib_backend"])
    config.update_config(node.config)
    logging.update_logging(config)
    _await_results(node)
    try:
        if sub is not None:
            node = _sub_node(node, sub, whole=whole)
        with _prepared(node.interface):
            if sub is None and at_a_time > 1:
                _run_sub_nodes(node, updatehash, at_a_time)
            node.run(updatehash=updatehash)
    except Exception as error:
        from nipype.pipeline.plugins.tools import report_crash

        if said := re.search(r"\bCommandFailed: (.+)", str(error)):
            failed = SpmFailed(said[1])
            crash = report_crash(node, traceback=[f"{failed}\n"])  # its whole output is in the log
            failed.add_note(f"nipype's crash file: {crash}")
            raise failed from None
        error.add_note(f"nipype's crash file: {report_crash(node)}")
        error.hpcpipe_words = _words(error)  # type: ignore[attr-defined]
        raise
    return str(node.output_dir())


def _prepared(interface: Any) -> AbstractContextManager[None]:
    if "nipype.interfaces.spm" not in sys.modules:
        return nullcontext()
    from hpcpipe.nipype.spmcall import in_node

    return in_node(interface)


def _words(error: Exception) -> str:
    """Return an error in one line: nipype's last quoted line, and the program's own last line."""
    text = str(error).rstrip()
    last = text.rpartition("\n")[2].strip()
    _, found, told = text.partition("\nStderr:\n")
    said = told.partition("\nTraceback:\n")[0].rstrip().rpartition("\n")[2].strip()
    name = "" if text.count("\n") else f"{type(error).__name__}: "
    return f"{name}{last}" + (f" ({said})" if found and said else "")


def _sub_node(node: Any, number: int, *, whole: bool) -> Any:
    """Return sub-node ``number`` of a MapNode, which is ``whole`` or reduced to that one item."""
    node._get_inputs()
    node._check_iterfield()
    if whole:
        from hpcpipe.nipype.mapnodes import cut

        cut(node, number)
    ((_, sub),) = node._make_nodes()
    sub.name = sub._id = f"_{node.name}{number}"
    return sub


def _await_results(node: Any) -> None:
    """Wait briefly for upstream results, which a shared filesystem may show late."""
    until = time.monotonic() + float(node.config["execution"]["job_finished_timeout"])
    for result in {source for source, _ in node.input_source.values()}:
        while not os.path.exists(result) and time.monotonic() < until:
            if os.path.isdir(os.path.dirname(result)):
                os.listdir(os.path.dirname(result))  # makes an NFS client refresh its cache
            time.sleep(0.2)


def _run_sub_nodes(node: Any, updatehash: bool, at_a_time: int) -> None:
    """Run the sub-nodes of a MapNode in parallel; the MapNode itself then finds them done.

    Does nothing for a MapNode that always runs, and would run them again. Raises like the MapNode.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    forced = node.overwrite or (node.overwrite is None and node.interface.always_run)
    cached, updated = node.is_cached()
    if forced or node._serial or (cached and (updated or updatehash)) or node.num_subnodes() < 2:
        return
    subs = node.get_subnodes()
    # Forked, so that no sub-node needs pickling and nipype is not imported again.
    with ProcessPoolExecutor(at_a_time, get_context("fork"), _keep, (subs,)) as pool:
        errors = list(pool.map(_run_kept, range(len(subs))))
    if any(errors):
        said = [f"Subnode {at} failed\nError: {error}" for at, error in enumerate(errors) if error]
        raise NodeExecutionError(f"Subnodes of node: {node.name} failed:\n" + "\n".join(said))


_kept: list[Any] = []


def _keep(subs: list[Any]) -> None:
    _kept[:] = subs


def _run_kept(number: int) -> str:
    from traceback import format_exc

    try:
        _kept[number].run()
    except Exception:
        return format_exc()
    return ""
