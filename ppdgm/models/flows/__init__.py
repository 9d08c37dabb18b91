"""Flows: invertible maps with a tractable Jacobian, for flow posteriors and flow priors."""

from ppdgm.models.flows.autoregressive import IAF, MAF
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.coupling import RealNVP
from ppdgm.models.flows.planar import Planar
from ppdgm.models.flows.spline import RQSpline
from ppdgm.models.flows.sylvester import Sylvester

__all__ = ["IAF", "MAF", "Flow", "Planar", "RQSpline", "RealNVP", "Sylvester"]
