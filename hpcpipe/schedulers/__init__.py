"""The registry: every scheduler by name, imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hpcpipe.errors import ConfigError
from hpcpipe.schedulers.base import Scheduler

REGISTRY = {
    "local": "Local",
    "slurm": "Slurm",
    "sge": "Sge",
    "drmaa": "Drmaa",
    "pbs": "PBS",
    "torque": "Torque",
    "lsf": "LSF",
    "flux": "Flux",
    "htcondor": "HTCondor",
    "oar": "Oar",
    "ipyparallel": "Ipyparallel",
}


def make_scheduler(name: str, options: Mapping[str, Any] | None = None) -> Scheduler:
    """Make the adapter of a name; ``options`` are the site's for it. Raises ConfigError."""
    if name not in REGISTRY:
        raise ConfigError(f"scheduler {name!r}: there is {', '.join(REGISTRY)}")
    adapter = getattr(import_module(f"hpcpipe.schedulers.{name}"), REGISTRY[name])
    made: Scheduler = adapter(**(options or {}))
    return made
