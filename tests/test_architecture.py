"""The shape of the package: who may import whom, how long a module is, what a command loads."""

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

PACKAGE = Path(hpcpipe.__file__).parent
LONGEST = 300  # lines of a module

# CONTRIBUTING.rst lists the modules; one imports only from those before it.
_LISTED = Path(__file__).with_name("..").joinpath("CONTRIBUTING.rst").resolve()
_LIST = _LISTED.read_text("utf-8").partition("\n1. ")[2].partition("\n\n")[0]
ORDER = re.findall(r"``([\w.]+)``", _LIST)

# ``wf.submit()`` reads so well that the workflow reaches for the run, when it is called.
UPWARDS = {("workflow", "run")}


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


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted(["", *ORDER]) == sorted(MODULES)


def test_a_module_imports_only_from_those_above_it() -> None:
    place = {name: at for at, name in enumerate(["", *ORDER])}
    upwards = {
        (name, imported)
        for name, found in IMPORTS.items()
        for imported in found
        if place[imported] > place[name]
    }
    assert upwards == UPWARDS


def test_the_worker_imports_nothing_of_the_package_but_what_an_outcome_is() -> None:
    needed = IMPORTS["worker"] | IMPORTS["child"] | IMPORTS["outcome"] | IMPORTS[""]
    assert needed == {"child", "outcome"}


def test_a_scheduler_knows_only_errors_and_values() -> None:
    for name, found in IMPORTS.items():
        if name.startswith("schedulers"):
            above = {one for one in found if not one.startswith("schedulers")}
            assert above <= {"errors", "model"}, name


def test_nothing_imports_the_command_line() -> None:
    for name, found in IMPORTS.items():
        if not name.startswith("cli") and name != "__main__":
            assert not any(one.startswith("cli") for one in found), name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_is_too_long(name: str) -> None:
    assert len(MODULES[name].read_text("utf-8").splitlines()) <= LONGEST


# --- what a command loads -----------------------------------------------------------------------

FLOW = """
from hpcpipe import Workflow, each
def double(x): return 2 * x
wf = Workflow("numbers")
wf.add(double, x=each([1, 2]))
"""
# Its last line names what was imported that is not Python's own, or is Python's own but slow.
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
    print(json.dumps(sorted((others | {"tomllib", "asyncio"} & tops) - {"hpcpipe"})))
"""
LIGHT = {"click"}
SITE = LIGHT | {"attr", "attrs", "cattrs", "typing_extensions", "tomllib"}
PLAN = SITE | {"cloudpickle", "jinja2", "markupsafe"}
SUBMIT = PLAN | {"filelock", "psutil"}


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
        ("cancel", LIGHT | {"filelock"}),
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
