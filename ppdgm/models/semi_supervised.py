"""The semi-supervised variational autoencoder, M2."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import numpy as np

from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.classes import (
    as_one_hot,
    beside,
    check_labels,
    one_hot_categorical,
    put_beside,
)
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.models.relaxed import log_softmax
from ppdgm.models.vae import as_shape, check_family
from ppdgm.nets import MLP, Net
from ppdgm.nets.base import flatten
from ppdgm.program import Context, Program, zeros
from ppdgm.specs import NonNegativeFloat, PositiveInt, Shape


class SemiSupervisedVAE(Program):
    """M2: y ~ Cat(π), z ~ prior, x ~ likelihood(decoder(z, y)); q(y|x) = Cat(classifier(x)), q(z|x, y).

    Kingma et al. 2014, arXiv:1406.5298. The field `label` y [N] holds classes, whole numbers from 0, and −1 if a label
    is missing; without the field, all labels are missing. The site y, a one-hot vector, is enumerated: the ELBO of a
    row without a label is the exact expectation over q(y|x), and its `log_likelihood` is log p(x). If a label is known,
    q(y|x) has all its mass there, so that the ELBO of a labelled row is a bound on log p(x, y). `fit.encode(x)["y"]`
    gives the probabilities q(y|x) of the classes. Parameter of a learned class prior: `class_logits`.

    Args:
        event_shape: shape of one row of the data.
        classes: C, the number of classes.
        latent: D, the width of z, or its shape.
        alpha: α, the weight of −log q(y|x) in training, for each labelled row. Kingma et al. use 0.1 · (number of
            rows) / (number of labels): 50 if 100 of 50,000 rows have a label.
        class_prior: π, "uniform" or "learned".
        prior: p(z).
        posterior: q(z|x, y), given the encoder's output.
        likelihood: p(x|z, y), given the decoder's output.
        classifier: the net from x to the logits of q(y|x).
        encoder: the net of x and the one-hot label, [X + C]; a ConvEncoder sees C more channels.
        decoder: the net of z and the one-hot label, [D + C].
    """

    event_shape: Shape
    classes: PositiveInt = 10
    latent: PositiveInt | Shape = 50
    alpha: NonNegativeFloat = 50.0
    class_prior: Literal["uniform", "learned"] = "uniform"
    prior: Prior = StandardNormal()
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    classifier: Net = MLP()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        check_family(self.prior, self.posterior)
        z, c = self._latent, self.classes
        if self.class_prior == "learned":
            context.param("class_logits", (c,), zeros)
        context.part(self.prior, z)
        head = context.part(self.posterior, z, label="guide")
        outputs = context.part(self.likelihood, self.event_shape)
        context.net("decoder", self.decoder, (prod(self.posterior.code_shape(z)) + c,), outputs)
        context.net("classifier", self.classifier, self._seen, (c,), label="guide")
        context.net("encoder", self.encoder, beside(self.encoder, self._seen, c), head, label="guide")

    @property
    def _seen(self) -> tuple[int, ...]:
        """The shape of x as the encoder sees it."""
        return self.likelihood.encoded_shape(self.event_shape)

    @property
    def _latent(self) -> tuple[int, ...]:
        return self.posterior.variable(as_shape(self.latent))

    def model(self, P: Vocabulary, x: Array, label: Array | None = None, exposure: Array | None = None) -> None:
        logits = P.param("class_logits") if self.class_prior == "learned" else P.full((self.classes,), 0.0)
        with P.plate("data", x):
            y = P.sample("y", one_hot_categorical(P, log_softmax(P, logits)))
            z = P.sample("z", self.posterior.counterpart(P, self.prior(P)))
            code = flatten(P, self.posterior.code(P, z), self.posterior.code_shape(self._latent))
            P.sample("x", self.likelihood(P, P.net("decoder")(P.concat([code, y])), exposure=exposure), obs=x)

    def guide(self, P: Vocabulary, x: Array, label: Array | None = None, exposure: Array | None = None) -> None:
        seen = self.likelihood.encoded(P, x)
        log_probs = log_softmax(P, P.net("classifier")(seen))
        with P.plate("data", x):
            if label is not None:
                hot = as_one_hot(P, label, self.classes)
                P.penalty("classification", -self.alpha * P.xp.sum(hot * log_probs, axis=-1))
                certain = P.xp.where(hot > 0, P.full((), 0.0), P.full((), -float("inf")))
                log_probs = P.xp.where(label[..., None] >= 0, certain, log_probs)
            y = P.sample("y", one_hot_categorical(P, log_probs), infer={"enumerate": "parallel"})
            both = put_beside(P, self.encoder, seen, y, self._seen)
            P.sample("z", self.posterior(P, P.net("encoder")(both)), infer=self.posterior.infer)

    def fixes(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """y, as a one-hot vector, if labels are given."""
        if "label" not in data:
            return {}
        label = np.asarray(data["label"])
        check_labels(label, self.classes)
        return {"y": np.eye(self.classes)[label.astype(int)]}

    def simulated(self, latents: Batch, data: Batch) -> dict[str, np.ndarray]:
        """The class that was drawn is the label; it is missing if the label of the data's row is missing."""
        known = np.argmax(latents["y"], axis=-1)
        return {"label": np.where(np.asarray(data["label"]) < 0, -1, known)} if "label" in data else {}

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)
        if "label" in data:
            check_labels(data["label"], self.classes, missing=True)
