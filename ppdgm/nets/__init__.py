"""Networks as data: their parameters, first values, and one application over P."""

from ppdgm.nets.base import ACTIVATIONS, Activation, Net
from ppdgm.nets.causal import CausalNet
from ppdgm.nets.conv import ConvDecoder, ConvEncoder
from ppdgm.nets.foreign import ForeignNet, check_libraries
from ppdgm.nets.made import MADE
from ppdgm.nets.mlp import MLP, GatedMLP, ResidualMLP
from ppdgm.nets.order_agnostic import OrderAgnosticMADE
from ppdgm.nets.pixel_cnn import GatedPixelCNN
from ppdgm.nets.pixel_cnn_pp import PixelCNNPlusPlus
from ppdgm.nets.pixel_snail import PixelSNAIL
from ppdgm.nets.recurrent import GRU, LSTM
from ppdgm.nets.reversible import IRevNet, RevNet
from ppdgm.nets.transformer import Transformer
from ppdgm.nets.windowed import WaveNet, Windowed

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "MADE",
    "MLP",
    "Activation",
    "CausalNet",
    "ConvDecoder",
    "ConvEncoder",
    "ForeignNet",
    "GatedMLP",
    "GatedPixelCNN",
    "IRevNet",
    "Net",
    "OrderAgnosticMADE",
    "PixelCNNPlusPlus",
    "PixelSNAIL",
    "ResidualMLP",
    "RevNet",
    "Transformer",
    "WaveNet",
    "Windowed",
    "check_libraries",
]
