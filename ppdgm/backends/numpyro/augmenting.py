"""Rows changed by an augmentation, with JAX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.language.augmenting import Augment, augmented
from ppdgm.language.vocabulary import Array


def change(augment: Augment, key: Array, x: Array) -> Array:
    """x [B, *event], changed with noise of this key."""
    return augmented(JaxVocabulary, augment, partial(jax.random.fold_in, key), x)


def augment_rows(augment: Augment, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same outside training."""
    return np.asarray(jax.jit(partial(change, augment))(make_key(seed), jnp.asarray(x)))
