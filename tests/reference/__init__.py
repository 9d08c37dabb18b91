"""A second reading of the programs' equations, in float64 NumPy and SciPy.

It imports nothing of ppdgm (test_contract.py reads the imports): what it knows of a program is the plain dictionary
that describes it, its parameters by dotted name, and arrays.
"""

from reference import densities, discrete, flows, hierarchy, likelihoods, mixtures, neural, programs_more, supports  # noqa: F401
from reference.nets import forward
from reference.programs import log_joint_and_guide

__all__ = ["forward", "log_joint_and_guide"]
