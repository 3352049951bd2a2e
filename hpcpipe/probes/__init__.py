"""The probes by scheduler."""

from __future__ import annotations

from importlib import import_module

from hpcpipe.errors import ConfigError
from hpcpipe.probes.base import Probe
from hpcpipe.site.file import Machine, scheduler_here

REGISTRY = {
    "slurm": "SlurmProbe",
    "sge": "SgeProbe",
    "oar": "OarProbe",
    "pbs": "PbsProbe",
    "lsf": "LsfProbe",
    "htcondor": "HTCondorProbe",
    "local": "LocalProbe",
}


def make_probe(name: str) -> Probe:
    """Make the probe of a scheduler; raises ConfigError where there is none."""
    if name not in REGISTRY:
        raise ConfigError(f"a live {name} cannot be looked at yet; known: {', '.join(REGISTRY)}")
    made: Probe = getattr(import_module(f"hpcpipe.probes.{name}"), REGISTRY[name])()
    return made


def find_probe(machine: Machine) -> Probe:
    """Find the probe of the scheduler whose commands are here; the local one is everywhere.

    They are looked for as where a site is chosen. Raises ConfigError where it has no probe.
    """
    found = scheduler_here(machine)
    return make_probe(found[1] if found else "local")
