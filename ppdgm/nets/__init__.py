"""Networks as data: their parameters, first values, and one application over P."""

from ppdgm.nets.base import ACTIVATIONS, Activation, Net
from ppdgm.nets.conv import ConvDecoder, ConvEncoder
from ppdgm.nets.foreign import ForeignNet, check_libraries
from ppdgm.nets.made import MADE
from ppdgm.nets.mlp import MLP, GatedMLP, ResidualMLP

__all__ = [
    "ACTIVATIONS",
    "MADE",
    "MLP",
    "Activation",
    "ConvDecoder",
    "ConvEncoder",
    "ForeignNet",
    "GatedMLP",
    "Net",
    "ResidualMLP",
    "check_libraries",
]
