"""Functions of a user's file reach a node by value, work there, and load in no time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor  # noqa: F401  or the fixture forgets it
from multiprocessing import pool  # noqa: F401  or the fixture forgets it
from pathlib import Path

import pytest

from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.frontends.file import load_file
from hpcpipe.keys.pickling import Own, check_callable, pickle_value
from hpcpipe.worker import task as worker

# What a node does, less what a batch needs: no hpcpipe on its path, the user's file gone.
NODE = """
import sys
sys.path.insert(0, {folder!r})
from _pickle import loads
call = loads(open(sys.argv[1], "rb").read())
print(repr(call(*map(int, sys.argv[2:]))))
print(*sorted({{"cloudpickle", "hpcpipe.graph.workflow"}} & sys.modules.keys()))
"""


class User:
    """A user's folder of files, one of which defines a workflow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = Own(folder / "flow.py")

    def write(self, name: str, source: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def function(self, source: str, name: str = "call") -> Callable[..., object]:
        made: Callable[..., object] = getattr(load_file(self.write("flow.py", source)), name)
        return made

    def on_a_node(self, function: Callable[..., object], *arguments: int) -> tuple[str, set[str]]:
        """Call a function as a node would; give what it returned and the heavy imports it took."""
        with self.own.by_value():
            pickled = pickle_value(function, self.own)
        for file in self.folder.rglob("*.py"):
            file.unlink()
        payload = self.folder / "payload"
        payload.write_bytes(pickled)
        code = NODE.format(folder=str(Path(worker.__file__).parents[1]))
        words = [sys.executable, "-c", code, str(payload), *map(str, arguments)]
        ran = subprocess.run(words, capture_output=True, text=True, cwd="/", timeout=60)
        assert ran.returncode == 0, ran.stderr
        value, heavy = ran.stdout.splitlines()
        return value, set(heavy.split())


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield User(tmp_path)
    for name in sys.modules.keys() - before:
        del sys.modules[name]


LIGHT, HEAVY = set[str](), {"cloudpickle"}

# What code finds of its own file.
MODULE = """
    from __future__ import annotations
    import copy, dataclasses, enum, pickle, sys, typing
    from collections import namedtuple
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import Pool
    @dataclasses.dataclass
    class A:
        x: int
    @dataclasses.dataclass
    class B:
        a: A
        n: typing.ClassVar[int] = 3
    class Base:
        def go(self): return 1
    class Below(Base):
        def go(self): return super().go() + 1
    class Typed(typing.TypedDict):
        a: A
    Point = namedtuple("Point", "x y")
    class Mode(enum.Enum):
        FAST = 1
    def square(x): return x * x
    def made(x): return A(x)
    def local():
        @dataclasses.dataclass
        class C:
            x: int
            k: typing.ClassVar[int] = 1
        return C(1).x
    def again(thing): return pickle.loads(pickle.dumps(thing))
    def hinted(a: A) -> B: ...
    def pooled(kind, f, get=lambda one: one):
        with kind(2) as pool: return [get(one) for one in pool.map(f, [1, 2])]
    broken = (row for row in [])
"""
OF_THE_MODULE = [
    ("pooled(Pool, square)", "[1, 4]", HEAVY),
    ("pooled(ProcessPoolExecutor, made, lambda a: a.x)", "[1, 2]", HEAVY),
    ("again(A(x)) == A(x)", "True", HEAVY),
    ("again(Point(1, 2)).y", "2", HEAVY),
    ("again(Mode.FAST) is Mode.FAST", "True", HEAVY),
    ("again(square) is square", "True", LIGHT),
    ("sorted(typing.get_type_hints(B))", "['a', 'n']", HEAVY),
    ("sorted(typing.get_type_hints(Typed))", "['a']", HEAVY),
    ("sorted(typing.get_type_hints(hinted))", "['a', 'return']", HEAVY),
    ("dataclasses.asdict(B(A(1)))", "{'a': {'x': 1}}", HEAVY),
    ("dataclasses.replace(A(1), x=2).x", "2", HEAVY),
    ("copy.deepcopy(B(A(1))).a.x", "1", HEAVY),
    ("Below().go()", "2", HEAVY),
    ("local()", "1", LIGHT),
    ("sys.modules[__name__].A(1).x", "1", HEAVY),
    ("eval('A(3).x')", "3", HEAVY),
    ("globals()['square'](x)", "16", HEAVY),
    ("vars(sys.modules[__name__]) is globals()", "True", HEAVY),
]


@pytest.mark.parametrize(
    ("source", "value", "heavy"),
    [
        pytest.param(
            "def call(n): return 1 if n < 2 else n * call(n - 1)", "24", LIGHT, id="recursion"
        ),
        pytest.param(
            """
            def even(n): return n == 0 or odd(n - 1)
            def odd(n): return n != 0 and even(n - 1)
            call = even
            """,
            "True",
            LIGHT,
            id="two functions that need each other",
        ),
        pytest.param(
            """
            import math
            from pathlib import Path
            SCALE, TABLE = 10, {"root": Path("/data")}
            def helper(x): return math.floor(x * SCALE)
            def call(x): return helper(x), str(TABLE["root"])
            """,
            "(40, '/data')",
            LIGHT,
            id="helpers, globals, imports",
        ),
        pytest.param(
            """
            import xml.dom.minidom
            def call(x): return x + xml.dom.minidom.Document().nodeType
            """,
            "13",
            LIGHT,
            id="a module of an imported package",
        ),
        pytest.param(
            """
            WIDTH = 3
            def call(x, by=[1, 2], *, plus=WIDTH, **more): return x * sum(by) + plus, more
            """,
            "(15, {})",
            LIGHT,
            id="defaults",
        ),
        pytest.param(
            """
            SHIFT = 1
            shift = lambda x: x + SHIFT
            def call(x):
                class Local:
                    shift = SHIFT
                def inner(y): return (lambda z: z + SHIFT)(y)
                return [inner(shift(i)) + Local.shift for i in range(x)]
            """,
            "[3, 4, 5, 6]",
            LIGHT,
            id="lambdas, comprehensions and functions inside",
        ),
        pytest.param(
            """
            CACHE = {}
            def remember(x): CACHE[x] = x
            def call(x):
                remember(x)
                return CACHE
            """,
            "{4: 4}",
            LIGHT,
            id="a global that two functions change",
        ),
        pytest.param(
            """
            from hpcpipe import task
            @task(cpus=2, memory="1G")
            def call(x): return x
            """,
            "4",
            LIGHT,
            id="a marked function",
        ),
        pytest.param(
            """
            def make(n):
                def scaled(x): return x * n
                return scaled
            call = make(3)
            """,
            "12",
            LIGHT,
            id="a closure",
        ),
        pytest.param(
            """
            count = 0
            def bump():
                global count
                count += 1
            def call(x):
                bump()
                bump()
                return count
            """,
            "2",
            LIGHT,
            id="a global that another function rebinds",
        ),
        pytest.param(
            """
            def call(x):
                call.seen = getattr(call, "seen", call.start) + x
                return call.seen
            call.start = 10
            """,
            "14",
            LIGHT,
            id="a function with attributes",
        ),
        pytest.param(
            """
            from functools import lru_cache, wraps
            def twice(function):
                @wraps(function)
                def wrapper(x): return function(function(x))
                return wrapper
            @twice
            @lru_cache(maxsize=None)
            def call(x): return x + FAR
            FAR = 100
            """,
            "204",
            HEAVY,
            id="decorators",
        ),
        pytest.param(
            """
            from dataclasses import dataclass, field
            def square(x): return x * x
            @dataclass(frozen=True)
            class Base:
                side: int
                tags: list = field(default_factory=list)
                def area(self): return square(self.side)
            class Named(Base):
                def area(self): return "area", super().area()
            def call(x): return Named(x).area(), Base(x) == Base(x, [])
            """,
            "(('area', 16), True)",
            HEAVY,
            id="classes of the same file",
        ),
        pytest.param(
            """
            from functools import partial
            def add(x, y): return x + y
            call = partial(add, y=1)
            """,
            "5",
            LIGHT,
            id="a partial",
        ),
        *(
            pytest.param(
                f"{MODULE}\n    def call(x): return {expression}", value, heavy, id=expression
            )
            for expression, value, heavy in OF_THE_MODULE
        ),
        pytest.param(
            """
            from functools import cached_property
            class Scan:
                @cached_property
                def size(self): return 3
            def call(x):
                scan = Scan()
                return scan.size * x + scan.size
            """,
            "15",
            HEAVY,
            id="a cached property",
        ),
    ],
)
def test_a_function_comes_back_working_where_its_file_is_gone(
    user: User, source: str, value: str, heavy: set[str]
) -> None:
    assert user.on_a_node(user.function(source), 4) == (value, heavy)


@pytest.mark.parametrize(
    ("source", "heavy"),
    [
        ("from near.by import double\ndef call(x): return double(x)", LIGHT),
        ("import near.by\ndef call(x): return near.by.double(x)", LIGHT),
        ("from near import by\ndef call(x): return getattr(by, 'double')(x)", LIGHT),
        (
            "from near.by import times\ndef call(x):\n    import near.by\n"
            "    return near.by.times(times(x)) // 2",
            LIGHT,
        ),
    ],
)
@pytest.mark.parametrize("files", [("near/__init__.py",), ()], ids=["package", "namespace"])
def test_a_neighbouring_module_travels_too(
    user: User, source: str, heavy: set[str], files: tuple[str, ...]
) -> None:
    for name in files:
        user.write(name, "")
    user.write("near/by.py", "FACTOR = 2\ndef double(x): return times(x)\n")
    with (user.folder / "near/by.py").open("a") as file:
        file.write("def times(x): return x * FACTOR\n")
    assert user.on_a_node(user.function(source), 4) == ("8", heavy)


def test_installed_code_travels_by_name(user: User) -> None:
    with user.own.by_value():
        assert len(pickle_value(textwrap.dedent, user.own)) < 60


def test_all_but_installed_code_is_the_users_own(user: User) -> None:
    mine = ["flow.py", "near/by.py"]
    theirs = [".local/lib/python3.11/site-packages/installed.py", "env/dist-packages/debian.py"]
    for file in (*mine, *theirs):
        load_file(user.write(file, ""))
    own = {name for name in ("flow", "by", "installed", "debian") if user.own(name)}
    assert own == {"flow", "by"}
    assert user.own("__main__")
    assert not any(map(user.own, ("hpcpipe.worker.task", "pytest", "json", "builtins", "absent")))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "import threading\nlock = threading.Lock()\ndef call(x):\n    with lock: return x",
            r"call: .*because of the global 'lock' \(lock\): .*make it inside the function",
        ),
        (
            """
            import threading
            def make():
                lock, n = threading.Lock(), 3
                def locked(x):
                    with lock: return x + n
                return locked
            call = make()
            """,
            r"make.<locals>.locked: .*because of its closure over 'lock' \(lock\)",
        ),
        (
            "rows = (row for row in range(9))\ndef call(x): return next(rows)",
            r"because of the global 'rows' \(generator\)",
        ),
        (
            "import threading\ndef call(x, lock=threading.Lock()): return x",
            r"because of the default of 'lock' \(lock\)",
        ),
        (
            """
            import threading
            lock = threading.Lock()
            def helper(x):
                with lock: return x
            def call(x): return helper(x)
            """,
            r"call: .*because of the global 'helper' \(function\), .*the global 'lock' \(lock\)",
        ),
    ],
)
def test_what_cannot_travel_is_named(user: User, source: str, complaint: str) -> None:
    function = user.function(source)
    with pytest.raises(WorkflowError, match=complaint):
        check_callable(function, user.own)


def test_a_workflow_file_that_fails_is_named_with_its_line(user: User) -> None:
    path = user.write("flow.py", "from hpcpipe import each\n\neach([])\n")
    with pytest.raises(WorkflowError, match=rf"{path}:3: each\(\[\]\): no values"):
        load_file(path)
    with pytest.raises(UsageError, match=r"absent\.py: no such file"):
        load_file(user.folder / "absent.py")
    with pytest.raises(UsageError, match=r"flow\.txt: not a Python file"):
        load_file(user.write("flow.txt", ""))


def test_what_was_edited_within_a_second_is_read_anew(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for width in (4, 5):  # as long as before
        flow = user.write("flow.py", f"from quick_edits.part import height\nwidth = {width}\n")
        part = user.write("quick_edits/part.py", f"height = {width}\n")
        for path in (flow, part):
            os.utime(path, (1e9, 1e9))
        module = load_file(flow)
        assert (module.width, module.height) == (width, width)
        for name in ("quick_edits", "quick_edits.part"):
            del sys.modules[name]
