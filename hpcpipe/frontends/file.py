"""Execute a workflow's file as a module."""

from __future__ import annotations

import sys
import types
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hpcpipe.errors import HpcpipeError, UsageError, WorkflowError
from hpcpipe.graph.loading import Reached, loading, reached
from hpcpipe.worker.own_modules import Source, read_below


def load_file(path: Path) -> types.ModuleType:
    """Execute a workflow file as a module named by its stem, its folder first on ``sys.path``.

    It is executed up to where it would run a workflow, which `reached` then holds. Raises
    UsageError if it is not a file, and WorkflowError naming the line where it fails.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name a workflow file, for example normalize.py")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    read_below(folder)
    name = path.stem if path.stem not in sys.modules else f"workflow_{path.stem}"
    if path.suffix != ".py":
        raise UsageError(f"{path}: not a Python file; its name should end in .py")
    loader = Source(name, str(path.absolute()))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    loading.append(name)
    reached.clear()
    try:
        loader.exec_module(module)
    except Reached:
        pass
    except HpcpipeError as error:
        raise type(error)(f"{path}:{line_of(error, path)}: {error}") from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise WorkflowError(f"{path}:{line_of(error, path)}: {said}") from error
    finally:
        loading.remove(name)
    return module


def line_of(error: BaseException, path: Path) -> int:
    """Return the line of the user's file at which an error was raised."""
    trace, line = error.__traceback__, getattr(error, "lineno", None) or 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.absolute()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
