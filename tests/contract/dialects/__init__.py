"""The schedulers that the contract tests are run on."""

from __future__ import annotations

from contract.dialects.base import Dialect
from contract.dialects.flux import FLUX
from contract.dialects.local import LOCAL
from contract.dialects.lsf import LSF
from contract.dialects.pbs import PBS
from contract.dialects.slurm import SLURM
from contract.dialects.torque import TORQUE

__all__ = ["DIALECTS", "FLUX", "LOCAL", "LSF", "PBS", "SLURM", "TORQUE", "Dialect"]

DIALECTS = (LOCAL, SLURM, PBS, TORQUE, LSF, FLUX)
