"""The schedulers that the contract tests are run on."""

from __future__ import annotations

from contract.dialects.base import Dialect
from contract.dialects.local import LOCAL
from contract.dialects.slurm import SLURM

__all__ = ["DIALECTS", "LOCAL", "SLURM", "Dialect"]

DIALECTS = (LOCAL, SLURM)
