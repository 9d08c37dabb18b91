"""Seconds of a training step, of every program."""

from collections.abc import Iterator

from benchmarks.seconds_per_step.race import DifferentObjective, line_up, run_rounds

from .cases import MAKERS, make
from .common import Found, Options, as_found, ranked, ratio, verdict, verdicts
from .contestants import STEPS, maker

TITLE = "Seconds per training step"
ROUNDS = 9
REFERENCES = ("jax-by-hand", "torch-by-hand", "numpyro-svi.run", "pyro-svi", "pythae")
TARGETS = (
    ("ppdgm-pyro", "torch-by-hand", 1.0, None),
    ("ppdgm-numpyro", "jax-by-hand", 1.05, None),
    ("ppdgm-numpyro", "numpyro-svi.run", 1.0, None),
    ("ppdgm-pyro", "pyro-svi", 1 / 3, "vae-20"),
    ("ppdgm-pyro", "pyro-svi", 1 / 5, "vamp-50"),
)
NOTE = (
    "float32, Adam, validation off. Loss: −bound in nats per row, mean over steps 51 to 100 (pythae's IWAE reports a "
    "weighted mean of log-weights instead of the bound). ÷: median over the rounds of the time relative to that "
    "contestant's in the same round; below 1 is faster."
)


def measure(options: Options) -> Iterator[Found]:
    """Race the contestants of each program.

    Raises:
        DifferentObjective: in some program they do not train the same objective; the others are measured first.
    """
    programs: Found = {}
    failed = []
    makers = {n: maker(made) for n, made in options.contestants_of(STEPS).items()}
    for name in options.programs_of(MAKERS, ("vae", "iwae-dreg")):
        case = make(name, device=options.device)
        try:
            race = line_up(case, makers, options.stretch, options.say)  # type: ignore[arg-type]  # such a problem
        except DifferentObjective as difference:
            failed.append(f"{name}: {difference}")
            continue
        run_rounds(race, options.rounds_of(ROUNDS), lambda line: None, force=options.force)
        loss = {entry.name: float(entry.warm_up[50:].mean()) for entry in race.entries}
        programs[name] = {**as_found(race), "batch": case.batch, "particles": case.particles, "loss": loss}
        yield {"programs": programs}
    if failed:
        raise DifferentObjective(" ".join(failed))


def page(found: Found) -> list[str]:
    """A table for each program."""
    lines = ["", NOTE]
    for name, program in found["programs"].items():
        loss = {n: f"{v:.1f}" for n, v in program["loss"].items()}
        size = f"B = {program['batch']}, K = {program['particles']}, {len(program['others'])} rounds"
        lines += ["", f"### {name}: {size}", *ranked(program, REFERENCES, "µs/step", 1e6, {"loss": loss})]
        lines += verdicts(
            line
            for mine, other, most, only in TARGETS
            if only in (None, name)
            for line in verdict(f"{mine} ÷ {other}", ratio(program["seconds"], mine, other), most)
        )
    return lines
