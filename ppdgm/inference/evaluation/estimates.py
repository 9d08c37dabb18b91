"""Bounds and likelihoods of data under a program, chunked over particles and data within a memory limit."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ppdgm import markup
from ppdgm.data import check_finite, check_rows
from ppdgm.diagnostics.arrays import rounding
from ppdgm.diagnostics.bits import bits_per_dimension
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.diagnostics.plus_minus import plus_minus
from ppdgm.errors import DataError, PpdgmError, ProgramError, nearest, require, shown
from ppdgm.inference.engines import bounds
from ppdgm.inference.evaluation.difference import Difference
from ppdgm.inference.evaluation.evaluator import Evaluator, quiet
from ppdgm.inference.evaluation.weighted import weighted_error, weighted_mean, weighted_noise
from ppdgm.inference.inputs.row_weights import check_weights
from ppdgm.language import mistakes
from ppdgm.language.native import Device
from ppdgm.language.roles import functions_of
from ppdgm.language.vocabulary import Array, Namespace, Trace
from ppdgm.models.likelihoods import refuse
from ppdgm.program import AnyProgram, Program, has_model

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ppdgm.data.aliases import Data

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Estimate:
    """A quantity per row, in nats, with its two kinds of error.

    Attributes:
        values: the estimate for each row, [N].
        errors: its Monte Carlo standard error over particles, [N]; NaN for one particle.
        k: particles per row.
        common: Monte Carlo error of the mean if rows share draws (a latent outside the data plate), else None.
        biases: for a log-likelihood, the difference of its expectation from log p(x), [N], by the jackknife; else None.
        of: what the density is of, if not of the raw numbers: "standardised x". That of the raw numbers differs by the
            constant `fit.transform.log_det(event_shape)`. "x given its total": of counts, by
            `Multinomial`. "x and label": of both, in rows with a known label, of a
            program in which it is the value of a latent. "x, with z at a point" is no bound on log p(x): the guide has
            no density of z (a Delta), and the reported density is that of x and z there.
        exact: whether the values are log p(x): the program draws nothing, as it has no latents, or sums them out.
        dimensions: how many whole numbers a row has; None if some of its numbers are real.
        log_det: that constant, for a density of scaled x; else 0.
        weights: of rows in the mean and its errors, [N]; None if each counts once. `values` have none.
    """

    values: np.ndarray
    errors: np.ndarray
    k: int
    common: float | None = None
    biases: np.ndarray | None = None
    of: str = ""
    exact: bool = False
    dimensions: int | None = None
    log_det: float = 0.0
    weights: np.ndarray | None = None

    @property
    def bits_per_dimension(self) -> float | None:
        """The mean in bits per dimension, −nats / (D ln 2); None if some numbers of a row are real, not whole."""
        return bits_per_dimension(self.mean, self.dimensions) if self.dimensions else None

    @property
    def mean(self) -> float:
        """Mean over rows."""
        with quiet():
            return weighted_mean(self.values, self.weights)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over rows: how it would vary with other data."""
        with quiet():
            if self.weights is not None:
                return weighted_error(self.values, self.weights)
            return float(self.values.std(ddof=1) / np.sqrt(len(self.values))) if len(self.values) > 1 else float("nan")

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean over particles: how it would vary with other draws."""
        with quiet():
            if self.weights is not None:
                return weighted_noise(self.errors, self.weights)
            return float(np.sqrt((self.errors**2).sum()) / len(self.errors)) if self.common is None else self.common

    @property
    def bias(self) -> float:
        """The error of the mean over rows in expectation; 0 for an ELBO, which estimates itself.

        log (1/K) Σ_k w_k is below log p(x) in expectation, by about Var(w) / 2K for weights of mean 1. This is the
        jackknife's estimate. If k̂ is above 0.7, no estimate is reliable: the bias is larger than this, and more
        particles, or a better guide, are needed.
        """
        with quiet():
            return 0.0 if self.biases is None else weighted_mean(self.biases, self.weights)

    def __sub__(self, other: Estimate) -> Difference:
        """The paired difference to an estimate of the same rows, in the same order, by another program or run.

        Raises:
            DataError: the estimates are of different numbers of rows, or of densities in different units.
        """
        if not isinstance(other, Estimate):
            return NotImplemented
        if len(self.values) != len(other.values):
            raise DataError(
                f"a − b: got {len(self.values)} rows and {len(other.values)}, expected estimates of the same rows."
            )
        if self.weights is not None or other.weights is not None:
            raise DataError("a − b: got estimates with weights of rows. Subtract estimates without: elbo(data).")
        if self.of != other.of or self.dimensions != other.dimensions:
            named = self.of or other.of
            first, second = (e.of or ("whole numbers" if e.dimensions and not named else "x") for e in (self, other))
            raise DataError(
                f"a − b: got log-densities of {first} and of {second}, which can't be compared. Evaluate both programs "
                "on the same fields, prepared in the same way."
            )
        if abs(off := self.log_det - other.log_det) > 1e-6 * max(1.0, abs(self.log_det)):
            raise DataError(
                f"a − b: both are log-densities of {self.of}, but scaled by other numbers, so that they differ by "
                f"{abs(off):.3g} nats for one density of the raw numbers. Prepare the data of both runs in the same "
                "way: load_data(…, like=fit)."
            )
        with quiet():
            errors = np.sqrt(self.errors**2 + other.errors**2)
            noise = float(np.hypot(self.monte_carlo_error, other.monte_carlo_error))
            return Difference(self.values - other.values, errors, noise, self.bias, other.bias)

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        noise = "exact" if self.exact else None if np.isnan(self.monte_carlo_error) else f"{self.monte_carlo_error:.4g}"
        facts = {
            "mean": f"{plus_minus(self.mean, self.standard_error, 3)} nats",
            "of": self.of or None,
            "rows, N": f"{len(self.values):,}",
            "particles, k": None if self.exact else self.k,
            "Monte Carlo error": noise,
            "bias": f"{self.bias:.4g}" if self.biases is not None else None,
            "bits per dimension": None if self.bits_per_dimension is None else f"{self.bits_per_dimension:.4f}",
        }
        return markup.box("Estimate, mean ± standard error over rows", markup.facts(facts))

    def __str__(self) -> str:
        if odd := int((~np.isfinite(self.values)).sum()):
            return f"{self.mean} nats, because {odd} of N = {len(self.values)} rows have no finite value (k = {self.k})"
        of = f" of {self.of}" if self.of else ""
        of += "" if self.weights is None else ", weighted"
        bits = ""
        if self.dimensions:
            error = -bits_per_dimension(self.standard_error, self.dimensions)
            bits = f"; {plus_minus(bits_per_dimension(self.mean, self.dimensions), error, 4)} bits/dim"
        if self.exact:
            return f"{plus_minus(self.mean, self.standard_error, 3)} nats{of} (N = {len(self.values)}, exact){bits}"
        told = "unknown" if np.isnan(self.monte_carlo_error) else f"{self.monte_carlo_error:.4f}"
        low = f", too low by {-self.bias:.4f} or more" if -self.bias > self.monte_carlo_error else ""
        return (
            f"{plus_minus(self.mean, self.standard_error, 3)} nats{of} "
            f"(N = {len(self.values)}, k = {self.k}, Monte Carlo error {told}{low}){bits}"
        )


def elbo_of_rows(evaluator: Evaluator, k: int) -> Estimate:
    """E_q[log p(x, z) − log q(z|x)] per row, with closed-form KLs if they are valid."""
    values, errors, variances = evaluator.reduce(Elbo(evaluator.size), k, True, _means)
    if k > 1 and evaluator.draws_nothing:
        none = np.zeros_like(errors)
        return Estimate(values, none, k, exact=bool(np.isfinite(values).all()), dimensions=evaluator.dimensions)
    one = evaluator.one
    of = f"x, with {' and '.join(one.points)} at a point" if one.points else ""
    size = None if of else evaluator.dimensions  # at a point, it is a density of real numbers too
    if k == 1:
        return Estimate(values, errors, k, of=of, dimensions=size)
    if not one.shared:
        return Estimate(values, errors, k, of=of, dimensions=size)
    with quiet():
        common = float(np.sqrt(sum(variances))) / evaluator.size
    return Estimate(values, errors, k, common, of=of, dimensions=size)


def log_likelihood_of_rows(evaluator: Evaluator, k: int) -> Estimate:
    """log (1/K) Σ_k w_k per row: a lower bound on log p(x) in expectation that is exact as K → ∞."""
    return as_likelihood(evaluator, evaluator.reduce(_log_weights, k, False, log_mean), k)


def as_likelihood(evaluator: Evaluator, found: tuple[np.ndarray, ...], k: int) -> Estimate:
    """The estimate of log p(x) from what `log_mean` gives of K log-weights; exact if the program draws nothing."""
    values, errors, biases = found
    rounded = rounding(values[None].astype(evaluator.dtype))
    alike = np.isfinite(values).all() and (errors < rounded).all()  # not so with one particle
    if alike and evaluator.draws_nothing:  # few draws of a discrete latent can be alike too
        none = np.zeros_like(values)
        return Estimate(values, none, k, biases=none, exact=True, dimensions=evaluator.dimensions)
    return Estimate(values, errors, k, biases=biases, dimensions=evaluator.dimensions)


def log_weights_of_rows(evaluator: Evaluator, k: int) -> np.ndarray:
    """log p(x, z) − log q(z|x), [K, N]."""
    require("k", k, int, 1, "a whole number of particles, at least 1")
    found, start = np.empty((k, evaluator.size)), 0
    for terms in evaluator.reduced(_log_weights, k, False, lambda terms: terms):
        found[:, start : start + terms.shape[1]] = terms
        start += terms.shape[1]
    return found


def with_weights(found: Estimate, weights: ArrayLike | None) -> Estimate:
    """The estimate with weights of rows.

    Raises:
        DataError: they are no weights of these rows.
        ProgramError: the rows share a latent, so that they are no separate terms.
    """
    if weights is None:
        return found
    if found.common is not None:
        raise ProgramError(
            "weights: the rows share a latent outside the data plate, so the ELBO is not a sum over rows."
        )
    return replace(found, weights=check_weights(weights, len(found.values)))


def warn_outside(evaluator: Evaluator, found: Estimate) -> None:
    """Warn if an estimate has values of −∞, with the latents that the guide drew outside their prior's support.

    It makes the same draws again, and looks at the log p of each latent.
    """
    if not np.isneginf(found.values).any():
        return
    for name in evaluator.one.log_q:
        (rows,) = evaluator.reduce(_LogPrior(name), found.k, found.biases is None, _any_infinite)
        if rows.any():
            warnings.warn(
                f"Site {name!r}: in {int(rows.sum())} of {evaluator.size} rows the guide draws values outside the "
                "support that the site has in the model. There p(x, z) = 0, and the ELBO is -inf. Training does "
                "not see this, because it uses the density's formula everywhere. Give the guide a distribution "
                "with the same support as the model's, such as LogNormal for positive values.",
                stacklevel=4,
            )


def _log_weights(trace: Trace, xp: Namespace) -> Array:
    """log w, [K, B]."""
    found = bounds.log_weights(trace, xp)
    check_density(trace)
    return found


@dataclass(frozen=True)
class _LogPrior:
    """log p of a latent, [K, B]; also −∞ if the closed form of its KL is ∞."""

    name: str

    def __call__(self, trace: Trace, xp: Namespace) -> Array:
        form = xp.sum(trace.kl[self.name], axis=-1) if self.name in trace.kl else 0.0
        return trace.log_p[self.name] - form


def check_density(trace: Trace) -> None:
    """Refuse log-weights of a guide that is a point mass at a latent for which the model has a density."""
    if trace.points:
        raise mistakes.point_mass(next(iter(trace.points)))


@dataclass(frozen=True)
class Elbo:
    """The ELBO's terms [K, B]; a latent outside the plate counts 1/N for each row."""

    size: int

    def __call__(self, trace: Trace, xp: Namespace) -> Array:
        # A closed-form KL may be finite if log q is not (a negative scale): then the ELBO is not valid.
        terms = bounds.elbo(trace, xp) + 0.0 * sum(trace.log_q.values())
        for value in trace.shared.values():
            terms = terms + value[:, None] / self.size
        return terms


def _any_infinite(terms: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.asarray(np.isneginf(terms).any(axis=0)),)


def _means(terms: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means over particles [B], their standard errors [B], and the variance of the mean of the rows' sum, [1].

    The last one is that of rows that share draws: they move together.
    """
    k = len(terms)
    if k == 1:
        return terms[0], np.full(terms.shape[1], np.nan), np.full(1, np.nan)
    return terms.mean(0), terms.std(0, ddof=1) / np.sqrt(k), np.array([terms.sum(1).var(ddof=1) / k])


def parse_memory(memory: int | str, device: Device) -> int:
    """Bytes: a number, "512 MiB", or "auto" (256 MiB on a CPU, 4 GiB elsewhere)."""
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return min(memory, 2**63 - 1)
    if isinstance(memory, str) and memory == "auto":
        return 2**28 if "cpu" in str(device).lower() else 2**32
    text = memory.strip() if isinstance(memory, str) else ""
    unit = next((u for u in sorted(_UNITS, key=len, reverse=True) if text.endswith(u)), "")
    try:
        value = int(float(text.removesuffix(unit)) * _UNITS.get(unit, 1))
    except (ValueError, OverflowError):  # not a number, or an infinite one
        value = 0
    if value > 0:
        return value
    raise PpdgmError(f"memory: got {shown(memory)}, expected bytes as a number, or text such as '512 MiB' or 'auto'.")


def dtype_of(params: Mapping[str, np.ndarray]) -> str:
    """The floating type of parameters, which is also used for their data."""
    return next((str(v.dtype) for v in params.values() if v.dtype.kind == "f"), "float32")


def leave_labels(program: AnyProgram, data: Data) -> Data:
    """Data without the field `label`, if a program has no use for it: many data sets include labels."""
    if not (isinstance(program, Program) and isinstance(data, Mapping) and "label" in data and len(data) > 1):
        return data
    functions = [program.model] if has_model(program) else functions_of(program).values()
    asked = [p for f in functions for p in inspect.signature(f).parameters.values()]
    used = any(p.name == "label" or p.kind is p.VAR_KEYWORD for p in asked)
    return data if used else {n: v for n, v in data.items() if n != "label"}


def _check_names(program: Program, got: list[str]) -> None:
    """Refuse data without the fields that the model needs, or with fields that it does not know."""
    asked = list(inspect.signature(program.model).parameters.values())[1:]
    needed = [p.name for p in asked if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    exposed = getattr(program.independent(), "reads_exposure", False)
    known = [p.name for p in asked if exposed or p.name != "exposure" or p.default is p.empty]
    wrong = [n for n in needed if n not in got] + [n for n in got if n not in known]
    if wrong and not any(p.kind is p.VAR_KEYWORD for p in asked):
        hint = f" {nearest(wrong[0], known)}" if wrong[0] in got else ""
        raise DataError(f"Data: got fields {got}, but the model of {type(program).__name__} takes {known}.{hint}")


def check_fields(program: AnyProgram, fields: dict[str, np.ndarray], binarise: str = "none") -> None:
    """Refuse data of the wrong shape, or outside the likelihood's support.

    Raises:
        DataError: with the field, what was got and what was expected.
    """
    if isinstance(program, Program) and has_model(program):
        _check_names(program, list(fields))
    expected = getattr(program, "event_shape", None)
    if expected is not None and "x" in fields and fields["x"].shape[1:] != tuple(expected):
        if fields["x"].shape == tuple(expected):
            raise DataError(
                f"Data 'x': got one row of shape {tuple(expected)}, expected an array of rows. Use x[None] for a "
                "single row."
            )
        if len(expected) == 3 and fields["x"].shape[1:] == (*expected[1:], expected[0]):
            raise DataError(
                f"Data 'x': got images of shape {fields['x'].shape[1:]}, with their channels last, expected "
                f"{tuple(expected)}. Move them: np.moveaxis(x, -1, 1). Or load them with load_data(path, "
                "channels='last'), so that results have them last too."
            )
        raise DataError(
            f"Data 'x': got data of shape {fields['x'].shape[1:]}, expected {tuple(expected)}, the program's "
            f"event_shape. Reshape the data, or build the program with event_shape={fields['x'].shape[1:]}."
        )
    check_finite(fields, may_miss=program.may_miss)
    if binarise == "dynamic":
        check_rows(lambda rows: _check_probabilities(program, rows), fields)
    else:
        check_rows(program.check, fields)


def _check_probabilities(program: AnyProgram, rows: dict[str, np.ndarray]) -> None:
    """Check data that are drawn from probabilities: they will be 0 or 1, so the rounded probabilities are checked."""
    if "x" not in rows:
        raise DataError(
            f"Data: binarise='dynamic' binarises the field 'x', but got fields {sorted(rows)}. Name the field "
            "'x', or leave binarise out."
        )
    x = rows["x"]
    refuse(
        "x", x, ~((x >= 0) & (x <= 1)), ("probabilities in [0, 1], because of binarise='dynamic'; scale the data first")
    )
    program.check({**rows, "x": np.round(x)})
