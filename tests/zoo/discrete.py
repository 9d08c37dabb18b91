"""Relaxed discrete latents. The direct readings draw and score the discrete program, the handlers the relaxed one.

Latents from elsewhere can't be given to both: `test_discrete.py` does that. Closed-form KLs are of evaluations.
"""

from instances import Instance, real

from ppdgm.inference import Linear
from ppdgm.models import MLP, VAE, BernoulliPrior, CategoricalPrior, Gaussian, GumbelSoftmax, RelaxedBernoulli


def _vae(posterior, prior, latent=2, **parts):
    net = MLP(hidden=(4,))
    return VAE(event_shape=(5,), latent=latent, posterior=posterior, prior=prior, encoder=net, decoder=net, **parts)


ZOO = {
    "gumbel codebook": Instance(
        lambda: _vae(
            GumbelSoftmax(classes=3, embedding=2, kl="relaxed"), CategoricalPrior(weights="learned", temperature=0.8)
        ),
        closed_forms=("z",),
    ),
    "gumbel grid learned temperature": Instance(
        lambda: _vae(
            GumbelSoftmax(classes=2, temperature="learned", kl="relaxed"),
            CategoricalPrior(),
            latent=(2, 3),
            likelihood=Gaussian(scale=0.7),
        ),
        data=real,
        closed_forms=("z",),
    ),
    "relaxed bernoulli": Instance(
        lambda: _vae(RelaxedBernoulli(kl="relaxed"), BernoulliPrior(probs="learned", temperature=0.8), latent=3),
        closed_forms=("z",),
    ),
    "relaxed bernoulli scheduled temperature": Instance(
        lambda: _vae(
            RelaxedBernoulli(kl="relaxed", temperature=Linear(start=1.0, end=0.5, steps=9)), BernoulliPrior(probs=0.3)
        ),
        closed_forms=("z",),
    ),
}
