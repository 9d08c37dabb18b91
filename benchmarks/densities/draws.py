"""Seconds of drawing images from a GatedPixelCNN, beside a full pass of the net for each pixel."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np

from benchmarks.programs.common import Found, Options, race, ranked, ratio, verdicts
from ppdgm.inference import Fit
from ppdgm.models import AutoregressiveModel, GatedPixelCNN

from .cases import FullPasses, check_device

TITLE = "Drawing images"
ROUNDS = 3
IMAGES = (1, 16)
PASSES = 28  #: that are timed of the 784 full passes
LEAST = 10.0
NOTE = (
    "`fit.sample(n)` of 28×28 pixels, GatedPixelCNN() with 7 layers of 64 features, float32, without compilation. Full "
    f"passes: the time of {PASSES} of the 784, times 28."
)


def measure(options: Options) -> Iterator[Found]:
    """Race both ways on each backend, for one image and for several; the draws have to be the same."""
    check_device(options)
    side, passes = (8, 8) if options.quick else (28, PASSES)
    small = {"channels": 4, "layers": 2, "hidden": 4} if options.quick else {}
    check_same(10)
    images: Found = {}
    for n in (2,) if options.quick else IMAGES:
        makers = {
            f"{way}-{backend}": partial(_stretch, backend, net, side, n)
            for backend in ("numpyro", "pyro")
            for way, net in (("fast", GatedPixelCNN(**small)), ("full", FullPasses(passes=passes, **small)))
        }
        found = race(f"draws of {n}", options.contestants_of(makers), options.rounds_of(ROUNDS), options)
        for name, seconds in found["seconds"].items():
            if name.startswith("full"):
                found["seconds"][name] = [s * side**2 / passes for s in seconds]
        images[str(n)] = found
        yield {"images": images}


def check_same(side: int) -> None:
    """Refuse to measure if the two ways do not give the same draws."""
    net = GatedPixelCNN(channels=8, layers=3)
    for backend in ("numpyro", "pyro"):
        programs = (AutoregressiveModel(event_shape=(side, side), net=n) for n in (net, FullPasses(**_fields(net))))
        fast, full = (Fit(p, p.initialise(0), backend).sample(4, seed=1) for p in programs)
        if (fast != full).any():
            raise ValueError(f"{backend}: the fast draws are not those of full passes.")


def _fields(net: GatedPixelCNN) -> dict[str, object]:
    return {name: getattr(net, name) for name in type(net).model_fields}


def _stretch(backend: str, net: GatedPixelCNN, side: int, n: int) -> tuple[Callable[[], object], int]:
    program, seeds = AutoregressiveModel(event_shape=(side, side), net=net), count()
    fit = Fit(program, program.initialise(0), backend)
    fit.sample(n, seed=next(seeds))  # compiles, too
    return lambda: fit.sample(n, seed=next(seeds)), 1


def page(found: Found) -> list[str]:
    """A table for each number of images."""
    lines = ["", NOTE]
    for n, images in found["images"].items():
        seconds, others = images["seconds"], len(images["others"])
        rate = {name: f"{int(n) / np.median(v):,.2f}" for name, v in seconds.items()}
        lines += ["", f"### n = {n}: {others} rounds"]
        lines += ranked(images, ("full-numpyro", "full-pyro"), "seconds", 1.0, {"images/s": rate})
        lines += verdicts(
            f"- {'Met' if times >= LEAST else 'MISSED'}: fast-{b} is {times:.0f} times as fast as full-{b}, at least "
            f"{LEAST:.0f}."
            for b in ("numpyro", "pyro")
            if (times := ratio(seconds, f"full-{b}", f"fast-{b}")) is not None
        )
    return lines
