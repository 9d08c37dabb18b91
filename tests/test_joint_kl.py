"""The ELBO as a KL of joint distributions, on a model of 2 × 3 values: both factorisations, by enumeration."""

import numpy as np
import pytest
from readings import BACKENDS
from scipy.special import expit, softmax

from ppdgm import Fit, Program
from ppdgm.program import normal

ONES, N = 13, 20
X = np.repeat([0.0, 1.0], [N - ONES, ONES]).astype("float32")


class Table(Program):
    """z of three values, x of two, and q(z|x) of 2 × 3 numbers."""

    def build(self, c):
        c.param("prior", (3,), normal(1.0))
        c.param("decoder", (3,), normal(1.0))
        c.param("encoder", (2, 3), normal(1.0), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Categorical(logits=P.param("prior")), infer={"enumerate": "parallel"})
            P.sample("x", P.dist.Bernoulli(logits=P.param("decoder")[z]), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            rows = P.param("encoder")
            logits = rows[0] + x[..., None] * (rows[1] - rows[0])
            P.sample("z", P.dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def kl(q, p):
    return (q * np.log(q / p)).sum()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_mean_elbo_is_minus_a_joint_kl_minus_the_entropy_of_the_data(seed, backend):
    program = Table()
    params = program.initialise(seed)
    found = Fit(program, params, backend).elbo(X, k=2)
    prior, guide = softmax(params["prior"].astype(float)), softmax(params["encoder"].astype(float), axis=1)
    p1 = expit(params["decoder"].astype(float))
    p = np.stack([prior * (1 - p1), prior * p1])  # p(x, z), [2, 3]
    data = np.array([N - ONES, ONES]) / N
    q = data[:, None] * guide  # q(x, z)
    entropy = -(data * np.log(data)).sum()
    joint = kl(q, p)
    np.testing.assert_allclose(found.mean, -joint - entropy, atol=1e-5)
    # through x: how far the model is from the data, and the guide from the posterior
    px = p.sum(1)
    np.testing.assert_allclose(joint, kl(data, px) + sum(data[i] * kl(guide[i], p[i] / px[i]) for i in range(2)))
    # through z: how far the aggregated posterior is from the prior, and q(x|z) from the decoder
    qz = q.sum(0)
    through_z = kl(qz, prior) + sum(qz[j] * kl(q[:, j] / qz[j], p[:, j] / prior[j]) for j in range(3))
    np.testing.assert_allclose(joint, through_z)
