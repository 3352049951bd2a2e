"""A real task spooler, whose adapter is the example of ``docs/adding.rst``: a package of its own.

It is installed for its users alone, as pip would install it for anybody.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from contract.dialects.base import Census, Dialect, says
from hpcpipe.schedulers.base import run_command

ADDING = Path(__file__).parents[3] / "docs" / "adding"


def _load() -> Any:
    spec = spec_from_file_location("hpcpipe_tsp", ADDING / "hpcpipe_tsp" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tsp


@cache
def installed() -> Path:
    """Install the package into a folder of its own, which goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="hpcpipe-tsp-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source, target = folder / "source", folder / "installed"
    shutil.copytree(ADDING, source)  # building leaves files beside it
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)],
        cwd=folder, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def _missing() -> str:
    return "" if shutil.which("tsp") else "the command tsp is missing (apt install task-spooler)"


def _variables(home: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(installed()), os.environ.get("PYTHONPATH"))))
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
    site="tsp",
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
