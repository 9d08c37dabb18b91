"""Active units, and the report on what is used of the latents."""

import numpy as np
import pytest

from ppdgm.diagnostics import active_units, gaussian_kl, latent_use
from ppdgm.errors import DataError, PpdgmError

RNG = np.random.default_rng(0)
N = 500


def guide(spread, scale, offset=0.0):
    """(means, KL per dimension) of normals, whose means have the given standard deviations over data."""
    loc = offset + RNG.normal(size=(N, len(spread))) * spread
    return loc, gaussian_kl(loc, np.broadcast_to(scale, loc.shape))


def test_active_units_are_burdas_statistic():
    means = RNG.normal(size=(N, 4)) * [1.0, 0.2, 0.09, 0.0] + 5.0
    found = active_units(means)
    np.testing.assert_allclose(found.variance, ((means - means.mean(0)) ** 2).sum(0) / (N - 1))
    assert list(found.active) == [True, True, False, False] and found.count == 2
    assert active_units(means, threshold=0.5).count == 1
    assert active_units(means.astype("float32"), threshold=0.0).variance.dtype == np.float64


def test_planted_dimensions_and_sites_are_found():
    """12 of 50 dimensions alive; a second site that has collapsed on its prior, up to noise."""
    alive = np.arange(50) < 12
    z1 = guide(np.where(alive, 0.9, 0.01), np.where(alive, 0.4, 0.999))
    z2 = guide(np.full(8, 0.02), np.full(8, 1.0))
    report = latent_use({"z1": z1[0], "z2": z2[0]}, {"z1": z1[1], "z2": z2[1]})
    assert str(report) == "12 of 50 dimensions of z1 carry information; site z2 has collapsed"
    assert report.collapsed == ("z2",)
    first, second = report.sites
    assert (first.used == alive).all() and second.collapsed and not first.collapsed
    assert set(first.by_kl[:12]) == set(range(12))
    np.testing.assert_allclose(first.kl, z1[1].mean(0))
    assert first.site_kl == pytest.approx(z1[1].sum(1).mean())
    assert str(latent_use({"z1": z1[0]}, {"z1": z1[1]})) == "12 of 50 dimensions carry information"


def test_a_healthy_run_is_not_flagged():
    """Weak dimensions too: means that vary by a fifth of the prior's width carry 0.02 nats."""
    means, kl = guide(np.linspace(0.2, 1.0, 10), np.linspace(0.98, 0.1, 10))
    for given in ({"z": kl}, {"z": kl.sum(1)}, None):
        report = latent_use({"z": means}, given)
        assert report.sites[0].used.all() and report.collapsed == ()
        assert str(report) == "10 of 10 dimensions carry information"


def test_a_guide_that_departs_from_the_prior_alike_for_all_data_carries_nothing():
    means, kl = guide(np.array([0.0, 0.9]), np.array([0.5, 0.5]), offset=np.array([2.0, 0.0]))
    assert kl[:, 0].mean() > 1
    assert list(latent_use({"z": means}, {"z": kl}).sites[0].used) == [False, True]


def test_a_scale_that_varies_carries_information():
    scale = RNG.uniform(0.1, 1.0, size=(N, 1))
    report = latent_use({"z": np.zeros((N, 1))}, {"z": gaussian_kl(np.zeros((N, 1)), scale)})
    assert report.sites[0].used.all() and str(report) == "1 of 1 dimension carries information"


def test_means_that_follow_a_moving_prior_carry_nothing():
    """In a hierarchy p(z1|z2) moves with the datum, and a guide that equals it with them: the KL tells."""
    means = RNG.normal(size=(N, 3))
    report = latent_use({"z1": means}, {"z1": np.full((N, 3), 1e-5)})
    assert report.collapsed == ("z1",) and active_units(means).count == 3
    assert str(report) == "site z1 has collapsed"


def test_a_scale_of_the_latents_does_not_matter_to_the_kl():
    """A prior N(0, 0.01²): Burda's statistic sees nothing, the KL does."""
    means, kl = guide(np.full(2, 0.9), np.full(2, 0.4))
    assert active_units(0.01 * means).count == 0
    assert latent_use({"z": 0.01 * means}, {"z": kl}).sites[0].used.all()


def test_only_a_sites_kl():
    """By draws, noisy and below 0 for some: a site near 0 has collapsed, another's dimensions go by Burda."""
    means = RNG.normal(size=(N, 4)) * [1, 1, 0.01, 0.01]
    report = latent_use({"a": means, "b": means}, {"a": 2 + RNG.normal(size=N), "b": -0.1 + 0.1 * RNG.normal(size=N)})
    assert list(report.sites[0].used) == [True, True, False, False]
    assert report.collapsed == ("b",) and report.sites[0].kl is None
    assert list(report.sites[0].by_kl[:2]) in ([0, 1], [1, 0])


def test_words_for_many_sites():
    used, gone = guide(np.full(3, 0.9), np.full(3, 0.3)), guide(np.zeros(3), np.ones(3))
    sites = {"a": used, "b": gone, "c": used, "d": gone, "e": gone}
    report = latent_use({n: m for n, (m, _) in sites.items()}, {n: k for n, (_, k) in sites.items()})
    assert str(report) == (
        "3 of 3 dimensions of a and 3 of 3 dimensions of c carry information; sites b, d and e have collapsed"
    )
    without = latent_use({}, {"a": used[1], "b": gone[1]})
    assert without.sites[0].variance is None and without.collapsed == ("b",)


def test_thresholds_are_arguments():
    means, kl = guide(np.array([0.5, 0.9]), np.array([0.8, 0.3]))
    assert list(latent_use({"z": means}, {"z": kl}, nats=0.5).sites[0].used) == [False, True]
    assert list(latent_use({"z": means}, threshold=0.5).sites[0].used) == [False, True]


def test_bad_input_is_refused():
    means = np.zeros((5, 2))
    cases = {
        "at least one site": ({}, None),
        "expected mappings": (means, None),
        r"kl\['z'\]: got shape \(5, 3\), expected \[N, D = 2\]": ({"z": means}, {"z": np.zeros((5, 3))}),
        r"kl\['z'\]: got shape \(5, 2, 2\)": ({}, {"z": np.zeros((5, 2, 2))}),
        "got one row": ({"z": means[:1]}, None),
        r"kl\['z'\]: got one row": ({}, {"z": means[:1]}),
        "means: got no means for site 'z'": ({}, {"z": np.zeros(5)}),
        r"means\['z'\]: got nan": ({"z": means * np.nan}, None),
    }
    for told, (given, kl) in cases.items():
        with pytest.raises(DataError, match=told):
            latent_use(given, kl)
    with pytest.raises(PpdgmError, match="nats: got -1"):
        latent_use({"z": means}, nats=-1)
    with pytest.raises(PpdgmError, match="threshold: got 'a'"):
        active_units(means, "a")
    with pytest.raises(DataError, match=r"means: got an array of shape \(5,\), expected \[N, D\]"):
        active_units(means[:, 0])
