"""The schedulers that the contract tests are run on."""

from __future__ import annotations

from contract.dialects.base import Dialect
from contract.dialects.flux import FLUX
from contract.dialects.htcondor import HTCONDOR, HTCONDORS_STANDIN
from contract.dialects.ipyparallel import IPYPARALLEL
from contract.dialects.local import LOCAL
from contract.dialects.lsf import LSF
from contract.dialects.oar import OAR
from contract.dialects.pbs import PBS
from contract.dialects.sge import DRMAA, SGE
from contract.dialects.slurm import SLURM
from contract.dialects.torque import TORQUE
from contract.dialects.tsp import TSP

__all__ = [
    "DIALECTS", "DRMAA", "FLUX", "HTCONDOR", "HTCONDORS_STANDIN", "IPYPARALLEL", "LOCAL", "LSF",
    "OAR", "PBS", "SGE", "SLURM", "TORQUE", "TSP", "Dialect",
]  # fmt: skip

DIALECTS = (LOCAL, SLURM, SGE, DRMAA, OAR, IPYPARALLEL, PBS, TORQUE, LSF, FLUX, HTCONDOR, TSP)
