"""A real task spooler, whose adapter is the example of ``docs/adding.rst``.

It is no part of the package. So its users have a copy of hpcpipe to which it was added, by what the
page says: one file, one template, one line.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import hpcpipe
from contract.dialects.base import Census, Dialect, says
from hpcpipe.schedulers.base import run_command

ADDING = Path(__file__).parents[3] / "docs" / "adding"
LINE = '    "tsp": "Tsp",\n'


def _load() -> Any:
    spec = spec_from_file_location("hpcpipe.schedulers.tsp", ADDING / "tsp.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tsp


def _add(folder: Path) -> None:
    """Copy hpcpipe into a folder, and add the scheduler to the copy."""
    package = folder / "hpcpipe"
    shutil.copytree(Path(hpcpipe.__file__).parent, package)
    shutil.copytree(Path(str(files("hpcpipe.templates"))), package / "templates")
    shutil.copy(ADDING / "tsp.py", package / "schedulers")
    shutil.copy(ADDING / "tsp.sh.j2", package / "templates")
    registry = package / "schedulers" / "__init__.py"
    before, mark, after = registry.read_text("utf-8").partition("REGISTRY = {\n")
    assert mark
    registry.write_text(before + mark + LINE + after, "utf-8")


def _missing() -> str:
    return "" if shutil.which("tsp") else "the command tsp is missing (apt install task-spooler)"


def _variables(home: Path) -> dict[str, str]:
    added = home / "added"
    _add(added)
    path = os.pathsep.join(filter(None, (str(added), os.environ.get("PYTHONPATH"))))
    queue = {"TS_SOCKET": str(home / "tsp"), "TS_SLOTS": "4"}
    return {"PYTHONPATH": path, "TMPDIR": str(home), **queue}


def _end(home: Path) -> None:
    del home  # the environment says which queue
    queue = Tsp()
    queue.cancel([*queue.read_poll(run_command(("tsp", "-l")))])
    run_command(("tsp", "-K"))


def _census(spools: Mapping[str, Path]) -> Census:
    return {name: Counter() for name in spools}  # it names no workflow; no test of it asks


Tsp = _load()
TSP = Dialect(
    name="tsp",
    site=str(ADDING / "tsp.toml"),
    capabilities=Tsp.capabilities,
    adapter=lambda _, run: Tsp(run),
    out_of_reach=lambda home: {"TS_SOCKET": str(home / "nowhere" / "tsp")},
    mark="#TSP",  # it reads no directives
    job=(),
    array=(),
    index="0",
    element="echo $1",
    refused=("", ""),
    short_time="",
    on=says("tsp", "-V"),
    census=_census,
    variables=_variables,
    end=_end,
    begin='exec >>"{log}" 2>&1\n',
    missing=_missing,
    commands=("tsp",),
)
