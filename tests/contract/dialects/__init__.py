"""The schedulers that the contract tests are run on."""

from __future__ import annotations

from contract.dialects.base import Dialect
from contract.dialects.ipyparallel import IPYPARALLEL
from contract.dialects.local import LOCAL
from contract.dialects.oar import OAR
from contract.dialects.sge import DRMAA, SGE
from contract.dialects.slurm import SLURM

__all__ = ["DIALECTS", "LOCAL", "SLURM", "Dialect"]

DIALECTS = (LOCAL, SLURM, SGE, DRMAA, OAR, IPYPARALLEL)
