"""`P.scan`: a body's statements at each time. Its sites have values [K, B, T, *event] and terms Σₜ, [K, B].

The direct interpreter runs the body once for each time, with draws of its own; on JAX this is one `jax.lax.scan`.
Inside a body values are [K, B, …] and data [1, B, …].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol

from ppdgm.errors import ProgramError
from ppdgm.language import enumeration, mistakes, scan_mistakes
from ppdgm.language.masks import wide
from ppdgm.language.reader import Reader
from ppdgm.language.steps import Steps, Tree, alike, as_mask, in_place, leaves, mapped, row_axis, told
from ppdgm.language.unseen import Unseen
from ppdgm.language.vocabulary import Array, Dist, Namespace, Noise, Vocabulary

Body = Callable[[Vocabulary, Tree, Tree], tuple[Tree, Tree]]


class ScannedRun(Protocol):
    """What a scan needs of a direct interpreter, which see for its attributes."""

    reader: Reader
    P: Vocabulary
    shape: tuple[int, int]
    given: Mapping[str, Array]
    axes: dict[str, int]
    inside: bool
    recomputes: bool
    apart: bool
    looks: bool
    fields: tuple[Array | Unseen, ...]
    scanned: list[Array]
    scans: int
    values: dict[str, Array]
    log_prob: dict[str, Array]
    dists: dict[str, Dist]
    penalties: dict[str, Array]
    seen: dict[str, Array]
    observed: list[str]
    held: list[str]
    drawn: list[str]

    def sibling(self, reader: Reader, given: Mapping[str, Array]) -> ScannedRun: ...
    def sample(self, name: str, dist: Dist, obs: Array | None, infer: Mapping[str, object] | None) -> Array: ...
    def penalty(self, name: str, value: Array) -> None: ...
    def param(self, name: str, value: Array) -> Array: ...
    def deterministic(self, name: str, value: Array) -> Array: ...
    def noise(self) -> Noise: ...
    def drops(self) -> bool: ...
    def draws_terms(self) -> bool: ...
    def estimates(self, what: str) -> bool: ...


class BodyStatements:
    """The statements that no body of a scan can have."""

    looping = False
    recomputes = False

    def update(self, name: str, value: Array, state: Array) -> None:
        raise scan_mistakes.state_in_scan(f"P.update({name!r})")

    def batch_mean(self, value: Array, event_ndim: int, otherwise: Array | None, xp: Namespace) -> Array:
        raise scan_mistakes.state_in_scan("P.batch_mean")

    def scan(self, *_: object) -> NoReturn:
        raise scan_mistakes.nested_scan()

    def estimates(self, what: str) -> bool:
        return False


class AtTime(BodyStatements):
    """The statements of a body at one time: they are those of a run of this time, under the mask.

    Args:
        run: a direct interpreter for this time.
        mask: [B], or None.
        looks: whether to find the rows that are in the supports.
    """

    def __init__(self, run: ScannedRun, mask: Array | None, looks: bool):
        self.run, self.mask, self.looks = run, mask, looks
        self.recomputes = run.recomputes
        self.inside: dict[str, Array] = {}
        self.bounds: dict[str, tuple[Array, ...]] = {}

    def plate(self, name: str, data: Array) -> AbstractContextManager[None]:
        raise scan_mistakes.plate_in_scan(name)

    def sample(
        self, name: str, dist: Dist, obs: Array | None = None, infer: Mapping[str, object] | None = None
    ) -> Array:
        run, reader = self.run, self.run.reader
        check_site(name, dist, obs is None, infer)
        if how := reader.gradients:
            if how.enumerate and obs is None and not reader.has_pathwise(dist):
                raise scan_mistakes.enumerated_in_scan(name)
            if how.walked and obs is None and self.mask is not None:
                raise scan_mistakes.walked_under_mask(name)
        ours = isinstance(dist, reader.native) and isinstance(obs, reader.arrays)  # else it is refused
        if self.mask is not None and ours:
            obs, dist = wide(obs, dist, reader.xp), dist.mask(self.mask)  # a masked value is not scored: 0 · NaN is NaN
        value: Array = run.sample(name, dist, obs, infer)
        if self.looks and obs is not None and not isinstance(obs, Unseen):
            inside = reader.supports.inside(dist, value, reader.supports.in_support)
            b = run.shape[1]
            inside = reader.supports.truth(True, value) if inside is None else inside
            inside = reader.broadcast(inside, (*inside.shape[:-1], b))
            self.inside[name] = reader.xp.any(reader.reshape(inside, (-1, b)), axis=0)
            self.bounds[name] = tuple(reader.supports.arrays(reader.supports.of(reader.supports.inner(dist))))
        return value

    def penalty(self, name: str, value: Array) -> None:
        self.run.penalty(name, value)

    def param(self, name: str, value: Array) -> Array:
        return self.run.param(name, value)

    def deterministic(self, name: str, value: Array) -> Array:
        return self.run.deterministic(name, value)

    def noise(self) -> Noise:
        return self.run.noise()

    def drops(self) -> bool:
        return self.run.drops()

    def draws_terms(self) -> bool:
        return self.run.draws_terms()

    def estimates(self, what: str) -> bool:
        return self.run.estimates(what)


def check_site(name: str, dist: Dist, latent: bool, infer: Mapping[str, object] | None) -> None:
    """Refuse a site that a scan can't have: enumerated, or relaxed."""
    if latent and enumeration.wanted(name, infer):
        raise scan_mistakes.enumerated_in_scan(name)
    if getattr(dist, "discrete", None) is not None:
        raise ProgramError(
            f"Site {name!r} is a relaxation (GumbelSoftmax, RelaxedBernoulli), which P.scan does not support. Draw it "
            "from P.dist.Categorical or P.dist.Bernoulli, and train with estimator='score'."
        )


def check_arguments(xs: Tree, length: object, mask: Array | None, b: int | None) -> int:
    """The number of times, T.

    Raises:
        ProgramError: it is not known, or an argument has another shape or type.
    """
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ProgramError(f"P.scan: got length={length!r}, expected a whole number of times, at least 1.")
    for leaf in leaves(xs):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, Unseen):
            raise ProgramError(f"P.scan: got {type(leaf).__name__} in xs, expected arrays [B, T, …].")
        if not (isinstance(leaf, Unseen) and leaf.event is None) and len(leaf.shape) < 2:
            raise ProgramError(f"P.scan: got xs of shape {tuple(leaf.shape)}, expected [B, T, …].")
    if length is None:
        if not (known := leaves(xs)):
            raise ProgramError("P.scan: got neither xs nor length. Give the number of times: length=T.")
        length = int(known[0].shape[1])
    if isinstance(mask, Unseen):
        bool(mask)  # its error explains
    if mask is not None:
        kind = str(getattr(mask, "dtype", type(mask).__name__))
        if not kind.endswith("bool"):
            raise ProgramError(
                f"P.scan: got a mask of type {kind}, expected True where there is data: times < length[:, None], or "
                "mask > 0."
            )
        if len(mask.shape) != 2 or mask.shape[1] != length or b not in (None, mask.shape[0]):
            told_of = f"[B, T] = [{'B' if b is None else b}, {length}]"
            raise ProgramError(f"P.scan: got a mask of shape {tuple(mask.shape)}, expected {told_of}.")
    return length


def by_row(leaf: Array | Unseen, k: int, b: int, length: int, known: int | None = None) -> Array | Unseen:
    """Data of all times as [K or 1, B or 1, T, …]: they are [B, T, …], or already so.

    Args:
        leaf: an array or `Unseen`.
        k, b, length: K, B and T.
        known: 0 if the data are [B, T, …] for sure, 1 if they are [K or 1, B, T, …].

    Raises:
        ProgramError: the shape is another one, or fits in two ways.
    """
    if isinstance(leaf, Unseen) and leaf.event is None:
        return leaf
    shape = tuple(leaf.shape)
    plain = shape[:2] == (b, length)
    ahead = len(shape) > 2 and ((shape[0] in (1, k) and shape[1] == b) or shape[:2] == (1, 1))
    particles = ahead and shape[2] == length
    if known is None and plain and particles and shape[:3] != (1, 1, 1):
        raise ProgramError(
            f"P.scan: got xs of shape {shape}. With K = {k}, B = {b} and T = {length}, these may be [B, T, …] or "
            "[K, B, T, …]. Use another number of particles or rows."
        )
    if particles and known != 0 and not (plain and known is None):
        return leaf
    if plain:
        return leaf[None]
    raise ProgramError(f"P.scan: got xs of shape {shape}, expected [B, T, …] with B = {b} rows and T = {length} times.")


def held_still(mask: Array, new: Array, old: Array, k: int, b: int, xp: Namespace) -> Array:
    """The carry after a time: the new one, or the old one where the mask [B] has no data.

    Raises:
        ProgramError: the carry has no axis of rows.
    """
    axis = row_axis(tuple(new.shape), k, b)
    if axis is None:
        raise ProgramError(
            f"P.scan: with a mask, each row has a carry of its own, but the body returns one of shape "
            f"{tuple(new.shape)}, without an axis of B = {b} rows. Let it depend on the data, or give a number of the "
            "time (such as its index) in xs."
        )
    return xp.where(as_mask(mask, tuple(new.shape), axis, xp), new, old)


def check_body(found: object, carry: Tree) -> tuple[Tree, Tree]:
    """What a body returned: the carry and an output.

    Raises:
        ProgramError: it is not a pair, or the carry has another structure.
    """
    if not isinstance(found, tuple) or len(found) != 2:
        raise ProgramError(
            f"P.scan: the body returned {told(found)}, expected a pair: return carry, output. The output may be None."
        )
    if not alike(carry, found[0]):
        raise ProgramError(
            f"P.scan: the body returned the carry {told(found[0])}, but got {told(carry)}. Return a carry of the same "
            "structure."
        )
    return found


class Scan:
    """One scan of a direct interpreter's run.

    Args:
        outer: the run.
        P: its vocabulary, in the scope of the call.
        body: (P, carry, x) -> (carry, output).
        carry: of the first time.
        xs: data of all times.
        length: T.
        mask: [B, T], or None.
    """

    def __init__(
        self,
        outer: ScannedRun,
        P: Vocabulary,
        body: Body,
        carry: Tree,
        xs: Tree,
        length: int | None,
        mask: Array | None,
    ):
        scan_mistakes.check_inside(outer.inside)
        if outer.axes:
            raise ProgramError(
                f"P.scan comes after site {next(iter(outer.axes))!r}, which is enumerated. P.scan does not support "
                "enumerated sites. Draw the site, and train with estimator='score'."
            )
        self.outer, self.P, self.body, self.reader, self.mask = outer, P, body, outer.reader, mask
        (self.k, self.b), xp = outer.shape, outer.reader.xp
        self.length = check_arguments(xs, length, mask, self.b)
        number = lambda v: P.constant(v) if isinstance(v, int | float) else v
        self.carry, self.noise = mapped(number, carry), self.reader.fork()
        self.run: ScannedRun  # of one time
        front = lambda v, axis: v if isinstance(v, Unseen) else xp.moveaxis(v, axis, 0)
        at_first = lambda v: v if v.event is None else v[:, :, 0]
        ready = lambda v: at_first(self._by_row(v)) if isinstance(v, Unseen) else front(self._by_row(v), 2)
        self.given = {n: front(v, 2) for n, v in outer.given.items() if v.ndim > 2 and v.shape[2] == self.length}
        mask = None if mask is None else front(mask, 1)
        self.at = {"x": mapped(ready, xs), "t": self.reader.times(self.length), "given": self.given, "mask": mask}

    def _by_row(self, leaf: Array | Unseen) -> Array | Unseen:
        known = 0 if any(leaf is v for v in self.outer.fields) else None
        known = 1 if any(leaf is v for v in self.outer.scanned) else known
        return by_row(leaf, self.k, self.b, self.length, known)

    def result(self) -> tuple[Tree, Tree]:
        """The last carry, and the outputs of all times, [K or 1, B, T, …]; the run gets the sites."""
        carry, found = self.reader.loop(self._step, self.carry, self.at, self.length)
        self._record(found)
        outputs = mapped(self._in_place, found["output"])
        self.outer.scanned += leaves(outputs)
        return carry, outputs

    def _step(self, carry: Tree, at: Mapping[str, Tree]) -> tuple[Tree, dict[str, Tree]]:
        outer, mask, xp = self.outer, at["mask"], self.reader.xp
        reader = self.reader.at(self.noise, at["t"])
        run = outer.sibling(reader, at["given"])
        run.inside, run.drawn = True, list(outer.drawn)
        inner = AtTime(run, mask, outer.looks)
        run.P = self.P.told_to(inner)
        after, output = check_body(self.body(run.P, carry, at["x"]), carry)
        number = lambda v: run.P.constant(v) if isinstance(v, int | float) else v
        after, output = mapped(number, after), mapped(number, output)
        if mask is not None:
            after = mapped(lambda new, old: held_still(mask, new, old, self.k, self.b, xp), after, carry)
        self.run = run
        if reader is not self.reader:
            self.reader.noises += reader.noises
        term = lambda v: v if mask is None else xp.where(mask, v, 0.0)
        return after, {
            "output": output,
            "values": {n: self._whole(n, v, run) for n, v in run.values.items()},
            "seen": run.seen,
            "log_prob": mapped(term, run.log_prob),
            "penalties": mapped(term, run.penalties),
            "dists": {n: reader.keep(d) for n, d in run.dists.items() if n not in run.observed},
            "inside": inner.inside,
            "bounds": inner.bounds,
        }

    def _whole(self, name: str, value: Array, run: ScannedRun) -> Array:
        """The value of a site as [K or 1, B, *event]: one that is observed may have fewer axes."""
        if name not in run.dists:
            return value
        event = tuple(run.dists[name].event_shape)
        lead = value.ndim - len(event)
        return value if lead > 1 else self.reader.broadcast(value, (1, self.b, *event))

    def _in_place(self, value: Array) -> Array:
        return in_place(value, self.k, self.b, self.reader.xp)

    def _record(self, found: Mapping[str, Tree]) -> None:
        """Give the sites to the outer run."""
        outer, run, xp = self.outer, self.run, self.reader.xp
        for name in run.values:
            if name in outer.values:
                raise mistakes.twice(name)
            if name in outer.given and name in run.dists and name not in self.given:
                raise scan_mistakes.given_in_scan(
                    name, tuple(outer.given[name].shape), self.length, tuple(run.dists[name].event_shape), outer.shape
                )
        drawn = run.drawn[len(outer.drawn) :]
        if run.held and drawn and self.length > 1 and not outer.apart:  # at the next time
            raise mistakes.held_below(run.held[0], drawn, run.held[0] in run.observed)
        outer.held += run.held
        outer.drawn += drawn
        outer.observed += run.observed
        outer.scans += 1
        mask = None if self.mask is None else xp.moveaxis(self.mask, 1, 0)[:, None, :]
        for name, dist in run.dists.items():
            inside = xp.all(found["inside"][name], axis=0) if name in found["inside"] else None
            bounds = found["bounds"].get(name, ())
            outer.dists[name] = Steps(dist, found["dists"].get(name), mask, outer.scans, inside, bounds)
        for name, value in found["values"].items():
            outer.values[name] = xp.moveaxis(value, 0, 2) if name in run.dists else self._in_place(value)
        outer.seen |= {n: xp.moveaxis(v, 0, 2) for n, v in found["seen"].items()}
        outer.log_prob |= {n: xp.sum(v, axis=0) for n, v in found["log_prob"].items()}
        for name, value in found["penalties"].items():
            outer.penalties[name] = outer.penalties.get(name, 0.0) + xp.sum(value, axis=0)


def closed_form_over_time(q: Dist | Steps, p: Dist | Steps, reader: Reader) -> Array | None:
    """KL(q‖p) [K or 1, B, D]: of all times, if both are sites of scans; None if there is no closed form.

    The dimensions of all times are side by side, as in the flattened value [T, *event]. A time without data has 0.
    """
    if not isinstance(q, Steps) and not isinstance(p, Steps):
        return reader.kl(q, p)
    if not (isinstance(q, Steps) and isinstance(p, Steps)) or q.kept is None or p.kept is None:
        return None
    form = reader.over(reader.kl, q.kept, p.kept)
    if form is None:
        return None
    xp = reader.xp
    if p.mask is not None:
        form = xp.where(p.mask[..., None], form, 0.0)
    form = xp.moveaxis(form, 0, 2)
    return reader.reshape(form, (*form.shape[:2], -1))
