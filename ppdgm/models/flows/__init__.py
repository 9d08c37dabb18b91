"""Flows: invertible maps with a tractable Jacobian, for flow posteriors and flow priors."""

from ppdgm.models.flows.autoregressive import IAF, MAF
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.cdf import CDFFlow
from ppdgm.models.flows.chain import Chain
from ppdgm.models.flows.continuous import ContinuousFlow
from ppdgm.models.flows.coupling import NICE, RealNVP
from ppdgm.models.flows.glow import Glow
from ppdgm.models.flows.linear import ActNorm, InvertibleLinear
from ppdgm.models.flows.neural import NAF
from ppdgm.models.flows.planar import Planar
from ppdgm.models.flows.spline import RQSpline
from ppdgm.models.flows.sylvester import Sylvester

__all__ = [
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "ActNorm",
    "CDFFlow",
    "Chain",
    "ContinuousFlow",
    "Flow",
    "Glow",
    "InvertibleLinear",
    "Planar",
    "RQSpline",
    "RealNVP",
    "Sylvester",
]
