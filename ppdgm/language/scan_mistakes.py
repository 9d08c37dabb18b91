"""What can be wrong with `P.scan` and the statements of its body."""

from __future__ import annotations

from ppdgm.errors import ProgramError

Shape = tuple[int, ...]


def enumerated_in_scan(name: str) -> ProgramError:
    """The error for a latent of a scan that is to be enumerated: its values at all times would be a product."""
    return ProgramError(
        f"Site {name!r} is enumerated in P.scan, which is not supported: a sum over the values at all times would have "
        "as many terms as there are paths. Draw it: remove infer={'enumerate': …}, and train with estimator='score'."
    )


def plate_in_scan(name: str) -> ProgramError:
    """The error for a plate in the body of a scan."""
    return ProgramError(
        f"Plate {name!r} is in the body of P.scan. A program has only the data plate. Write P.scan inside it, and "
        "declare inner dimensions with .to_event(n)."
    )


def state_in_scan(word: str) -> ProgramError:
    """The error for statistics of the minibatch in the body of a scan."""
    return ProgramError(
        f"{word} is in the body of P.scan, which is not supported: each time would have a mean of its own, also "
        "over rows without data. Return the values as outputs, and use it after P.scan."
    )


def walked_under_mask(name: str) -> ProgramError:
    """The error for a Markov chain over a latent that has no density at some times."""
    return ProgramError(
        f"Site {name!r} is in P.scan with a mask. At times without data it has no density, so Markov chains would run "
        "away there. Use weighted draws of the guide instead: MonteCarloEM(sampler=Resampled()) to train, "
        "how='importance' for draws."
    )


def given_in_scan(name: str, got: Shape, length: int, event: Shape, shape: tuple[int, int]) -> ProgramError:
    """The error for values that are not those of a site of a scan."""
    return ProgramError(
        f"Site {name!r}: got values of shape {got}, but the site is in P.scan, so expected [K, B, T, *event] = "
        f"{(*shape, length, *event)}. Draw it in P.scan in both model and guide, or as one site with events "
        f"{(length, *event)} in the guide."
    )


def check_inside(inside: bool) -> None:
    """Refuse a scan outside the data plate."""
    if not inside:
        raise ProgramError(
            "P.scan is outside the data plate. Its sites belong to rows: write it inside `with P.plate(…):`. For a "
            "loop without sites, use P.repeat."
        )


def nested_scan() -> ProgramError:
    """The error for a scan in a scan."""
    return ProgramError(
        "P.scan is inside the body of another P.scan, which is not supported. Write the inner loop with P.repeat, or "
        "as a Python loop."
    )
