"""The shipped site files: each loads, says what it is, and renders what it was seen to render."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcpipe import Workflow, each
from hpcpipe.errors import ConfigError
from hpcpipe.jobs import Capabilities
from hpcpipe.keys.plan import make_plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.resources import Resources
from hpcpipe.schedulers import REGISTRY
from hpcpipe.site import Site
from hpcpipe.site.file import Machine
from hpcpipe.site.load import load_site
from hpcpipe.site.route import route
from hpcpipe.submit.render import make_job, render

SHIPPED = Machine.here().shipped
SITES = sorted(file.stem for file in SHIPPED.glob("*.toml"))
# Of no cluster in particular: the bare schedulers, which other tests try, and a shape.
BARE = {name for name in SITES if name.startswith("test-") or name in REGISTRY}
SHAPES = BARE | {"slurm-nodes"}
ASKED = {
    "a usual task": {"cpus": 4, "memory": "8G", "time": "1h"},
    "a long one": {"cpus": 1, "memory": "4G", "time": "30h", "scratch": "10G"},
    "one with a GPU": {"cpus": 4, "memory": "16G", "time": "2h", "gpus": 1},
    "one with much memory": {"cpus": 8, "memory": "900G", "time": "10h"},
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no settings of this machine count."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize("name", SITES)
def test_a_shipped_site_says_what_it_is_and_where_that_is_written(name: str) -> None:
    site = load_site(name).site
    assert (site.name, bool(site.description)) == (name, True)
    if name not in SHAPES:
        assert site.as_of
        assert site.sources
        assert site.check
        assert site.hosts or site.detect or name == "alliance"
        assert site.tried.startswith("not tried on the cluster itself")
        text = (SHIPPED / f"{name}.toml").read_text()
        assert text.startswith("# "), "a comment says first which cluster it is"


@pytest.mark.parametrize("name", sorted({*SITES} - BARE))
def test_what_a_shipped_site_makes_of_tasks_is_as_it_was(
    name: str, golden: Callable[[str, str], None]
) -> None:
    site = load_site(name).site
    golden(f"sites/{name}.txt", "\n".join(text(site, what) for what in ASKED))


def text(site: Site, what: str) -> str:
    """Give what becomes of three tasks: the queue and why, and the head of the script."""
    asked = Resources.parse(account="ab12", **ASKED[what])  # type: ignore[arg-type]
    said = ", ".join(f"{key} {value}" for key, value in ASKED[what].items())
    head = f"== {what}: {said}\n"
    try:
        batch = first_of_three(asked, site)
        chosen = route(asked.times(1, batch.turns), site, batch.lanes)
    except ConfigError as error:
        return f"{head}refused: {error}\n"
    job = make_job(batch, "echo-0a1b2c3d", chosen, site, "wf", "/data/here")
    script = render(job, site)
    subprocess.run(["/bin/sh", "-n"], input=script.encode(), check=True)
    kept = [line for line in own_lines(script) if not line.startswith("# hpcpipe ")]
    return f"{head}{chosen.why}\n" + "\n".join(kept) + "\n"


def own_lines(script: str) -> list[str]:
    """Leave out of a script what is the same on every site."""
    top, _, rest = script.partition("\nnewline=")
    rest = rest.partition('with_functions() { exec "$@"; }\n')[2].partition("\nposition=")[0]
    return [*top.splitlines(), *re.sub(r"(?ms)^set_up\(\) \{.*?^\}\n", "", rest).splitlines()]


def first_of_three(asked: Resources, site: Site) -> Batch:
    """Make three tasks, and give the first batch of them."""
    workflow = Workflow("wf", source=__file__)
    workflow.command("echo {n}", n=each([1, 2, 3]))
    limits = Limits(site.limits.array_size, lanes={asked: route(asked, site).room})
    return make_batches(make_plan(workflow, resources=asked), Capabilities(), limits)[0]


def test_every_golden_site_is_one_that_is_shipped(pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath / "tests" / "golden" / "sites"
    assert {file.stem for file in folder.glob("*")} == {*SITES} - BARE
