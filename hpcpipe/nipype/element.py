"""Runs on the compute node: nodes of nipype, one after the other, as nipype itself runs them.

All that nipype leaves is where and as it always is: results, hashes, reports, crash files. Of the
graph an element gets its own nodes only; they find their inputs in the results of those before.
"""

from __future__ import annotations

import os
import sys
import time
from _pickle import loads

from hpcpipe.nipype.lazily import Finder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Imported with this module, so that tasks that share an element share it, too.
os.environ.setdefault("NIPYPE_NO_ET", "1")  # else every process asks the network for news
Finder.install()
try:
    from nipype import config, logging
    from nipype.pipeline.engine.nodes import NodeExecutionError
    from nipype.utils import profiler  # noqa: F401  or each node's process would load it anew
finally:
    Finder.remove()


class Stopped(Exception):
    """A node that was not run, because another crashed and nipype was told to stop then."""

    @property
    def hpcpipe_words(self) -> str:
        """Say it without the name of its class."""
        return str(self)


def run(
    parts: bytes, classes: bytes, script: str, updatehash: bool, at_a_time: int, stop: bytes
) -> str:
    """Run the pickled nodes of one task; return the last one's folder.

    ``classes`` are the user's own, ``script`` the module of the workflow's file. ``at_a_time``
    sub-nodes of a MapNode run together. ``stop`` names a file that the first crash leaves, if it
    is to stop the others. A node whose predecessor in ``parts`` failed is left out; the first
    error is raised in the end.
    """
    stopping = loads(stop)
    if stopping and os.path.exists(stopping):
        with open(stopping) as file:
            raise Stopped(f"not run: {file.read()} crashed, and stop_on_first_crash is set")
    _install(loads(classes), script)
    failed: set[str] = set()
    first: Exception | None = None
    folder = ""
    for node, sub in loads(parts):
        result = os.path.join(node.output_dir(), f"result_{node.name}.pklz")
        if not failed.isdisjoint(source for source, _ in node.input_source.values()):
            failed.add(result)
            continue
        try:
            folder = _run_part(node, sub, updatehash, at_a_time)
        except Exception as error:
            failed.add(result)
            first = first or error
            if stopping:
                with open(stopping, "w") as file:
                    file.write(node.fullname)
    if first is not None:
        raise first
    return folder


def _install(classes: Iterable[type], script: str) -> None:
    """Put the user's own classes where the pickles that nipype writes and reads look for them.

    They came by value. The workflow's own file must not be executed here, so a module of its name
    stands for it.
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


def _run_part(node: Any, sub: int | None, updatehash: bool, at_a_time: int) -> str:
    """Run a node, or a sub-node of a MapNode; on an error leave nipype's crash file."""
    # What nipype's own jobs do by importing matplotlib, whether or not the node will need it.
    os.environ.setdefault("MPLBACKEND", node.config["execution"]["matplotlib_backend"])
    config.update_config(node.config)
    logging.update_logging(config)
    _await_results(node)
    try:
        if sub is not None:
            node = _sub_node(node, sub)
        elif at_a_time > 1:
            _run_sub_nodes(node, updatehash, at_a_time)
        node.run(updatehash=updatehash)
    except Exception as error:
        from nipype.pipeline.plugins.tools import report_crash

        error.add_note(f"nipype's crash file: {report_crash(node)}")
        error.hpcpipe_words = _words(error)  # type: ignore[attr-defined]
        raise
    return str(node.output_dir())


def _words(error: Exception) -> str:
    """Say in a line what went wrong: what nipype quotes last, and the program's own last word."""
    text = str(error).rstrip()
    last = text.rpartition("\n")[2].strip()
    _, found, told = text.partition("\nStderr:\n")
    said = told.partition("\nTraceback:\n")[0].rstrip().rpartition("\n")[2].strip()
    name = "" if text.count("\n") else f"{type(error).__name__}: "
    return f"{name}{last}" + (f" ({said})" if found and said else "")


def _sub_node(node: Any, number: int) -> Any:
    """Make the sub-node of a MapNode that was cut down to the one item of that number."""
    node._get_inputs()
    node._check_iterfield()
    ((_, sub),) = node._make_nodes()
    sub.name = sub._id = f"_{node.name}{number}"
    return sub


def _await_results(node: Any) -> None:
    """Wait a little for results of the nodes before: a common filesystem may show them late."""
    until = time.monotonic() + float(node.config["execution"]["job_finished_timeout"])
    for result in {source for source, _ in node.input_source.values()}:
        while not os.path.exists(result) and time.monotonic() < until:
            if os.path.isdir(os.path.dirname(result)):
                os.listdir(os.path.dirname(result))  # which makes an NFS client look again
            time.sleep(0.2)


def _run_sub_nodes(node: Any, updatehash: bool, at_a_time: int) -> None:
    """Run the sub-nodes of a MapNode side by side; the MapNode itself then finds them done.

    Not where it would run them all again, because it must always run. Raises as the MapNode does.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    forced = node.overwrite or (node.overwrite is None and node.interface.always_run)
    cached, updated = node.is_cached()
    if forced or node._serial or (cached and (updated or updatehash)) or node.num_subnodes() < 2:
        return
    subs = node.get_subnodes()
    # Forked, so that no sub-node needs to be pickled, or nipype to be imported again.
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
