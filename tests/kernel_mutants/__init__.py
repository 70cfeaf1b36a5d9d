"""Mistakes that one can make in the kernels; the tests must notice each of them.

`MUTANTS` change the answer.  `FAULTS` are mistakes that a right answer can hide, and say which
build of the stand-in, with which arrival of asynchronous copies, has to notice.  Each family of
kernels has a module of both; mistakes in headers that all kernels share are with gather.
"""

from . import depthwise, direct, gather, gemm, gradients, hopper, mma, transpose
from .mutant import WRONG

__all__ = ["FAULTS", "GRADIENT_FAULTS", "GRADIENT_MUTANTS", "MUTANTS", "WRONG"]

FAMILIES = (gather, gemm, depthwise, direct, mma, hopper, transpose)

MUTANTS = [mutant for family in FAMILIES for mutant in family.MUTANTS]
FAULTS = [fault for family in FAMILIES for fault in family.FAULTS]
GRADIENT_MUTANTS, GRADIENT_FAULTS = gradients.MUTANTS, gradients.FAULTS
