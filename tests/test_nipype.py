"""Workflows of nipype: the same files whoever runs them, and nothing twice.

What runs workflows runs in processes of its own, as a user's would; nipype is not imported here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from contract.dialects import LOCAL
from contract.harness import PATIENCE, Cluster, until

from hpcpipe.errors import WorkflowError
from hpcpipe.nipype.resources import demands
from hpcpipe.resources import Resources

# What never depends on the scheduler.
ANYWHERE = pytest.mark.parametrize("either", [LOCAL.param], indirect=True)
# Iterables in product, a MapNode whose width a node tells, one whose width is given, a JoinNode.
FLOW = """
import os, sys
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function, IdentityInterface

def first(a, b):
    import os
    with open("first.txt", "w") as file:
        file.write(f"{a} {b}\\n")
    return os.path.abspath("first.txt"), [a] * 3

def times(x, k=2):
    return x * k

def gather(files, sums):
    import os
    with open("all.txt", "w") as out:
        for file, sum in zip(files, sums):
            out.write(open(file).read().strip() + f": {sum}\\n")
    return os.path.abspath("all.txt")

wf = pe.Workflow("flow", base_dir=os.path.abspath("work"))
wf.config["execution"] = {"hash_method": "content"}
source = pe.Node(IdentityInterface(fields=["a", "b"]), name="source")
source.iterables = [("a", [1, 2, 3]), ("b", [10, 20])]
one = pe.Node(Function(function=first, output_names=["file", "list"]), name="one")
wide = pe.MapNode(Function(function=times), iterfield=["x"], name="wide")
given = pe.MapNode(Function(function=times), iterfield=["k"], name="given")
given.inputs.k = [1, 2, 3]
join = pe.JoinNode(
    Function(function=gather), joinsource="source", joinfield=["files", "sums"], name="join"
)
wf.connect(source, "a", one, "a")
wf.connect(source, "b", one, "b")
wf.connect(source, "a", given, "x")
wf.connect(one, "list", wide, "x")
wf.connect(one, "file", join, "files")
wf.connect(wide, "out", join, "sums")
"""
RUN = """
if sys.argv[1:] != ["hpcpipe"]:
    wf.run()
else:
    from hpcpipe.nipype import Plugin
    wf.run(plugin=Plugin())
"""
SUMS = "".join(f"{a} {b}: {[2 * a] * 3}\n" for a in (1, 2, 3) for b in (10, 20))


def python(
    either: Cluster, *words: str | Path, status: int = 0, seconds: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, which must be in this status."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=either.home, env={**either.environment, "NIPYPE_NO_ET": "1"}, text=True,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


def left(folder: Path) -> dict[str, str]:
    """All files nipype left, with their content where it says nothing of when and where."""
    paths = (path for path in folder.rglob("*") if ".hpcpipe" not in path.parts and path.is_file())
    return {
        str(path.relative_to(folder)): path.read_text() if path.suffix == ".txt" else ""
        for path in paths
    }


def written(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {name: (folder / name).stat().st_mtime_ns for name in left(folder)}


def calls(either: Cluster, script: Path) -> int:
    """How many calls of the scheduler a workflow would take now."""
    return int(json.loads(either.hpcpipe("plan", "--json", script).stdout)["calls"])


def test_nipype_and_hpcpipe_leave_the_same_files_and_go_on_from_each_other(
    either: Cluster,
) -> None:
    script = either.write("flow.py", FLOW + RUN)
    work = either.home / "work"
    python(either, script)
    serial, when = left(work), written(work)
    assert serial["flow/join/all.txt"] == SUMS
    said = python(either, script, "hpcpipe").stdout
    assert "nothing to submit" in said
    assert written(work).items() >= {n: t for n, t in when.items() if n.count("/") > 1}.items()

    work.rename(either.home / "serial")
    python(either, script, "hpcpipe")
    assert left(work) == serial
    when = written(work)
    said = python(either, script).stdout
    assert "found cached" in said
    assert "Executing" not in said
    assert written(work).items() >= {n: t for n, t in when.items() if n.count("/") > 1}.items()


def test_every_way_to_spread_work_gives_what_nipype_itself_gives(either: Cluster) -> None:
    for name in ("a1", "a2", "b1"):
        folder = either.home / "data" / name[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(name)
    script = either.write("spread.py", SPREAD + RUN)
    work = either.home / "work"
    python(either, script)
    serial = left(work)
    sunk = {name: text for name, text in serial.items() if name.startswith("sunk/")}
    assert sunk == {
        "sunk/grown/_who_a/_size_1/grown.txt": "[[2], [3, 4]] ['a1', 'a2'] a1.txt",
        "sunk/grown/_who_a/_size_2/grown.txt": "[[3], [4, 5]] ['a1', 'a2'] a1.txt",
        "sunk/grown/_who_b/_size_3/grown.txt": "[[4], [5, 6]] ['b1'] b1.txt",
        "sunk/pairs.txt": "[('a', 7), ('b', 8)]",
    }
    work.rename(either.home / "serial")
    python(either, script, "hpcpipe")
    assert left(work) == serial
    said = python(either, script).stdout
    assert "found cached" in said
    # These nipype always runs.
    assert {*re.findall(r'Executing "(\w+)"', said)} == {"files", "others", "sink", "last"}


# itersource, synchronized iterables, a nested MapNode, SelectFiles, a DataGrabber and a DataSink.
SPREAD = """
import os, sys
import nipype.pipeline.engine as pe
from nipype.interfaces.io import DataGrabber, DataSink, SelectFiles
from nipype.interfaces.utility import Function, IdentityInterface

def add(x, size):
    return x + size

def grow(rows, files, other):
    import os
    names = [os.path.basename(file)[:-4] for file in sorted(files)]
    with open("grown.txt", "w") as file:
        file.write(f"{rows} {names} {os.path.basename(other)}")
    return os.path.abspath("grown.txt")

def pair(who, number):
    return who, number

def tell(pairs):
    import os
    with open("pairs.txt", "w") as file:
        file.write(str(pairs))
    return os.path.abspath("pairs.txt")

data = os.path.abspath("data")
wf = pe.Workflow("spread", base_dir=os.path.abspath("work"))
wf.config["execution"] = {"hash_method": "content", "crashdump_dir": os.path.abspath("crashes")}
source = pe.Node(IdentityInterface(fields=["who"]), name="source")
source.iterables = ("who", ["a", "b"])
sizes = pe.Node(IdentityInterface(fields=["who", "size"]), name="sizes")
sizes.itersource = ("source", "who")
sizes.iterables = [("size", {"a": [1, 2], "b": [3]})]
files = pe.Node(SelectFiles({"found": "{who}/*.txt"}, base_directory=data, force_lists=True),
                name="files")
others = pe.Node(DataGrabber(infields=["who"], outfields=["found"]), name="others")
others.inputs.base_directory, others.inputs.template = data, "%s/*1.txt"
others.inputs.template_args = {"found": [["who"]]}
others.inputs.sort_filelist = True
rows = pe.MapNode(Function(function=add), iterfield=["x"], nested=True, name="rows")
rows.inputs.x = [[1], [2, 3]]
grown = pe.Node(Function(function=grow), name="grown")
both = pe.Node(Function(function=pair), name="both")
both.iterables, both.synchronize = [("who", ["a", "b"]), ("number", [7, 8])], True
told = pe.JoinNode(Function(function=tell), joinsource="both", joinfield="pairs", name="told")
sink = pe.Node(DataSink(base_directory=os.path.abspath("work/sunk")), name="sink")
last = pe.Node(DataSink(base_directory=os.path.abspath("work/sunk")), name="last",
               run_without_submitting=True)
wf.connect(source, "who", sizes, "who")
wf.connect(source, "who", files, "who")
wf.connect(source, "who", others, "who")
wf.connect(sizes, "size", rows, "size")
wf.connect(rows, "out", grown, "rows")
wf.connect(files, "found", grown, "files")
wf.connect(others, "found", grown, "other")
wf.connect(grown, "out", sink, "grown")
wf.connect(both, "out", told, "pairs")
wf.connect(told, "out", last, "@")
"""


def test_a_file_of_nipypes_is_submitted_and_goes_on_where_it_was_changed(
    either: Cluster,
) -> None:
    script = either.write("flow.py", FLOW + "wf.run()\nraise SystemExit('never comes here')\n")
    shown = either.hpcpipe("plan", script).stdout
    assert "given.mapflow  iterables(18): 18 to run" in shown
    assert not (either.home / "work").exists()
    either.hpcpipe("submit", f"{script}:wf")
    report = either.finish("--run", either.home / "work/flow")
    assert report["verdict"] == "finished: all 37 tasks succeeded"
    assert (either.home / "work/flow/join/all.txt").read_text() == SUMS
    assert calls(either, script) == 0

    script.write_text(script.read_text().replace('("b", [10, 20])', '("b", [10, 20, 30])'))
    shown = either.hpcpipe("plan", script).stdout
    assert "one            iterables(9): 3 to run, 6 done" in shown
    assert "join           one task: 1 to run" in shown
    assert "given          iterables(9): 3 to run, 6 done" in shown


def test_stages_share_elements_unless_a_time_is_set_and_leave_two_files_each(
    either: Cluster,
) -> None:
    script = either.write("two.py", TWO)
    timed = json.loads(either.hpcpipe("plan", "--json", "--time", "10m", script).stdout)
    assert [batch["elements"] for batch in timed["batches"]] == [8, 8]
    assert [wait["kind"] for wait in timed["batches"][1]["dependencies"]] == ["each"]
    larger = either.write("larger.py", f"{TWO}two.plugin_args = {{'memory': '1G'}}\n")
    assert calls(either, larger) == 2
    assert "Submitted in 1 call" in either.hpcpipe("submit", script).stdout
    run = either.home / "work/two"
    assert either.finish("--run", run)["verdict"] == "finished: all 16 tasks succeeded"
    left = [p.parent.name for p in (run / ".hpcpipe").rglob("*") if p.is_file()]
    assert (left.count("logs"), left.count("packs"), left.count("one")) == (8, 8, 0)


TWO = """
import os
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function

def add(x):
    return x + 1

wf = pe.Workflow("two", base_dir=os.path.abspath("work"))
one = pe.Node(Function(function=add), name="one")
one.iterables = ("x", list(range(8)))
two = pe.Node(Function(function=add), name="two")
wf.connect(one, "out", two, "x")
"""

FAILS = """
import os, sys
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function
from hpcpipe.nipype import Plugin

def work(x):
    if x == 2:
        raise ValueError("two is too many")
    return x

def more(x):
    return x

wf = pe.Workflow("fails", base_dir=os.path.abspath("work"))
wf.config["execution"] = {"crashdump_dir": os.path.abspath("crashes")}
work = pe.Node(Function(function=work), name="work")
work.iterables = ("x", [1, 2, 3])
more = pe.Node(Function(function=more), name="more")
wf.connect(work, "out", more, "x")
told = []
def tell(node, what):
    told.append((node.itername, what))
plugin = Plugin(plugin_args={"status_callback": tell})
try:
    wf.run(plugin=plugin)
except Exception as error:
    print(type(error).__name__, "two is too many" in str(error))
print(sorted(told))
"""


def test_a_node_that_fails_is_told_as_nipype_tells_it(either: Cluster) -> None:
    script = either.write("fails.py", FAILS)
    said = python(either, script).stdout
    assert "NodeExecutionError True" in said
    assert "('fails.work.aI.a1', 'exception')" in said
    assert "('fails.more.a0', 'end')" in said
    assert not re.search(r"'fails.more.a1', '(end|exception)'", said)
    (crash,) = (either.home / "crashes").iterdir()
    assert re.match(r"crash-\d{8}-\d{6}-\w+-work\.aI\.a1-.*\.pklz", crash.name)
    run = either.home / "work/fails"
    report = either.status("--run", run)
    errors = {one["task"]: one["error"] for one in report["failures"]}
    assert errors["work/x_2"] == "ValueError: two is too many"
    assert errors["more/x_2"] == "waits for work/x_2"
    assert report["nodes"]["more"]["done"] == 2

    script.write_text(FAILS.replace("if x == 2", "if x == 5"))
    either.hpcpipe("retry", "--reload", "--run", run)
    assert either.finish("--run", run)["verdict"] == "finished: all 6 tasks succeeded"


HEAD = """
import os, sys, time
import nipype.pipeline.engine as pe
from nipype.interfaces.base import (
    BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
)
from nipype.interfaces.io import DataSink
from nipype.interfaces.utility import Function
from hpcpipe.nipype import Plugin

wf = pe.Workflow("wf", base_dir=os.path.abspath("work"))
"""


@ANYWHERE
def test_a_sink_that_is_not_to_be_submitted_costs_no_job(either: Cluster) -> None:
    script = either.write("sinks.py", HEAD + SINKS)
    plan = json.loads(either.hpcpipe("plan", "--json", script).stdout)
    assert plan["tasks"] == 6
    either.hpcpipe("submit", script)
    either.finish("--run", either.home / "work/wf")
    kept = {str(p.relative_to(either.home / "kept")) for p in (either.home / "kept").rglob("*.txt")}
    assert kept == {f"texts/_x_{x}/{x}.txt" for x in (1, 2, 3)}


def test_nodes_that_are_not_to_be_submitted_are_handed_on_to_the_one_below(
    either: Cluster,
) -> None:
    script = either.write("heads.py", HEAD + HEADS)
    plan = json.loads(either.hpcpipe("plan", "--json", script).stdout)
    assert plan["tasks"] == 4
    assert "together [2, 3, 4]" in python(either, script, "run").stdout


HEADS = """
def add(x):
    return x + 1

def same(x):
    return x

first = pe.Node(Function(function=add), name="first")
first.iterables = ("x", [1, 2, 3])
join = pe.JoinNode(Function(function=same), joinsource="first", joinfield="x", name="join",
                   run_without_submitting=True)
again = pe.Node(Function(function=same), name="again", run_without_submitting=True)
last = pe.Node(Function(function=same), name="last")
wf.connect(first, "out", join, "x")
wf.connect(join, "out", again, "x")
wf.connect(again, "out", last, "x")
if __name__ == "__main__":
    ran = wf.run(plugin=Plugin())
    print(*("together %s" % n.result.outputs.out for n in ran if n.name == "last"))
"""


SINKS = """
def write(x):
    import os
    with open(f"{x}.txt", "w") as file:
        file.write(str(x))
    return os.path.abspath(f"{x}.txt")

def size(file):
    import os
    return os.path.getsize(file)

one = pe.Node(Function(function=write), name="one")
one.iterables = ("x", [1, 2, 3])
two = pe.Node(Function(function=size), name="two")
sink = pe.Node(DataSink(base_directory=os.path.abspath("kept")), name="sink",
               run_without_submitting=True)
wf.connect(one, "out", two, "file")
wf.connect(one, "out", sink, "texts")
"""


def test_sub_nodes_run_side_by_side_where_there_are_cpus_for_it(either: Cluster) -> None:
    script = either.write("map.py", HEAD + MEETING)
    python(either, script)


# Each sub-node waits until all three are there.
MEETING = """
def three():
    return [1, 2, 3]

def meet(x, folder):
    import os, time
    open(os.path.join(folder, str(x)), "w").close()
    until = time.monotonic() + 60
    while len(os.listdir(folder)) < 3:
        assert time.monotonic() < until, "met nobody"
        time.sleep(0.05)
    return 2 * x

os.mkdir("place")
one = pe.Node(Function(function=three), name="one")
two = pe.MapNode(Function(function=meet), iterfield="x", name="two")
two.inputs.folder = os.path.abspath("place")
wf.connect(one, "out", two, "x")
ran = wf.run(plugin=Plugin(map_procs=3))
assert [node.result.outputs.out for node in ran if node.name == "two"] == [[2, 4, 6]]
"""


@ANYWHERE
def test_classes_of_the_script_itself_come_along(either: Cluster) -> None:
    script = either.write("own.py", HEAD + OWN)
    assert "[4, 8]" in python(either, script).stdout
    (either.home / "work").rename(either.home / "before")
    either.hpcpipe("submit", script)
    report = either.finish("--run", either.home / "work/wf")
    assert report["verdict"] == "finished: all 4 tasks succeeded"


OWN = """
class DoubleInput(BaseInterfaceInputSpec):
    x = traits.Int(mandatory=True)

class DoubleOutput(TraitedSpec):
    out = traits.Int()

class Double(SimpleInterface):
    input_spec = DoubleInput
    output_spec = DoubleOutput

    def _run_interface(self, runtime):
        self._results["out"] = 2 * self.inputs.x
        return runtime

one = pe.Node(Double(), name="one")
one.iterables = ("x", [1, 2])
two = pe.Node(Double(), name="two")
wf.connect(one, "out", two, "x")
ran = wf.run(plugin=Plugin())
print(sorted(node.result.outputs.out for node in ran if node.name == "two"))
"""


def test_the_first_crash_stops_the_rest_where_nipype_is_told_so(either: Cluster) -> None:
    script = either.write("stop.py", HEAD + STOPS)
    assert "ValueError" in python(either, script, "wait", status=1).stderr
    report = either.status("--run", either.home / "work/wf")
    assert {one["task"]: one["state"] for one in report["failures"]}["slow"] == "cancelled"
    assert not (either.home / "late").exists()


def test_the_first_crash_stops_the_rest_though_nobody_waits(either: Cluster) -> None:
    script = either.write("stop.py", HEAD + STOPS)
    python(either, script)
    report = either.finish("--run", either.home / "work/wf")
    (late,) = [one for one in report["failures"] if one["task"] == "late"]
    assert late["error"] == "not run: wf.crash crashed, and stop_on_first_crash is set"
    assert not (either.home / "late").exists()


# What waits for the slow one would run after the crash; without anybody waiting it ends by itself.
STOPS = """
def crash(folder):
    import os, time
    until = time.monotonic() + 60
    while not os.path.exists(os.path.join(folder, "started")):
        assert time.monotonic() < until, "the other never started"
        time.sleep(0.1)
    raise ValueError("stop here")

def slow(folder, wait):
    import os, time
    open(os.path.join(folder, "started"), "w").close()
    until = time.monotonic() + 60
    while wait or len(os.listdir(folder)) < 2:
        assert time.monotonic() < until, "nobody crashed, or nobody cancelled"
        time.sleep(0.1)
    return 1

def late(x, path):
    open(path, "w").close()

crashes = os.path.abspath("crashes")
os.mkdir(crashes)
wf.config["execution"] = {"stop_on_first_crash": True, "crashdump_dir": crashes}
slow = pe.Node(Function(function=slow), name="slow")
slow.inputs.folder, slow.inputs.wait = crashes, "wait" in sys.argv
late = pe.Node(Function(function=late), name="late")
late.plugin_args = {"memory": "600M"}
late.inputs.path = os.path.abspath("late")
wf.connect(slow, "out", late, "x")
crash = pe.Node(Function(function=crash), name="crash")
crash.inputs.folder = crashes
wf.add_nodes([crash])
wf.run(plugin=Plugin(wait="wait" in sys.argv))
"""


def test_a_second_client_joins_what_the_first_one_left_in_the_queue(either: Cluster) -> None:
    script = either.write("joins.py", HEAD + JOINS)
    python(either, script)
    said = python(either, script).stdout
    assert "nothing to submit" in said
    (either.home / "go").touch()
    report = either.finish("--run", either.home / "work/wf")
    assert report["verdict"] == "finished: all 4 tasks succeeded"
    assert (either.home / "ran").read_text() == "xx"
    assert calls(either, script) == 0
    (result,) = (either.home / "work/wf/_n_1/two").glob("result_*")
    result.unlink()  # now nipype's word is that it must run, though its outcome was good
    assert calls(either, script) == 1


JOINS = """
def wait(n, folder):
    import os, time
    until = time.monotonic() + 60
    while not os.path.exists(os.path.join(folder, "go")):
        assert time.monotonic() < until, "never told to go"
        time.sleep(0.1)
    with open(os.path.join(folder, "ran"), "a") as file:
        file.write("x")
    return n

def more(n):
    return n + 1

one = pe.Node(Function(function=wait), name="one")
one.iterables = ("n", [1, 2])
one.inputs.folder = os.getcwd()
wf.config["execution"] = {"hash_method": "content"}
two = pe.Node(Function(function=more), name="two")
wf.connect(one, "out", two, "n")
wf.run(plugin=Plugin(wait=False))
"""


def test_map_nodes_whose_width_a_node_tells_are_arrays_where_they_ask_for_it(
    either: Cluster,
) -> None:
    script = either.write("widths.py", HEAD + WIDTHS + RUN)
    work, run = either.home / "work", either.home / "work/wf"
    python(either, script)
    serial = left(work)
    assert calls(either, script) == 0
    work.rename(either.home / "serial")

    planned = either.hpcpipe("plan", script).stdout
    assert re.search(r"two.mapflow +iterables\(2\) x sub-node\(\?\): width known when", planned)
    python(either, script, "hpcpipe", seconds=3 * PATIENCE)  # 38 tasks, a few at a time
    assert left(work) == serial
    nodes = either.status("--run", run)["nodes"]
    counts = {name: one["done"] for name, one in nodes.items() if name.endswith(".mapflow")}
    assert counts == {f"{name}.mapflow": many for name, many in SUB_NODES.items()}
    extra = re.findall(r'"submitted",.*"batch": "\+', (run / ".hpcpipe/ledger.jsonl").read_text())
    assert 0 < len(extra) <= 2 * len(counts)
    assert "nothing to submit" in python(either, script, "hpcpipe").stdout
    said = python(either, script).stdout
    assert "found cached" in said
    assert "Executing" not in said


@ANYWHERE
def test_what_nipype_has_run_already_tells_the_width_at_once(either: Cluster) -> None:
    script = either.write("widths.py", HEAD + WIDTHS + RUN)
    python(either, script)
    serial = left(either.home / "work")
    (either.home / "work/wf/_n_2/two/result_two.pklz").unlink()
    planned = either.hpcpipe("plan", script).stdout
    assert "two.mapflow     iterables x sub-node (4): 3 to run, 1 done" in planned
    assert "pairs.mapflow   iterables x sub-node (4): 4 done" in planned
    assert "more.mapflow    iterables x sub-node (1): 1 done, the rest known when two" in planned
    python(either, script, "hpcpipe", seconds=3 * PATIENCE)
    assert left(either.home / "work") == serial


# Of a list for each of two subjects; of what that makes; of two lists, one through a function; of a
# nested one; of one with a given one, and one of what is joined. A serial one stays whole.
SUB_NODES = {"pairs": 4, "rows": 6, "two": 4, "more": 4, "given": 2, "joined": 2}
WIDTHS = """
def lists(n):
    return [7, 8, 9][: 2 * n - 1], [[1], [2, 3]]

def times(x, k=1):
    import os
    with open("made.txt", "w") as file:
        file.write(str(x * k))
    return x * k, os.path.abspath("made.txt")

def backwards(some):
    return some[::-1]

def add_up(x):
    return [sum(some) for some in x]

def tell(*_, **all):
    import os
    with open("told.txt", "w") as file:
        for name, value in sorted(all.items()):
            file.write(f"{name} {value}\\n")
    return os.path.abspath("told.txt")

def over(name, *fields, **options):
    function = Function(function=times, output_names=["out", "file"])
    node = pe.MapNode(function, fields, name, **options)
    node.plugin_args = {"map_tasks": True}
    return node

wf.config["execution"] = {"hash_method": "content", "crashdump_dir": os.path.abspath("crashes")}
lists = pe.Node(Function(function=lists, output_names=["list", "rows"]), name="lists")
lists.iterables = ("n", [1, 2])
two, more, pairs = over("two", "x"), over("more", "x"), over("pairs", "x", "k")
rows, slow = over("rows", "x", nested=True), over("slow", "x", serial=True)
sums = pe.JoinNode(Function(function=add_up), joinsource="lists", joinfield="x", name="sums")
joined, given = over("joined", "x"), over("given", "x", "k")
given.inputs.k = [2, 3]
fields = ["files", "given", "joined", "pairs", "rows", "slow"]
told = pe.JoinNode(Function(function=tell, input_names=fields), joinsource="lists", name="told",
                   joinfield=["files", "pairs", "rows", "slow"])
wf.connect([
    (lists, two, [("list", "x")]),
    (two, more, [("out", "x")]),
    (lists, pairs, [(("list", backwards), "x"), ("list", "k")]),
    (lists, rows, [("rows", "x")]),
    (lists, slow, [("list", "x")]),
    (more, sums, [("out", "x")]),
    (sums, joined, [("out", "x")]),
    (sums, given, [("out", "x")]),
    (more, told, [("file", "files")]),
    (pairs, told, [("out", "pairs")]),
    (rows, told, [("out", "rows")]),
    (slow, told, [("out", "slow")]),
    (joined, told, [("out", "joined")]),
    (given, told, [("out", "given")]),
])
"""


@pytest.mark.parametrize("may_submit", [True, False])
def test_a_sub_node_that_fails_is_told_by_name_and_retried_alone(
    may_submit: bool, either: Cluster
) -> None:
    site = f'extends = "{either.dialect.site}"\n[nodes]\nmay_submit = {str(may_submit).lower()}\n'
    script = either.write("fails.py", HEAD + ONE_FAILS)
    run = either.home / "work/wf"
    said = python(either, script, either.write("site.toml", site)).stdout
    assert "NodeExecutionError True" in said
    assert "('wf.last.a0', 'end')" in said
    assert not re.search(r"'wf.(two|last).a1', '(end|exception)'", said)
    errors = {one["task"]: one["error"] for one in either.status("--run", run)["failures"]}
    assert errors == {
        "two.mapflow/n_3/1": "ValueError: one is too few",
        "two/n_3": "waits for two.mapflow/n_3/1",
        "last/n_3": "waits for two/n_3",
    }
    (either.home / "go").touch()
    either.hpcpipe("retry", "--run", run)
    assert either.finish("--run", run)["verdict"] == "finished: all 10 tasks succeeded"
    assert {file.name: file.read_text() for file in either.home.glob("ran.*")} == {
        "ran.0": "xx", "ran.1": "xx", "ran.2": "x",
    }  # fmt: skip
    assert calls(either, script) == 0


ONE_FAILS = """
def numbers(n):
    return list(range(n))

def note(x, folder):
    import os
    with open(os.path.join(folder, f"ran.{x}"), "a") as file:
        file.write("x")
    if x == 1 and not os.path.exists(os.path.join(folder, "go")):
        raise ValueError("one is too few")
    return x

def same(x):
    return x

wf.config["execution"] = {"hash_method": "content", "crashdump_dir": os.path.abspath("crashes")}
one = pe.Node(Function(function=numbers), name="one")
one.iterables = ("n", [1, 3])
two = pe.MapNode(Function(function=note), "x", name="two")
two.plugin_args = {"map_tasks": True}
two.inputs.folder = os.getcwd()
last = pe.Node(Function(function=same), name="last")
wf.connect([(one, two, [("out", "x")]), (two, last, [("out", "x")])])
told = []
def tell(node, what):
    told.append((node.itername, what))
try:
    wf.run(plugin=Plugin(site=sys.argv[-1], status_callback=tell))
except Exception as error:
    print(type(error).__name__, "one is too few" in str(error))
print(sorted(told))
"""


@ANYWHERE
@pytest.mark.parametrize("lists", ["[], []", "Undefined, [1]", "[1, 2], [1]"])
def test_lists_that_nipype_refuses_are_refused_in_its_words(lists: str, either: Cluster) -> None:
    script = either.write("refused.py", HEAD + REFUSED.replace("LISTS", lists))
    theirs = python(either, script).stdout.splitlines()[-1]
    assert "iterfields" in theirs
    shutil.rmtree(either.home / "work")
    assert python(either, script, "hpcpipe").stdout.splitlines()[-1] == theirs
    nodes = either.status("--run", either.home / "work/wf")["nodes"]
    assert nodes["one"]["done"] == 1


REFUSED = """
def lists():
    from nipype.interfaces.base import Undefined
    return LISTS

def add(x, y):
    return x + y

wf.config["execution"] = {"crashdump_dir": os.path.abspath("crashes")}
one = pe.Node(Function(function=lists, output_names=["x", "y"]), name="one")
two = pe.MapNode(Function(function=add), ["x", "y"], name="two")
wf.connect([(one, two, [("x", "x"), ("y", "y")])])
try:
    wf.run(plugin=Plugin(map_tasks=True) if sys.argv[1:] else "Linear")
except Exception as error:
    print((error.__cause__ or error).args[0].splitlines()[0])
"""


def test_sub_nodes_come_to_be_in_the_queue_are_retried_there_and_joined(either: Cluster) -> None:
    script = either.write("later.py", HEAD + LATER)
    run = either.home / "work/wf"
    python(either, script)
    until(lambda: either.status("--run", run)["nodes"]["two"].get("queued"))
    assert "nothing to submit" in python(either, script).stdout
    (either.home / "go").touch()
    assert either.finish("--run", run)["verdict"] == "finished: all 4 tasks succeeded"
    ran = {file.name: file.read_text() for file in either.home.glob("ran.*")}
    assert ran == {"ran.1": "x", "ran.2": "xx"}
    assert calls(either, script) == 0


LATER = """
def both():
    return [1, 2]

def wait(n, folder):
    import os, time
    until = time.monotonic() + 60
    while not os.path.exists(os.path.join(folder, "go")):
        assert time.monotonic() < until, "never told to go"
        time.sleep(0.1)
    ran = os.path.join(folder, f"ran.{n}")
    with open(ran, "a") as file:
        file.write("x")
    if n == 2 and os.path.getsize(ran) == 1:
        raise ValueError("not yet")
    return n

wf.config["execution"] = {"hash_method": "content", "crashdump_dir": os.path.abspath("crashes")}
one = pe.Node(Function(function=both), name="one")
two = pe.MapNode(Function(function=wait), "n", name="two")
two.inputs.folder = os.getcwd()
wf.connect(one, "out", two, "n")
wf.run(plugin=Plugin(wait=False, map_tasks=True, retries=1))
"""


@ANYWHERE
def test_updatehash_and_overwrite_mean_what_they_mean_to_nipype(either: Cluster) -> None:
    script = either.write("hashes.py", HEAD + HASHES)
    python(either, script, "1")
    assert (either.home / "ran").read_text() == "1"
    python(either, script, "2", "updatehash")
    assert (either.home / "ran").read_text() == "1"
    for _ in range(2):  # nipype writes the new hash into the current folder, so not "updatehash"
        python(either, script, "2", "overwrite")
    assert (either.home / "ran").read_text() == "122"


HASHES = """
def note(n, folder):
    import os
    with open(os.path.join(folder, "ran"), "a") as file:
        file.write(str(n))
    return n

wf.config["execution"] = {"hash_method": "content"}
node = pe.Node(Function(function=note), name="node", overwrite="overwrite" in sys.argv or None)
node.inputs.n, node.inputs.folder = int(sys.argv[1]), os.getcwd()
wf.add_nodes([node])
wf.run(plugin=Plugin(), updatehash="updatehash" in sys.argv)
"""


def test_a_program_that_takes_a_plugins_name_finds_ours(either: Cluster) -> None:
    script = either.write("named.py", HEAD.replace("from hpcpipe.nipype import Plugin", "") + NAMED)
    said = python(either, "-m", "hpcpipe.nipype", script, "3").stdout
    assert "hpcpipe: submitted in 1 calls" in said
    assert "no use for: maxtasksperchild" in said
    assert said.endswith("got 4\n")


NAMED = """
def add(x):
    return x + 1

node = pe.Node(Function(function=add), name="node")
node.inputs.x = int(sys.argv[1])
wf.add_nodes([node])
args = {"memory": "600M", "n_procs": 4, "maxtasksperchild": 1}
(ran,) = wf.run(plugin="hpcpipe", plugin_args=args)
print("got", ran.result.outputs.out)
"""


@ANYWHERE
def test_the_posters_workflow_takes_any_interface(either: Cluster) -> None:
    script = Path(__file__).parent.with_name("examples") / "poster" / "indirect.py"
    for name in ("SAD01.nii", "SAD02.nii", "SAD03.nii", "T2.nii"):
        (either.home / name).write_text(name)
    there = replace(either, changed={"TEMPLATE": str(either.home / "T2.nii")})
    shown = json.loads(there.hpcpipe("plan", "--json", script).stdout)
    assert [batch["elements"] for batch in shown["batches"]] == [3]
    python(there, there.write("mine.py", f"poster = {str(script.parent)!r}\n{POSTER}"))


POSTER = """
import sys
sys.path.append(poster)
from glob import glob
from os.path import abspath
from hpcpipe.nipype import Plugin
from indirect import over_files
from nipype.interfaces.utility import Function

def name(source):
    return open(source).read()

wf = over_files(Function(function=name), "source", sorted(glob(abspath("SAD*.nii"))))
ran = wf.run(plugin=Plugin())
assert sorted(node.result.outputs.out for node in ran) == ["SAD01.nii", "SAD02.nii", "SAD03.nii"]
"""


# --- what nodes ask for ---------------------------------------------------------------------------


@dataclass
class Asking:
    """As much of a node of nipype as asks for something."""

    n_procs: int = 1
    mem_gb: float = 0.2
    plugin_args: Any = None
    gpu: bool = False
    fullname: str = "wf.node"
    interface: Any = None

    def is_gpu_node(self) -> bool:
        return self.gpu


_smooth = type("Smooth", (), {"__module__": "nipype.interfaces.spm.preprocess"})
SMOOTH = type("MySmooth", (_smooth,), {"__module__": "study"})()  # of the user's own
FUNCTION = type("Function", (), {"__module__": "nipype.interfaces.utility.wrappers"})()


@pytest.mark.parametrize(
    ("node", "usual", "at_a_time", "asked"),
    [
        (Asking(interface=SMOOTH), {}, 1, Resources(software=("spm",))),
        (Asking(interface=SMOOTH), {"software": ["spm12"]}, 1, Resources(software=("spm12",))),
        (Asking(interface=SMOOTH, plugin_args={"software": []}), {}, 1, Resources(software=())),
        (Asking(interface=FUNCTION), {}, 1, Resources()),
        (Asking(), {}, 1, Resources()),
        (Asking(), {"time": "1h", "cpus": 2}, 1, Resources(time=3600, cpus=2)),
        (Asking(n_procs=4, mem_gb=2.5), {"cpus": 2}, 1, Resources(cpus=4, memory=2560)),
        (Asking(n_procs=2, mem_gb=1), {}, 3, Resources(cpus=6, memory=3072)),
        (Asking(mem_gb=0.01), {}, 1, Resources(memory=512)),
        (Asking(gpu=True), {}, 1, Resources(gpus=1)),
        (Asking(mem_gb=1, plugin_args={"memory": "3G"}), {}, 1, Resources(memory=3072)),
        (
            Asking(plugin_args={"sbatch_args": "-c4 --mem=3G -t 90 -p long --account lab -J x"}),
            {},
            1,
            Resources(cpus=4, memory=3072, time=5400, queue="long", account="lab"),
        ),
    ],
)
def test_what_a_node_asks_for(
    node: Asking, usual: dict[str, Any], at_a_time: int, asked: Resources
) -> None:
    assert demands(node, usual, at_a_time) == asked


def test_an_option_of_sbatch_that_would_be_lost_is_refused() -> None:
    node = Asking(plugin_args={"sbatch_args": "--mem=3G --qos=high"})
    with pytest.raises(WorkflowError, match="--qos=high has no counterpart here"):
        demands(node, {})


STAND_INS = """
import sys
from hpcpipe.nipype import element
import nipype.pipeline.engine.utils as engine
import nipype.utils.config as config

taken = "filelock", "dateutil.parser", "nipype.utils.provenance"
assert not {*taken} & {*sys.modules}, "nipype's import has loaded what it should not"
assert engine.nipype_ns["pipe"].uri.endswith("nipype/terms/pipe")
assert engine.pm.Namespace("a", "b")
with config.SoftFileLock(sys.argv[1], timeout=1):
    pass
import filelock, nipype.utils.provenance
assert isinstance(filelock.SoftFileLock, type)
assert isinstance(nipype.utils.provenance.ProvStore, type)
"""


def test_what_stands_in_for_seldom_used_modules_loads_them_when_it_is_used(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STAND_INS, tmp_path / "lock"], check=True, timeout=60)


BIG = """
import sys
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function

def step(x):
    return x

def part(name):
    wf = pe.Workflow(name)
    nodes = [pe.Node(Function(function=step), name=f"n{i}") for i in range(3)]
    for above, below in zip(nodes, nodes[1:]):
        wf.connect(above, "out", below, "x")
    return wf

wf = pe.Workflow("prep_wf", base_dir="work")
for named in sys.argv[1:]:
    subject, runs = named.split(":")
    own = pe.Workflow(subject)
    anat = part("anat_wf")
    anat.inputs.n0.x = named
    for run in runs.split(","):
        own.connect(anat, "n2.out", part(run), "n0.x")
    wf.add_nodes([own])
wf.run()
"""


LABELS = """
import json, sys
from hpcpipe.frontends.load import load_workflow

nodes = load_workflow(sys.argv[1], sys.argv[2:]).nodes
labels = {name: node.axes[0].labels if node.axes else [""] for name, node in nodes.items()}
print(json.dumps({name: sorted(found) for name, found in labels.items()}))
"""


@pytest.mark.parametrize(
    ("subjects", "nodes"),
    [
        (["sub_01_wf:bold_wf"], {"sub_wf.anat_wf": ["01"], "sub_wf.bold_wf": ["01"]}),
        (
            ["sub_01_wf:bold_wf", "sub_SAD7_wf:bold_wf", "sub_03_wf:run1,run2"],
            {
                "sub_wf.anat_wf": ["01", "03", "SAD7"],
                "sub_wf.bold_wf": ["01", "SAD7"],
                "sub_wf.run": ["03_run1", "03_run2"],
            },
        ),
        (["S1:bold_wf", "S2:bold_wf"], {f"S.{one}_wf": ["S1", "S2"] for one in ("anat", "bold")}),
        (
            ["left:a_wf", "right:a_wf"],
            {f"{side}.{one}_wf": [""] for side in ("left", "right") for one in ("anat", "a")},
        ),
    ],
)
def test_sub_workflows_that_do_the_same_are_one_array(
    subjects: list[str], nodes: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "study.py").write_text(BIG)
    planned = subprocess.run(
        [sys.executable, "-c", LABELS, "study.py", *subjects],
        cwd=tmp_path, env={**os.environ, "NIPYPE_NO_ET": "1"},
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    expected = {f"{name}.n{at}": labels for name, labels in nodes.items() for at in range(3)}
    assert json.loads(planned.stdout) == expected
