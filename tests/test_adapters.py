"""Adapters are found by name: ours at once, and others in the packages that are installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from hpcpipe.errors import ConfigError
from hpcpipe.schedulers import GROUP, REGISTRY, find_adapter, make_scheduler, outside
from hpcpipe.site.load import load_site
from hpcpipe.site.show import site_lines, site_schema
from hpcpipe.submit.prepare import scheduler_options

BATCHD = {
    "batchd-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: batchd\nVersion: 1\n",
    "batchd-1.dist-info/entry_points.txt": f"""
        [{GROUP}]
        batchd = acme.batchd:Batchd
        broken = acme.batchd:Gone
        slurm = acme.batchd:Batchd
    """,
    "acme/__init__.py": "",
    "acme/batchd/__init__.py": """
        class Batchd:
            name = "batchd"
            def __init__(self, run=None, partition="all"):
                self.partition = partition
    """,
    "acme/batchd/options.py": '''
        from dataclasses import dataclass
        from typing import Annotated
        from hpcpipe.values import Count, Name
        @dataclass(frozen=True)
        class Options:
            """What only batchd knows."""
            partition: Annotated[Name | None, "Where jobs go."] = None
            nice: Annotated[Count, "How nice they are."] = 3
    ''',
    "acme/batchd/batchd.toml": """
        scheduler = "batchd"
        batchd.partition = "short"
    """,
}


@pytest.fixture
def batchd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a package installed that brings an adapter."""
    for name, text in BATCHD.items():
        file = tmp_path / "site-packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    outside.cache_clear()
    yield
    outside.cache_clear()


def test_what_is_installed_has_every_module_and_our_schedulers_as_entry_points(
    tmp_path: Path,
) -> None:
    top = Path(__file__).parents[1]
    setup = "from setuptools import setup; setup()"
    words = [sys.executable, "-c", setup, "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(words, cwd=top, check=True, capture_output=True)
    [info] = tmp_path.iterdir()
    config = ConfigParser()
    config.read(info / "entry_points.txt")
    ours = {name: f"{one.package}:{one.attribute}" for name, one in REGISTRY.items()}
    assert dict(config[GROUP]) == ours
    assert dict(config["console_scripts"]) == {"hpcpipe": "hpcpipe.__main__:main"}
    packed = (info / "SOURCES.txt").read_text().splitlines()
    parts = ["hpcpipe/**/*.*", "templates/*.j2", "site-configs/*.toml"]
    found = [path.relative_to(top) for part in parts for path in top.glob(part)]
    there = [str(path) for path in found if "__pycache__" not in path.parts]
    assert {*there} <= {*packed}


@pytest.mark.usefixtures("batchd")
def test_a_package_brings_a_scheduler_with_its_options_and_its_site() -> None:
    loaded = load_site("batchd")
    assert loaded.site.own.partition == "short"
    assert "batchd.nice = 3" in [line.partition(" #")[0].rstrip() for line in site_lines(loaded)]
    assert site_schema()["properties"]["batchd"]["properties"].keys() == {"partition", "nice"}
    options = scheduler_options(loaded.site)
    assert options == {"partition": "short"}  # the adapter's `__init__` takes no other
    made: Any = make_scheduler("batchd", options)
    assert (made.name, made.partition) == ("batchd", "short")
    assert find_adapter("slurm").package == "hpcpipe.schedulers.slurm", "it hides none of ours"


@pytest.mark.usefixtures("batchd")
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("batchd.nice = 0", "batchd.nice: 0 is not a whole number of at least 1"),
        ("batchd.nize = 1", "batchd.nize: unknown key; did you mean nice?"),
        ("batchd = 1", "batchd: 1 is not a table"),
        ("batch.nice = 1", "batch: unknown key; did you mean batchd?"),
        ("tables = {}", "tables: unknown key"),
        ("scheduler = 'batch'", "scheduler: unknown scheduler 'batch'; did you mean batchd?"),
        ("drmaa.dialect = 'slurm'", "drmaa.dialect: unknown dialect 'slurm'; known: sge"),
    ],
)
def test_a_wrong_option_is_refused_with_its_path(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_site(str(file))
    assert str(refused.value).startswith(f"{file}: {complaint}")


@pytest.mark.usefixtures("batchd")
def test_a_package_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^scheduler 'broken': module 'acme.batchd' has no"):
        make_scheduler("broken")
