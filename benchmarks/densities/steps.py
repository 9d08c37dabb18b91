"""Seconds of a training step of densities of images."""

from collections.abc import Iterator

from benchmarks.programs.common import Found, Options, ranked, ratio, verdict, verdicts
from benchmarks.programs.common import as_found as kept
from benchmarks.programs.contestants import MORE, STEPS, maker
from benchmarks.seconds_per_step.race import line_up, run_rounds

from .cases import MAKERS, Sizes, check_device

TITLE = "Seconds per training step"
ROUNDS = 9
NAMES = ("ppdgm-numpyro", "ppdgm-pyro", "ppdgm-pyro-eager", "jax-by-hand", "torch-by-hand", "torch-compiled")
TARGETS = (("ppdgm-numpyro", "jax-by-hand", 1.1), ("ppdgm-pyro", "torch-by-hand", 1.0))
NOTE = (
    "28×28, float32, Adam, validation off. Loss: −log p in nats per row, mean over steps 51 to 100. JAX by hand: "
    "jitted steps, because XLA's convolutions are slow inside a loop on a CPU. ÷: median over the rounds of the time "
    "relative to that contestant's in the same round; below 1 is faster."
)
QUICK = Sizes(side=8, channels=4, layers=2, depth=1, batch=4)


def measure(options: Options) -> Iterator[Found]:
    """Race the contestants of each program."""
    check_device(options)
    programs: Found = {}
    makers = {n: maker({**STEPS, **MORE}[n]) for n in options.contestants_of(dict.fromkeys(NAMES))}
    for name in options.programs_of(MAKERS, MAKERS):
        case = MAKERS[name](QUICK if options.quick else Sizes())
        race = line_up(case, makers, options.stretch, options.say)  # type: ignore[arg-type]  # such a problem
        run_rounds(race, options.rounds_of(ROUNDS), lambda line: None, force=options.force)
        loss = {entry.name: float(entry.warm_up[50:].mean()) for entry in race.entries}
        programs[name] = {**kept(race), "batch": case.batch, "loss": loss, "program": str(case.program)}
        yield {"programs": programs}


def page(found: Found) -> list[str]:
    """A table for each program."""
    lines = ["", NOTE]
    for name, program in found["programs"].items():
        loss = {n: f"{v:.1f}" for n, v in program["loss"].items()}
        lines += [
            "",
            f"### {name}: B = {program['batch']}, {len(program['others'])} rounds",
            "",
            f"`{program['program']}`",
        ]
        lines += ranked(program, ("jax-by-hand", "torch-by-hand"), "ms/step", 1e3, {"loss": loss})
        lines += verdicts(
            line
            for mine, other, most in TARGETS
            for line in verdict(f"{mine} ÷ {other}", ratio(program["seconds"], mine, other), most)
        )
    return lines
