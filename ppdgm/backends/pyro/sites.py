"""The sites of a plain Pyro function, and their per-row terms, whatever the dimensions of its plates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import array_api_compat.torch as xp
import numpy as np
import torch
from pyro.distributions.util import scale_and_mask

from ppdgm.backends.pyro.support import confine, observe
from ppdgm.backends.pyro.vocabulary import LIBRARY
from ppdgm.language import mistakes, pair_mistakes
from ppdgm.language.divergence import Library
from ppdgm.language.elimination import Term
from ppdgm.language.pair_sites import Layout, Site, Slopes, broadcasts
from ppdgm.language.scales import scale_of
from ppdgm.language.vocabulary import Array, Namespace


@dataclass(frozen=True)
class TorchLayout(Layout):
    """Where the batch dimensions of a run of Pyro's are."""

    xp: ClassVar[Namespace] = xp
    library: ClassVar[Library] = LIBRARY
    logsumexp = staticmethod(torch.logsumexp)

    @property
    def written(self) -> str:
        return f"pyro.plate({self.plate!r}, x.shape[0])"

    def log_prob(self, site: Site, judged: bool = False) -> Array:
        if site.observed:
            log_prob = observe(site.fn, site.value, lambda d, x: d.log_prob(x))
        else:
            log_prob = mistakes.scored(site.name, site.fn, lambda: site.fn.log_prob(site.value))
            log_prob = confine(site.fn, site.value, log_prob) if judged else log_prob
        mask = site.mask
        if isinstance(mask, torch.Tensor) and not broadcasts(tuple(mask.shape), tuple(log_prob.shape)):
            raise pair_mistakes.misfit_mask(site.name, tuple(mask.shape), tuple(log_prob.shape))
        return scale_and_mask(log_prob, mask=mask)

    def term(self, site: Site, judged: bool = False) -> Array:
        log_prob = self.gather(site, self.log_prob(site, judged), 0)
        total = log_prob.reshape(*log_prob.shape[:2], -1).sum(-1)
        return total.broadcast_to(self.k or 1, self.b if self.local(site) else 1)

    def per_datum(self, term: Term) -> Array:
        x = term.log_prob.reshape(term.log_prob.shape[-self.width :])
        x = x.reshape(*(1,) * (self.nesting + 1 - x.ndim), *x.shape)
        for dim in [dim for n, dim in term.plates.items() if n != self.plate]:
            x = x.sum(dim, keepdim=True)
        b = self.b if self.plate in term.plates else 1
        return x.reshape(x.shape[0], -1).broadcast_to(self.k or 1, b)

    @staticmethod
    def slopes(function: Callable[[Slopes], Array], at: Slopes) -> Slopes:
        with torch.enable_grad():
            moved = {n: v.requires_grad_() for n, v in at.items()}
            return dict(zip(moved, torch.autograd.grad(function(moved), list(moved.values())), strict=True))

    @staticmethod
    def array(x: np.ndarray, like: Array) -> Array:
        return torch.as_tensor(x, dtype=like.dtype if x.dtype.kind == "f" else None, device=like.device)

    @staticmethod
    def numbers(x: Array) -> np.ndarray:
        found: np.ndarray = x.detach().cpu().numpy()
        return found

    def scale(self, site: Site) -> float:
        """The user's own scale around a site, without the part that its plates explain."""
        explained = 1.0
        for name, frame in site.frames.items():
            part = (frame.full_size or frame.size) / frame.size
            if part != 1.0 and name != self.plate:
                raise pair_mistakes.subsampled(name, self.plate)
            explained *= part
        scale = torch.as_tensor(site.scale)
        if scale.numel() != 1:
            raise scale_of(site.name, f"numbers of shape {tuple(scale.shape)}", "but only one number is a constant")
        own = float(scale) / explained
        return 1.0 if abs(own - 1.0) < 1e-5 else float(f"{own:.6g}")
