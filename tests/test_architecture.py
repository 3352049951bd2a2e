"""The shape of the package: who may import whom, how long a function is, what a command loads."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import hpcpipe
from hpcpipe.schedulers import REGISTRY

PACKAGE = Path(hpcpipe.__file__).parent
LONGEST = 40  # lines of a function
MOST = 12  # files of a new scheduler, its tests included

# CONTRIBUTING.rst lists the rooms; a module imports from its own room and from those before it.
_TOP = Path(__file__).parents[1]
_PAGE = (_TOP / "CONTRIBUTING.rst").read_text("utf-8")
_LIST = _PAGE.partition("\nRooms\n")[2].partition("\nImports inside functions")[0]
ORDER = re.findall(r"^``(\w+)(?:/|\.py)``", _LIST, re.MULTILINE)

# ``wf.submit()`` reads so well that the workflow reaches for the run, when it is called.
UPWARDS = {("graph.workflow", "run")}


def modules() -> dict[str, Path]:
    """Find every module of the package, by its name within it; the package itself is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Name the modules of the package that one imports, at its top or within a function."""
    found = set()
    for node in _run_time(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one if _within(one) in MODULES else str(node.module) for one in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {_within(name) for name in found if name.startswith("hpcpipe.")}


def _within(name: str) -> str:
    return name.removeprefix("hpcpipe.")


def _run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Give all nodes but those under ``if TYPE_CHECKING``."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        children: list[ast.stmt] = tree.orelse
    else:
        yield tree
        children = list(ast.iter_child_nodes(tree))  # type: ignore[arg-type]
    for child in children:
        yield from _run_time(child)


IMPORTS = {name: imports(path) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    """Name the folder that a module lies in, or the module if it lies flat."""
    return module.partition(".")[0]


def test_every_room_has_its_place_in_the_order() -> None:
    assert sorted(["", *ORDER]) == sorted({room(name) for name in MODULES})


def test_a_module_imports_only_from_its_room_and_those_above_it() -> None:
    place = {name: at for at, name in enumerate(["", *ORDER])}
    upwards = {
        (name, imported)
        for name, found in IMPORTS.items()
        for imported in found
        if place[room(imported)] > place[room(name)]
    }
    assert upwards == UPWARDS


def test_the_worker_imports_nothing_of_the_package_but_what_an_outcome_is() -> None:
    for name in ("worker.task", "worker.outcome", "worker.inputs", ""):
        known = {"worker.cgroup", "worker.claim", "worker.fork", "worker.outcome"}
        few = {"worker.partial", "worker.fallen", "worker.made"}  # which few tasks need
        assert IMPORTS[name] - few <= known, name
    few = {"worker.inputs", "worker.checkpoint", "worker.own_modules", "worker.width"}
    few |= {"worker.made"}
    assert IMPORTS["worker.fork"] <= known - {"worker.fork"} | few


def test_only_the_store_spells_where_an_outcome_lies() -> None:
    spelled = re.compile(r"^(results|packs|cancelled)/|\.(claim|err|pack)$")
    found = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if spelled.search(node.value)
    }
    assert found == {"worker.outcome", "worker.pack"}  # the latter: the claim of a whole pack
    for template in PACKAGE.with_name("templates").glob("*.sh.j2"):
        if template.name != "store.sh.j2":
            assert not re.search(r"\b(results|packs|cancelled)/", template.read_text("utf-8"))


def test_a_scheduler_knows_only_errors_and_values() -> None:
    for name, found in IMPORTS.items():
        if name.startswith("schedulers"):
            above = {one for one in found if not one.startswith("schedulers")}
            assert above <= {"errors", "indices", "jobs", "quantities", "values"}, name


def test_nothing_imports_the_command_line() -> None:
    for name, found in IMPORTS.items():
        if not name.startswith("cli") and name != "__main__":
            assert not any(one.startswith("cli") for one in found), name


def test_no_function_is_too_long() -> None:
    long = {
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and len(_body(node)) > LONGEST
    }
    assert long == set()


def _body(function: ast.FunctionDef) -> range:
    """Return the lines of a function's body, without its docstring: a command's is its manual."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    return range(first.lineno, (function.end_lineno or 0) + 1)


# --- what a command loads -----------------------------------------------------------------------

FLOW = """
from hpcpipe import Workflow, each
def double(x): return 2 * x
wf = Workflow("numbers")
wf.add(double, x=each([1, 2]))
"""
# Its last line names what was imported that is neither ours nor Python's own, or is slow.
COMMAND = """
import sys
before = set(sys.modules)
from importlib import import_module
sys.argv[:1] = ["hpcpipe"]
try:
    import_module("hpcpipe.__main__").main()
finally:
    import json
    tops = {name.partition(".")[0] for name in sys.modules.keys() - before}
    files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in tops}
    others = {name for name, file in files.items() if "-packages/" in file}
    slow = {"tomllib", "asyncio", "tempfile", "hpcpipe.site"} & sys.modules.keys()
    print(json.dumps(sorted((others | slow) - {"hpcpipe"})))
"""
LIGHT = {"click"}
SITE = LIGHT | {
    "attr",
    "attrs",
    "cattrs",
    "typing_extensions",
    "tomllib",
    "tempfile",
    "hpcpipe.site",
}
PLAN = SITE | {"cloudpickle", "jinja2", "markupsafe"}
SUBMIT = PLAN | {"psutil"}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """A folder with a small run that has ended, and the environment of its commands."""
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "flow.py").write_text(FLOW)
    home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": "/"}
    environ = {**os.environ, **home, "HPCPIPE_SITE": "local"}
    words = [sys.executable, "-m", "hpcpipe", "run", "flow.py"]
    ran = subprocess.run(words, cwd=folder, env=environ, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return folder, environ


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("--help", LIGHT),
        ("--version", LIGHT),
        ("status --help", LIGHT),
        ("status", LIGHT),
        ("status --json", LIGHT),
        ("watch", LIGHT),
        ("logs double/1", LIGHT),
        ("explain double/1", LIGHT),
        ("results double", LIGHT),
        ("cancel", LIGHT),
        ("", SITE),
        ("site show", SITE),
        ("plan flow.py", PLAN),
        ("submit flow.py", SUBMIT),
        ("map --dry-run -- echo {} ::: a b", PLAN),
    ],
)
def test_a_command_imports_no_more_than_it_needs(
    numbers: tuple[Path, Mapping[str, str]], command: str, allowed: set[str]
) -> None:
    folder, environ = numbers
    words = [sys.executable, "-c", COMMAND, *command.split()]
    ran = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout.splitlines()[-1])) <= allowed


def test_a_scheduler_takes_at_most_twelve_files() -> None:
    """Those that CONTRIBUTING.rst lists; Slurm and Flux have all of them."""
    steps = _PAGE.partition("\nAdapters\n")[2].partition("\nState on disk\n")[0]
    files = re.findall(r"^\d+\. ``(\S+)``", steps, re.MULTILINE)
    assert 0 < len(files) <= MOST
    for name in ("slurm", "flux"):
        missing = {file for file in files if not Path(_TOP, file.replace("NAME", name)).exists()}
        assert missing <= {"tests/clusters/NAME.sh"}, "or it has a stand-in"


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "local"])
def test_only_its_adapter_names_a_scheduler(name: str) -> None:
    adapters = PACKAGE / "schedulers"
    shared = [file for file in MODULES.values() if file.parent.parent != adapters]
    named = re.compile(rf"schedulers\.{name}\b|[\"']{name}[\"'.]")
    assert [file for file in shared if named.search(file.read_text("utf-8"))] == []
