"""The schedulers that the contract tests are run on.

Each module here has the dialect of one or two, as a global named after the scheduler in capitals.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from contract.dialects.base import Dialect
from contract.dialects.flux import FLUX
from contract.dialects.htcondor import HTCONDORS_STANDIN
from contract.dialects.local import LOCAL
from contract.dialects.pbs import PBS
from contract.dialects.slurm import SLURM
from contract.dialects.tsp import TSP
from hpcpipe.schedulers import REGISTRY

__all__ = ["DIALECTS", "FLUX", "HTCONDORS_STANDIN", "LOCAL", "PBS", "SLURM", "TSP", "Dialect"]


def _found() -> dict[str, Dialect]:
    modules = [import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__)]
    members = [pair for module in modules for pair in vars(module).items()]
    return {
        one.name: one
        for name, one in members
        if isinstance(one, Dialect) and name == one.name.upper()
    }


_ORDER = [*REGISTRY]
DIALECTS = tuple(
    sorted(
        _found().values(),
        key=lambda one: _ORDER.index(one.name) if one.name in REGISTRY else len(_ORDER),
    )
)
