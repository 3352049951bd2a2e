"""Which tasks of a study run again after which edit: the table in the pages is made here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from conftest import Golden

# Files of a study of three subjects and two widths, in each of the three ways.
SHARED = {
    "subjects.txt": "S2\nS4\nS6\n",
    "widths.txt": "4\n8\n",
    **{f"data/{subject}/T1.nii": f"{subject}\n" for subject in ("S2", "S4", "S6")},
}
LISTS = """
from pathlib import Path
SUBJECTS = [line for line in Path("subjects.txt").read_text().split("\\n") if line[:1] == "S"]
IMAGES = [str(*Path("data", subject).glob("*.nii")) for subject in SUBJECTS]
WIDTHS = [int(line) for line in Path("widths.txt").read_text().split()]
MEMORY = "1G"
"""
PYTHON = (
    LISTS
    + """
from hpcpipe import Workflow, each, task
import helpers

def strip(image: Path) -> Path:
    return image

@task(memory=MEMORY)
def smooth(image, width):
    return helpers.scale(width)

def check(image):
    return image

wf = Workflow("study")
stripped = wf.add(strip, image=each(IMAGES, axis="subject"))
wf.add(smooth, image=stripped, width=each(WIDTHS))
# more
"""
)
NIPYPE = (
    LISTS
    + """
import os
import nipype.pipeline.engine as pe
from nipype.interfaces.utility import Function

def same(image):
    return image

def widen(image, width):
    '''Double it.'''
    return width * 2

wf = pe.Workflow("study", base_dir=os.path.abspath("work"))
wf.config["execution"] = {"hash_method": "content"}
strip = pe.Node(Function(function=same), name="strip")
strip.iterables = ("image", [os.path.abspath(image) for image in IMAGES])
smooth = pe.Node(Function(function=widen), name="smooth", mem_gb=float(MEMORY[:-1]))
smooth.iterables = ("width", WIDTHS)
wf.connect(strip, "out", smooth, "image")
# more
"""
)
HELPERS = 'def scale(width):\n    """Double it."""\n    return width * 2\n'
KINDS: dict[str, dict[str, str]] = {
    "map": {"smooth.sh": 'echo "$1" "$2"\n'},
    "Python": {"study.py": PYTHON, "helpers.py": HELPERS},
    "nipype": {"study.py": NIPYPE},
}
RUNS = """
import json, os, sys
from pathlib import Path
from hpcpipe.frontends.load import load_workflow
from hpcpipe.frontends.map import map_workflow
from hpcpipe.keys.fates import RUN, Known
from hpcpipe.keys.plan import make_plan
good = Path(sys.argv[2]).parent.absolute() / "good.json"
if sys.argv[1] == "nipype":
    import nipype.pipeline.engine
for folder in sys.argv[2:]:
    if os.fork():
        assert os.wait()[1] == 0
        os.rename(os.path.join(os.path.dirname(folder), "study"), folder)
        continue
    here = os.path.join(os.path.dirname(folder), "study")  # nipype's keys hold absolute paths
    os.rename(folder, here)
    os.chdir(here)
    if sys.argv[1] == "map":
        files = [line for line in Path("subjects.txt").read_text().splitlines() if line[0] == "S"]
        files = [str(*Path("data", one).glob("*.nii")) for one in files]
        words = ["sh", "smooth.sh", "{1}", "{2}", ":::", *files, "::::", "widths.txt"]
        memory = Path("memory").read_text() if Path("memory").exists() else "1G"
        workflow = map_workflow(words, resources={"memory": memory})
    else:
        workflow = load_workflow("study.py")
    done = json.loads(good.read_text()) if good.exists() else {}
    plan = make_plan(workflow, {name: Known(good=keys) for name, keys in done.items()})
    nodes = plan.nodes.values()
    fates = [(one.node.task(i), fate) for one in nodes for i, fate in enumerate(one.fates)]
    print(json.dumps({name: fate == RUN for name, fate in fates}))
    if not done:
        good.write_text(json.dumps({
            one.node.name: [one.key(i) for i in range(len(one.fates))] for one in nodes
        }))
    sys.stdout.flush()
    os._exit(0)
"""


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        files = [folder / one for one in (name, "study.py") if (folder / one).exists()]
        for file in files:
            file.write_text(file.read_text().replace(old, new))

    return edit


def subject(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / "data" / name).mkdir()
        (folder / "data" / name / "T1.nii").write_text(f"{name}\n")
        names = sorted([name, "S2", "S4", "S6"])
        (folder / "subjects.txt").write_text("\n".join(names) + "\n")

    return edit


def helper(folder: Path) -> None:
    replaced("helpers.py", "* 2", "* 3")(folder)
    replaced("smooth.sh", "echo", "printf %s")(folder)


def memory(folder: Path) -> None:
    replaced("study.py", '"1G"', '"2G"')(folder)
    (folder / "memory").write_text("2G")


def rename(folder: Path) -> None:
    (folder / "data/S4/T1.nii").rename(folder / "data/S4/T1w.nii")


def node(folder: Path) -> None:
    replaced("study.py", "# more", MORE[folder.parent.name])(folder)


MORE = {
    "map": "",
    "Python": "wf.add(check, image=stripped)",
    "nipype": 'check = pe.Node(Function(function=same), name="check")\n'
    'wf.connect(strip, "out", check, "image")',
}
EDITS: Mapping[str, Callable[[Path], None]] = {
    "a subject is added that sorts first": subject("S1"),
    "a subject is added in the middle": subject("S3"),
    "a subject is added at the end": subject("S9"),
    "a comment is added to the list": replaced("subjects.txt", "S4", "# not S3\nS4"),
    "a helper of the second step is edited": helper,
    "a docstring is edited": replaced("helpers.py", "Double it.", "Twice as wide."),
    "more memory is requested": memory,
    "an image is renamed": rename,
    "a width is added": replaced("widths.txt", "8", "8\n12"),
    "a node is added": node,
}

NONE = "(?!)"
MUST = {  # the names of the tasks that run again
    "a subject is added that sorts first": "/S1",
    "a subject is added in the middle": "/S3",
    "a subject is added at the end": "/S9",
    "a comment is added to the list": NONE,
    "a helper of the second step is edited": "sh/|smooth/",
    "a docstring is edited": NONE,
    "more memory is requested": NONE,
    "an image is renamed": "/S4",
    "a width is added": "12$",
    "a node is added": "check/",
}
OTHERWISE = {("nipype", "a docstring is edited"): "smooth/"}


def plans(tmp_path: Path, kind: str) -> Iterator[dict[str, bool]]:
    """Yield by name whether each task runs: at first, and after each edit once all succeeded."""
    folders = [tmp_path / kind / str(at) for at in range(len(EDITS) + 1)]
    for folder, edit in zip(folders, [lambda _: None, *EDITS.values()], strict=True):
        for name, text in (SHARED | KINDS[kind]).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        edit(folder)
    words = [sys.executable, "-c", RUNS, kind, *map(str, folders)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    yield from map(json.loads, ran.stdout.splitlines())


def test_exactly_the_tasks_that_must_run_again_do(tmp_path: Path, golden: Golden) -> None:
    rows = {edit: [edit] for edit in EDITS}
    for kind in KINDS:
        first, *after = plans(tmp_path, kind)
        assert all(first.values())
        for edit, runs in zip(EDITS, after, strict=True):
            must = OTHERWISE.get((kind, edit), MUST[edit])
            again = [task for task, run in runs.items() if run]
            assert again == [task for task in runs if re.search(must, task)], (kind, edit)
            absent = kind == "map" and edit in ("a docstring is edited", "a node is added")
            rows[edit].append("–" if absent else f"{len(again)} of {len(runs)}")
    head = ["edit", *KINDS]
    widths = [max(len(row[at]) for row in (head, *rows.values())) for at in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows.values())
    ]
    golden("reruns.rst", "\n".join([rule, table[0], rule, *table[1:], rule]) + "\n")
