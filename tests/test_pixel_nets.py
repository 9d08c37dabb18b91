"""PixelCNN++, PixelSNAIL and coupled colours: what they see, that they sum to 1, and that draws are what is scored."""

import numpy as np
import pytest
from causal_tools import all_values, declared, seen_by
from flow_tools import run
from readings import BACKENDS, precision
from reference.pixels import coupled
from scipy.stats import chi2

import ppdgm
from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MADE,
    AutoregressiveModel,
    Bernoulli,
    CoupledDiscretisedLogistics,
    GatedPixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
)
from ppdgm.models.likelihoods.autoregressive import autoregressive
from ppdgm.program import Context

both = pytest.mark.parametrize("backend", BACKENDS)
PLUS = PixelCNNPlusPlus(channels=4, levels=2, blocks=1)
SNAIL = PixelSNAIL(channels=4, layers=2, blocks=1, key=3, value=4)
COUPLED = CoupledDiscretisedLogistics(levels=3, components=2)
FAST = {"compile": False, "progress": False}


@pytest.mark.parametrize(
    ("net", "event"),
    [
        (PLUS.replace(levels=3), (8, 8)),
        (PLUS, (2, 6, 4)),
        (PLUS.replace(levels=1, blocks=2), (5, 3)),
        (SNAIL, (4, 5)),
        (SNAIL.replace(layers=1), (3, 3, 4)),
    ],
)
def test_a_pixel_sees_earlier_pixels_and_no_other(net, event):
    order = net.order(event).ravel()
    earlier = order[None, :] < order[:, None]
    sees = seen_by(net, event)
    assert not (sees & ~earlier).any()
    if isinstance(net, PixelSNAIL):
        assert (sees == earlier).all()
        return
    height, width = event[-2:]
    row, column = np.divmod(np.arange(len(order)) % (height * width), width)
    near = (row[:, None] - row[None] <= 2) & (np.abs(column[:, None] - column[None]) <= 2)
    assert sees[earlier & near].all()  # no blind spot


def test_colours_of_a_pixel_have_the_same_place():
    for net in (PixelCNNPlusPlus(), PixelSNAIL()):
        assert net.order((2, 1, 2)).tolist() == [[[0, 1]], [[0, 1]]]
        assert net.order((2, 2)).tolist() == [[0, 1], [2, 3]]


@both
@pytest.mark.parametrize(
    ("net", "each", "event", "levels"),
    [
        (PLUS, COUPLED, (3, 2, 2), 2),
        (PLUS.replace(levels=1), COUPLED, (2, 1, 3), 3),
        (PLUS, Bernoulli(), (4, 2), 2),
        (SNAIL, COUPLED, (3, 1, 3), 2),
        (SNAIL, Bernoulli(), (3, 3), 2),
    ],
)
def test_probabilities_sum_to_one(net, each, event, levels, backend):
    each = each.replace(levels=levels) if each is COUPLED else each
    found, params = declared(net, each, event)
    with precision("float64"):
        log_p = run(
            backend, lambda P, x: autoregressive(P, net, each, event, None, ()).log_prob(x), params, found,
            all_values(event, levels),
        )  # fmt: skip
    assert abs(np.exp(log_p).sum() - 1) < 1e-10
    assert np.exp(log_p).max() > 3 * np.exp(log_p).mean()  # it is not the same for all


@both
@pytest.mark.parametrize("net", [PLUS, SNAIL], ids=lambda net: type(net).__name__)
def test_draws_have_the_probabilities_that_are_scored(net, backend):
    """Three colours of two pixels, which were drawn together in the data."""
    event = (3, 2, 1) if net is SNAIL else (3, 2, 2)
    size = int(np.prod(event))
    x = all_values(event, 2).astype("float32")
    rng = np.random.default_rng(0)
    data = x[rng.choice(len(x), size=300, p=rng.dirichlet(np.full(len(x), 0.3)))]
    each = COUPLED.replace(levels=2, components=3)
    program = AutoregressiveModel(event_shape=event, net=net.replace(dropout=0.0), likelihood=each)
    fit = ppdgm.fit(program, data, backend=backend, steps=60, learning_rate=0.02, **FAST)
    found = fit.log_likelihood(x)
    assert found.exact
    p, n = np.exp(found.values.astype(float)), 6000
    assert abs(p.sum() - 1) < 1e-4
    drawn = fit.sample(n, seed=1).reshape(n, size).astype(int)
    seen = np.bincount(drawn @ 2 ** np.arange(size)[::-1], minlength=2**size)
    common = n * p > 5
    got, expected = np.append(seen[common], seen[~common].sum()), n * np.append(p[common], p[~common].sum())
    statistic = ((got - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert chi2.sf(statistic, len(got) - 1) > 1e-4


@pytest.mark.parametrize("event", [(3, 1, 1), (2, 1, 1), (4, 1, 1), (1, 1)])
def test_coupled_colours_sum_to_one_and_depend_on_each_other(event):
    """By the equation in NumPy, over all values; with slopes of 0 the colours are a plain mixture."""
    each = CoupledDiscretisedLogistics(levels=4, components=2)
    x = all_values(event, 4)
    head = np.random.default_rng(1).normal(size=(1, *each.head_shape(event)))
    found = Declarations()
    Context(found).part(each, event)
    log_prob = lambda P, head, x: each.distribution(P.scope("likelihood"), head).log_prob(x)
    with precision("float64"):
        ours = run("numpyro", log_prob, {"type": np.zeros(1)}, found, head, x)
        steeper = run("numpyro", log_prob, {"type": np.zeros(1)}, found, np.where(head == head, head + 1, 0), x)
    table = {"components": 2, "levels": 4, "min_log_scale": -7.0}
    np.testing.assert_allclose(ours, coupled(table, np.repeat(head, len(x), 0), x), rtol=1e-9)
    assert abs(np.exp(ours).sum() - 1) < 1e-12
    assert np.abs(steeper - ours).max() > 0.1


@both
@pytest.mark.parametrize("net", [PLUS, SNAIL], ids=lambda net: type(net).__name__)
def test_training_starts_at_the_columns_and_beats_them(net, backend):
    """Stripes, whose phase is one bit: what was before a pixel says what it is. With a class, and dropout."""
    rng = np.random.default_rng(0)
    label, phase = rng.integers(2, size=200), rng.integers(2, size=200)
    rows = np.where(label[:, None] == 1, np.arange(4)[None] % 2, 0)
    x = (phase[:, None, None] + rows[:, :, None] + np.arange(4)[None, None]) % 2
    x = np.where(rng.random(x.shape) < 0.02, 1 - x, x).astype("float32")
    program = AutoregressiveModel(event_shape=(4, 4), net=net.replace(channels=8, dropout=0.1), classes=2)
    data = {"x": x, "label": label}
    fit = ppdgm.fit(program, data, backend=backend, steps=120, batch_size=50, learning_rate=0.01, **FAST)
    first = ppdgm.fit(program, data, backend=backend, steps=1, learning_rate=0.0, **FAST)
    assert -18 < first.elbo(data).mean < -9  # independent columns: 16 log 2 is 11.1
    noise = 0.02 * np.log(0.02) + 0.98 * np.log(0.98)
    assert fit.elbo(data).mean > -np.log(2) + 16 * noise - 3.0  # the truth is −2.26


def test_what_can_not_be_is_refused():
    declare = lambda **how: AutoregressiveModel(**how).declarations()
    for net in (GatedPixelCNN(channels=3, hidden=3), MADE(hidden=())):
        with pytest.raises(SpecError, match=r"draws the colours of a pixel together, but .* one after the other"):
            declare(event_shape=(3, 2, 2), net=net, likelihood=COUPLED)
    declare(event_shape=(2, 2), net=GatedPixelCNN(channels=3, hidden=3), likelihood=COUPLED)
    with pytest.raises(SpecError, match=r"levels: got 3 for images of 6×4, expected .* 2 halvings divide"):
        declare(event_shape=(6, 4), net=PixelCNNPlusPlus())
    for kind in (PixelCNNPlusPlus, PixelSNAIL):
        with pytest.raises(SpecError, match=rf"{kind.__name__}: got rows of shape \(3,\), expected images"):
            declare(event_shape=(3,), net=kind())
        with pytest.raises(SpecError, match="dropout"):
            kind(dropout=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_are_numbers_also_where_scales_would_overflow(backend):
    """exp of a net's output above 88 is infinite in float32, and ∞ − ∞ is no number."""
    net = PixelCNNPlusPlus(channels=4, levels=1, blocks=1)
    likelihood = CoupledDiscretisedLogistics(levels=2, components=3)
    program = AutoregressiveModel(event_shape=(4, 2, 1), net=net, likelihood=likelihood)
    rng = np.random.default_rng(0)
    params = {n: (v + rng.normal(scale=3.0, size=v.shape)).astype("float32") for n, v in program.initialise(0).items()}
    drawn = ppdgm.Fit(program, params, backend).sample(1000, seed=1)
    assert np.isin(drawn, (0, 1)).all()
