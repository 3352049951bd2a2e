"""What makes two values the same, and what must never make them different."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe import Workflow
from hpcpipe.errors import WorkflowError
from hpcpipe.frontends.file import load_file
from hpcpipe.keys.digest import Digests
from hpcpipe.keys.file_digest import SIZE, Files
from hpcpipe.keys.pickling import Own
from hpcpipe.keys.plan import freeze

HERE = Path(__file__).parent


def digest(value: Any, how: str = "content", folder: Path = HERE) -> bytes:
    return Digests(Files(how), Own(folder / "flow.py")).digest(value)


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Subject:
    name: str
    tags: set[str] = field(default_factory=set)


class Plain:
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


Point = namedtuple("Point", "x y")


def scale(x: int, by: int = 2) -> int:
    return x * by


def looped() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


def unshared(text: str) -> str:
    """Make an equal string that is not the same object."""
    return "".join(list(text))


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {1, 2, 3}),
        ({frozenset("ab"), frozenset("cd")}, {frozenset("dc"), frozenset("ba")}),
        ([unshared("ab"), "ab"], ["ab"] * 2),
        (Point("ab", "ab"), Point("ab", unshared("ab"))),
        (Subject("a", set("xyz")), Subject("a", set("zyx"))),
        (Plain(a="ab", b="ab"), Plain(b=unshared("ab"), a="ab")),
        (deque(["ab", "ab"]), deque(["ab", unshared("ab")])),
        (partial(scale, by=3), partial(scale, by=3)),
        (looped(), looped()),
        (1e400, float("inf")),
    ],
)
def test_equal_values_have_equal_digests(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


DIFFERENT: list[Any] = [
    *(0, 1, 2, True, False, None, 0.0, -0.0, 1.0, 1j, "", "1", b"1", "None", "\udcff", ()),
    *([], [1], (1,), {1}, frozenset([1]), {1: None}, [1, 2], [2, 1], [[1], 2], [[1, 2]]),
    *({"a": 1, "b": 2}, {"a": 2, "b": 1}, OrderedDict(a=1), {"a": 1}, defaultdict(int, a=1)),
    *(Point(1, 2), Point(2, 1), (1, 2), deque([1, 2]), range(2), range(3), slice(1, 2)),
    *(Mode.FAST, Mode.SLOW, Mode, Subject("a"), Subject("b"), Subject("a", {"x"}), Subject),
    *(Plain(), Plain(a=1), Plain(a=2), Plain, Decimal(1), Fraction(1), PurePosixPath("a")),
    *(scale, partial(scale, 1), partial(scale, by=1), scale.__code__, len, textwrap, looped()),
    *("x".join, "y".join, Plain.__init__, Plain().__init__, ...),  # type: ignore[misc]
]


def test_different_values_have_different_digests() -> None:
    digests = [digest(value) for value in DIFFERENT]
    for (one, first), (other, second) in combinations(zip(DIFFERENT, digests, strict=True), 2):
        assert first != second, (one, other)
    assert {len(found) for found in digests} == {SIZE}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.text() | st.integers())
    ),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_digests_agree_as_far_as_what_is_written_does(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (spelled(one) == spelled(other))


def spelled(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(spelled, value))})"
    if isinstance(value, dict):
        return f"dict({sorted((spelled(key), spelled(item)) for key, item in value.items())})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({list(map(spelled, value))})"
    return repr(value)


@pytest.mark.parametrize("value", [threading.Lock(), [iter([1]), (n for n in [1])]])
def test_what_cannot_be_taken_apart_is_refused(value: Any) -> None:
    with pytest.raises(WorkflowError, match=r"a (lock|generator) cannot be pickled to reach a ta"):
        digest(value)


# --- code ---------------------------------------------------------------------------------------


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bytes]]:
    """Digest the function ``f`` of a file with this source."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in sys.modules.keys() - before:
            del sys.modules[name]

    def load(source: str, **neighbours: str) -> bytes:
        forget()
        for name, text in {**neighbours, "flow": source}.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return digest(load_file(tmp_path / "flow.py").f, folder=tmp_path)

    yield load
    forget()


FLOW = """
import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
LIMIT = 3
TABLE = {"a": [1, 2]}
Unit = Enum("Unit", {"MM": 1})
@dataclass
class Options:
    width: int = 4
    sizes = (1, 2)
    def area(self): return self.width ** 2
    @property
    def double(self): return 2 * self.width
def helper(x):
    return math.floor(x) + LIMIT
@lru_cache
def cached(x):
    return x + 1
def unused(x):
    return LIMIT + 1
def make(n):
    def inner(x): return x + n
    return inner
by = make(5)
def f(x, scale=1, *, power=2):
    o = Options()
    try:
        y = [helper(v) for v in x if v in {"p", "q"}]
    except ValueError:
        y = 0
    return by(y), (lambda z: z * TABLE["a"][0])(o.area() + cached(1) + Unit.MM.value), x.limit
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "# a comment at the top\n\n"),
        ("    o = Options()", "\n    # a comment within\n    o = Options()  # and behind"),
        ("    return LIMIT + 1", "    return LIMIT + 2"),
        ("def unused(x)", "def renamed(x)"),
        ("LIMIT = 3", "limit = LIMIT = 3"),  # f only says x.limit, an attribute
        ("(o.area() + ", "(\n        o.area() + "),
    ],
)
def test_code_that_does_the_same_has_the_same_digest(
    digest_of: Callable[..., bytes], old: str, new: str
) -> None:
    assert old in FLOW
    assert digest_of(FLOW.replace(old, new, 1)) == digest_of(FLOW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x.limit", "x.limits"),
        ("y = 0", "y = 1"),
        ('{"p", "q"}', '{"p", "r"}'),
        ("scale=1", "scale=2"),
        ("scale=1, *, power=2", "scale=1, power=2"),
        ("power=2", "power=3"),
        ("def f(x, scale=1", "def f(y, scale=1"),
        ("math.floor", "math.ceil"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ('"a": [1, 2]', '"a": [1, 3]'),
        ('TABLE["a"][0]', 'TABLE["a"][1]'),
        ("make(5)", "make(6)"),
        ("return x + n", "return x - n"),
        ("return x + 1", "return x + 2"),
        ("width: int = 4", "width: int = 5"),
        ("self.width ** 2", "self.width ** 3"),
        ("2 * self.width", "3 * self.width"),
        ("sizes = (1, 2)", "sizes = (1, 3)"),
        ('"MM": 1', '"MM": 2'),
        ("except ValueError", "except KeyError"),
        ("import math", "import cmath as math"),
    ],
)
def test_code_that_does_something_else_has_another_digest(
    digest_of: Callable[..., bytes], old: str, new: str
) -> None:
    assert old in FLOW
    assert digest_of(FLOW.replace(old, new, 1)) != digest_of(FLOW)


def test_what_a_try_covers_counts(digest_of: Callable[..., bytes]) -> None:
    within = """
    def f(g):
        try:
            g()
            g()
        except ValueError:
            pass
    """
    behind = """
    def f(g):
        try:
            g()
        except ValueError:
            pass
        else:
            g()
    """
    assert digest_of(within) != digest_of(behind)


@pytest.mark.parametrize(
    "flow",
    [
        "import near\ndef f(): return near.double(1)",
        "from near import double\ndef f(): return double(1)",
        "import near as n\nf = n.double",
        "from near import Doubler\ndef f(): return Doubler().double(1)",
        "def f():\n    import near\n    return near.double(1)",
        "def f():\n    from near import double\n    return double(1)",
    ],
)
def test_a_neighbours_code_counts_however_deep(digest_of: Callable[..., bytes], flow: str) -> None:
    near = """
    import far
    def double(x): return far.times(x)
    class Doubler:
        def double(self, x): return double(x)
    """
    one, other = "def times(x): return x * 2", "def times(x): return x * 3"
    assert digest_of(flow, near=near, far=one) == digest_of(flow, near=near, far=one)
    assert digest_of(flow, near=near, far=one) != digest_of(flow, near=near, far=other)


LAB = {
    "src/lab/__init__": "def __getattr__(name):\n    from importlib import import_module\n"
    "    return import_module('.deep.core', 'lab').double\n",
    "src/lab/deep/__init__": "",
    "src/lab/deep/core": "from ..far import times\ndef double(x): return times(x)",
    "src/lab/far": "def times(x): return x * 2",
}


@pytest.mark.parametrize(
    "flow",
    [
        "from lab.deep import core\ndef f(): return core.double(1)",
        "from lab.deep.core import double\ndef f(): return double(1)",
        "import lab.deep.core\ndef f(): return lab.deep.core.double(1)",
        "import lab\ndef f(): return lab.double(1)",
        "def f():\n    from lab.deep.core import *",
        "def f():\n    import lab.deep.core as c\n    return c.double(1)",
        "def f():\n    from lab import double\n    return double(1)",
        "import importlib\ndef f(): return importlib.import_module('lab.deep.core').double(1)",
        "def f(): return __import__('lab.deep.core').double(1)",
    ],
)
def test_a_package_elsewhere_counts_unless_it_is_installed(
    digest_of: Callable[..., bytes], tmp_path: Path, flow: str
) -> None:
    sys.path.insert(0, str(tmp_path / "src"))
    if "import *" in flow:
        flow = flow.replace("import *", "import double; return double(1)")
    changed = {**LAB, "src/lab/far": "def times(x): return x * 3"}
    same = {**LAB, "src/lab/far": "'''Words.'''\ndef times(x):\n    'More.'\n    return x * 2  # !"}
    assert digest_of(flow, **LAB) == digest_of(flow, **same)
    assert digest_of(flow, **LAB) != digest_of(flow, **changed)


def test_an_extension_module_counts_by_what_is_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("fast")
    module.__file__ = str(tmp_path / "fast.so")
    module.run = types.SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fast", module)
    seen = []
    for text in ("one", "two"):
        (tmp_path / "fast.so").write_text(text)
        seen.append(digest(module))
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("flow", "old", "new"),
    [
        (
            "import contextlib\n@contextlib.contextmanager\ndef f(): yield 1",
            "yield 1",
            "yield 2",
        ),
        ("import bare\n@bare.wrap\ndef f(): return 1", "return 1", "return 2"),
        (
            "from functools import singledispatch\n@singledispatch\ndef f(x): return 1\n"
            "@f.register(int)\ndef _(x): return 2",
            "return 2",
            "return 3",
        ),
        ("def f(): return f.by\nf.by = 1", "f.by = 1", "f.by = 2"),
        (
            "from enum import Enum\nclass M(Enum):\n    A = 1\n    def go(self): return 1\n"
            "A = M.A\ndef f(): return A.go()",
            "return 1",
            "return 2",
        ),
    ],
)
def test_code_behind_other_code_counts(
    digest_of: Callable[..., bytes], tmp_path: Path, flow: str, old: str, new: str
) -> None:
    sys.path.insert(0, str(tmp_path / "site-packages"))
    # A decorator that does not name what it wraps.
    bare = {"site-packages/bare": "def wrap(f):\n    def call(): return f()\n    return call"}
    assert digest_of(flow, **bare) == digest_of(flow, **bare)
    assert digest_of(flow, **bare) != digest_of(flow.replace(old, new), **bare)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    o = Options()", "    'What it does.'\n    o = Options()"),
        ("    return math", "    '''Round.'''\n    return math"),
        ("    def area(self):", "    def area(self):\n        'In square mm.'\n       "),
        ("    def inner(x): return", "    def inner(x):\n        'Add.'\n        return"),
    ],
)
def test_a_docstring_does_not_count(digest_of: Callable[..., bytes], old: str, new: str) -> None:
    assert old in FLOW
    assert digest_of(FLOW.replace(old, new, 1)) == digest_of(FLOW)


def test_a_docstring_counts_where_it_is_used(digest_of: Callable[..., bytes]) -> None:
    for flow in (
        "def f():\n    'one'\n    return f.__doc__",
        "def f():\n    'one'\n    return 'one'",
    ):
        assert digest_of(flow) != digest_of(flow.replace("one", "two"))


class Cached:
    @cached_property
    def size(self) -> int:
        return 3


@dataclass
class Held:
    width: int = 3

    @cached_property
    def size(self) -> int:
        return self.width


@pytest.mark.parametrize("make", [Cached, Held])
def test_what_is_remembered_does_not_count(make: Callable[[], Any]) -> None:
    fresh = digest(make()), digest(make)
    used = make()
    assert used.size == 3
    copy.copy(used)
    pickle.dumps(used)
    assert (digest(used), digest(make)) == fresh


def test_the_script_has_one_name_run_or_loaded(tmp_path: Path) -> None:
    flow = tmp_path / "flow.py"
    flow.write_text(
        FLOW
        + textwrap.dedent("""
        VALUES = [Options(), Unit.MM, f, Options, {"at": by}]
        if __name__ == "__main__":
            from hpcpipe.keys.digest import Digests, Files
            from hpcpipe.keys.pickling import Own
            for name in ("f", "VALUES"):
                print(Digests(Files(), Own()).digest(globals()[name]).hex())
        """)
    )
    ran = [
        subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        for words in ([sys.executable, str(flow)], [sys.executable, "-c", PROCESS, str(flow)])
    ]
    assert ran[0] == ran[1] != ""


def test_installed_code_counts_by_its_name_and_version(
    digest_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = "import click\ndef f(): return click.echo"
    before = digest_of(flow)
    monkeypatch.setattr(sys.modules["hypothesis"], "__version__", "0")
    assert digest_of(flow) == before
    other = "from hypothesis import given\ndef f(): return given"
    assert digest_of(other) == digest_of(other)
    assert len({digest_of(other), before}) == 2


def test_functions_that_all_need_each_other_are_digested_in_no_time(
    digest_of: Callable[..., bytes],
) -> None:
    count = 40
    calls = " + ".join(f"f{i}(n - 1)" for i in range(count))
    functions = "\n".join(f"def f{i}(n): return {i} + (n and {calls})" for i in range(count))
    changed = functions.replace(f"return {count - 1}", "return -1")
    assert digest_of(f"{functions}\nf = f0") != digest_of(f"{changed}\nf = f0")


PROCESS = """
import sys
from pathlib import Path
from hpcpipe.keys.digest import Digests, Files
from hpcpipe.frontends.file import load_file
from hpcpipe.keys.pickling import Own
flow = load_file(Path(sys.argv[1]))
digests = Digests(Files(), Own(sys.argv[1]))
for name in ("f", "VALUES"):
    print(digests.digest(getattr(flow, name)).hex())
"""


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    flow = tmp_path / "flow.py"
    flow.write_text(
        FLOW
        + textwrap.dedent("""
        class Tagged:
            kinds = {"a", "b", "c", "d"}
            def __init__(self, *tags): self.tags = {*tags, Options}
        from pathlib import Path
        VALUES = [{"a", "b", "c"}, frozenset("xyz"), {frozenset("ab"), frozenset("cd")},
                  Tagged("p", "q", "r"), Options(), Unit.MM, Path(__file__), len, str.upper,
                  {f, helper, cached, by}, {helper: by, f: cached}, Tagged, object]
        """)
    )
    said = set()
    for seed in ("0", "1", "2"):
        words = [sys.executable, "-c", PROCESS, str(flow)]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        said.add(ran.stdout)
    assert len(said) == 1


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ("content", {"touched": False, "rewritten": True, "moved": False, "gone": True}),
        ("stat", {"touched": True, "rewritten": False, "moved": True, "gone": True}),
    ],
)
def test_a_path_stands_for_the_file_it_names(
    tmp_path: Path, how: str, changes: dict[str, bool]
) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    before = digest(path, how)
    seen = {}
    os.utime(path, (2, 2))
    seen["touched"] = digest(path, how) != before
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    seen["rewritten"] = digest(path, how) != before  # same size, same time
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    (tmp_path / "sub").mkdir()
    moved = path.rename(tmp_path / "sub" / "image.nii")
    seen["moved"] = digest(moved, how) != before
    seen["gone"] = digest(path, how) != before
    assert seen == changes


def test_a_files_name_counts_and_a_string_is_no_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    assert digest(one) != digest(other)
    before = digest(str(one))
    one.write_bytes(b"more")
    assert digest(str(one)) == before


def test_a_folder_stands_for_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    seen = [digest(tmp_path)]
    for change in ("a/x", "a/b/x", "y"):
        (tmp_path / change).write_text("1")
        seen.append(digest(tmp_path))
    (tmp_path / "a/b/x").write_text("2")
    seen.append(digest(tmp_path))
    (tmp_path / "y").rename(tmp_path / "z")
    assert len({*seen, digest(tmp_path)}) == 6


def test_links_in_a_folder_stand_for_what_they_lead_to(tmp_path: Path) -> None:
    folder, image, scans = (tmp_path / name for name in ("study", "image.nii", "scans"))
    folder.mkdir()
    (folder / "a.nii").symlink_to(image)
    (folder / "b").symlink_to(scans)
    (folder / "c").symlink_to(folder)
    seen = [digest(folder)]
    image.write_text("1")
    seen.append(digest(folder))
    image.write_text("22")
    seen.append(digest(folder))
    scans.mkdir()
    (scans / "above").symlink_to(tmp_path)
    seen.append(digest(folder))
    (scans / "x").write_text("1")
    assert len({*seen, digest(folder)}) == 5
    assert digest(folder) == digest(folder)


def test_what_runs_leave_in_a_folder_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "flow.py").touch()
    before = digest(tmp_path)
    (tmp_path / "runs" / "norm" / ".hpcpipe").mkdir(parents=True)
    (tmp_path / "runs" / "norm" / "image.nii").touch()
    assert digest(tmp_path) == before
    (tmp_path / "runs" / "notes").touch()
    assert digest(tmp_path) != before


@pytest.mark.parametrize(
    ("where", "first", "beside", "counts"),
    [
        ("home/bin", "#!/bin/sh\n", "", True),
        ("study/bin", "#!/bin/sh\n", "", True),
        ("apps/bin", "#!/bin/sh\n", "", False),
        ("home/bin", "\x7fELF", "", False),
        ("home/venv/bin", "#!/bin/sh\n", "pyvenv.cfg", False),
        ("home/conda/bin", "#!/bin/sh\n", "conda-meta", False),
    ],
)
def test_a_script_of_ones_own_that_path_finds_counts_by_its_content(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    first: str,
    beside: str,
    counts: bool,
) -> None:
    folder, study = tmp_path / where, tmp_path / "study"
    folder.mkdir(parents=True)
    study.mkdir(exist_ok=True)
    (folder.parent / beside).touch()
    monkeypatch.chdir(study)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(folder))
    workflow = Workflow("wf")
    workflow.command("strip x")
    keys = set()
    for text in ("1", "2"):
        (folder / "strip").write_text(first + text)
        (folder / "strip").chmod(0o700)
        keys.add(freeze(workflow).nodes["strip"].key(0))
    assert len(keys) == 1 + counts


def test_settled_files_are_read_once_and_fresh_ones_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(b"one")
    known: dict[str, tuple[Any, ...]] = {}
    fresh = Files(known=known).digest(path)
    assert not known
    monkeypatch.setattr("time.time", lambda: path.stat().st_ctime + 3)
    os.utime(path, (1, 1))
    assert Files(known=known).digest(path) == fresh
    known[str(path)] = (*known[str(path)][:-1], "00" * SIZE)
    assert Files(known=known).digest(path) == bytes(SIZE)
    os.utime(path, (2, 2))
    assert Files(known=known).digest(path) == fresh


def test_a_change_that_keeps_size_time_and_inode_shows(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    known: dict[str, tuple[Any, ...]] = {}
    seen = set()
    for text in ("one", "two"):
        path.write_text(text)
        os.utime(path, (1, 1))  # as `cp -p` does
        seen.add(Files(known=known).digest(path))
    assert len(seen) == 2


def test_there_are_two_ways_to_know_a_file() -> None:
    with pytest.raises(WorkflowError, match="files='hash': write 'content' or 'stat'"):
        Files("hash")
