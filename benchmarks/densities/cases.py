"""The programs that are raced, at any size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.programs.cases import Case
from benchmarks.programs.common import Options
from benchmarks.seconds_per_step.problem import Unavailable
from ppdgm.inference import SVI
from ppdgm.models import AutoregressiveModel, FlowModel, GatedPixelCNN, Glow
from ppdgm.nets.causal import Places
from ppdgm.specs import PositiveInt

from . import losses


@dataclass(frozen=True)
class Sizes:
    """Of a program: images [side, side], features, layers, steps of a flow's level."""

    side: int = 28
    channels: int = 32
    layers: int = 5
    depth: int = 4
    batch: int = 16


def _pixel_cnn(s: Sizes) -> Case:
    net = GatedPixelCNN(channels=s.channels, layers=s.layers, hidden=s.channels)
    program = AutoregressiveModel(event_shape=(s.side, s.side), net=net)
    return Case("pixel-cnn", program, SVI(), losses.pixel_cnn, s.batch, rows_of=1000, stepped=True)


def _glow(s: Sizes) -> Case:
    flow = Glow(image=(s.side, s.side), levels=2, depth=s.depth, hidden=2 * s.channels)
    program = FlowModel(event_shape=(s.side, s.side), flow=flow)
    data = np.random.default_rng(0).random((1000, s.side**2), np.float32)
    return Case("glow", program, SVI(), losses.glow, s.batch, stepped=True, given=data)


MAKERS: dict[str, Callable[[Sizes], Case]] = {"pixel-cnn": _pixel_cnn, "glow": _glow}


class FullPasses(GatedPixelCNN):
    """The same net, of which a draw takes a full pass for each pixel.

    Args:
        passes: the number of passes; None: one for each pixel. Fewer draw nothing of use, and only show the time.
    """

    passes: PositiveInt | None = None

    def ancestral(self, P: Any, places: Places, condition: Any) -> Any:
        """x_j at the output of a pass over the pixels before it; unknown pixels are 0."""
        order = self.order(places.event)
        of = P.constant(order)

        def place(state: tuple[Any, Any]) -> tuple[Any, Any]:
            x, known = state
            head = self.causal(P, places.encoded(x), condition, places.event, places.outputs)
            return P.xp.where(of == known, places.value(head), x), known + 1.0

        first = P.full((*places.leading, *places.event), 0.0), P.full((), 0.0)
        return P.repeat(self.passes or int(order.max()) + 1, place, first)[0]


def check_device(options: Options) -> None:
    """Refuse another device than the CPU.

    Raises:
        Unavailable: these tables are of CPUs.
    """
    if options.device != "cpu":
        raise Unavailable(f"it measures on CPUs only, and not on {options.device}")
