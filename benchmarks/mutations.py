"""Break the package on purpose, one line at a time, and check that a test fails.

    python benchmarks/mutations.py [NAME …] [--list | --quick]

Each mutation is made in a copy of the checkout, and the tests named with it are run there. A mutation that no test
kills is printed as SURVIVED, and the exit status is 1. The unmutated copy must pass the same tests first.

With --quick, only those of the named tests are run that `make quick` runs too; which mutations these kill is written to
benchmarks/results/quick.md. It is a lower bound: other quick tests may fail too.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mutations_of_engines import ENGINES

ROOT = Path(__file__).parents[1]
QUICK = ROOT / "tests" / "quick.txt"
COPIED = ("ppdgm", "tests", "tutorials", "benchmarks", "docs", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Mutation:
    """One line of one file, and the tests (pytest's own selection) that must notice."""

    file: str
    before: str
    after: str
    tests: str


MUTATIONS: dict[str, Mutation] = {
    "a cell has the width of all levels": Mutation(
        "ppdgm/models/posteriors/dequantiser.py",
        "log1p(-2 * margin) - log(self.levels)",
        "log1p(-2 * margin)",
        "tests/test_dequantised.py -k uniform_noise and pyro",
    ),
    "the slope of the noise is turned around": Mutation(
        "ppdgm/models/posteriors/dequantiser.py",
        'at(P.activation("sigmoid", s)), log_q - log_slope(s)',
        'at(P.activation("sigmoid", s)), log_q + log_slope(s)',
        "tests/test_dequantised.py -k posterior_itself and pyro",
    ),
    "the noise reaches the next cell": Mutation(
        "ppdgm/models/posteriors/dequantiser.py",
        "2.0**-21",
        "2.0**-26",
        "tests/test_dequantised.py -k leaves_its_cell and pyro",
    ),
    "a level is the nearest one, not the one below": Mutation(
        "ppdgm/models/likelihoods/rounding.py",
        "xp.floor(",
        "xp.round(",
        "tests/test_dequantised.py -k whole_numbers_in_range and pyro",
    ),
    "the mass of an interval is found in the wrong tail": Mutation(
        "ppdgm/models/likelihoods/interval_mass.py",
        "flip = low + high > 0  # the left tail is precise",
        "flip = low + high > 1e9",
        "tests/test_discretised.py -k masses and gaussian",
    ),
    "bits are nats": Mutation(
        "ppdgm/diagnostics/bits.py",
        "-nats / (dimensions * log(2))",
        "-nats / dimensions",
        "tests/test_bits.py -k by_hand",
    ),
    "one-hot numbers count as whole ones": Mutation(
        "ppdgm/language/supports.py",
        ' and not getattr(each, "event_dim", 0)',
        "",
        "tests/test_bits.py -k plain_pairs",
    ),
    "numbers under a mask have bits": Mutation(
        "ppdgm/inference/inputs/support.py",
        "all(o.discrete and not o.masked for o in sites)",
        "all(o.discrete for o in sites)",
        "tests/test_bits.py -k your_own and pyro",
    ),
    "the multiplier of the KL may be negative": Mutation(
        "ppdgm/inference/engines/svi.py",
        "moved = xp.clip(now + self.multiplier_rate * over, 0.0, None)",
        "moved = now + self.multiplier_rate * over",
        "tests/test_kl_at_most.py -k binds and pyro and 5",
    ),
    "blocks share the first statistics": Mutation(
        "ppdgm/inference/training/exact.py",
        "            total = self._summed(program.statistics)\n            if i == 0:\n",
        "            if i == 0:\n                total = self._summed(program.statistics)\n",
        "tests/test_coordinates.py -k statistics_at",
    ),
    "a pixel sees its own row from above": Mutation(
        "ppdgm/nets/pixels.py",
        "return P.xp.concat([P.xp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)",
        "return x",
        "tests/test_autoregressive.py -k sum_to_one and net2 and pyro",
    ),
    "a colour sees itself": Mutation(
        "ppdgm/nets/pixel_cnn.py",
        "[:, None] + (i > 0)",
        "[:, None] + 1",
        "tests/test_autoregressive.py -k sum_to_one and net4 and pyro",
    ),
    "the last number is not drawn": Mutation(
        "ppdgm/nets/causal.py",
        "int(self.order(event).max()) + 1",
        "int(self.order(event).max())",
        "tests/test_causal_draws.py -k few_passes",
    ),
    "a row's pixels are drawn in two passes": Mutation(
        "ppdgm/nets/row_by_row.py",
        "image.width * net.steps(image)",
        "2",
        "tests/test_causal_draws.py -k full_passes and pixels-pyro",
    ),
    "a kernel looks one row too high": Mutation(
        "ppdgm/nets/row_by_row.py",
        "wide[..., 1:, :]",
        "wide[..., :-1, :]",
        "tests/test_causal_draws.py -k full_passes and pixels-pyro",
    ),
    "a pixel attends to itself": Mutation(
        "ppdgm/nets/pixel_snail.py",
        "k=-1",
        "k=0",
        "tests/test_pixel_nets.py -k sees and net4",
    ),
    "a corner is the one to the right": Mutation(
        "ppdgm/nets/gated_residual.py",
        "(1, 1) if w == 3 else (w - 1, 0)",
        "(1, 1) if w == 3 else (0, w - 1)",
        "tests/test_pixel_nets.py -k sees and net2",
    ),
    "colours are coupled in another order": Mutation(
        "ppdgm/models/likelihoods/coupled.py",
        "for c in range(colours) for d in range(c)]",
        "for c in range(colours) for d in range(c)][::-1]",
        "tests/test_pixel_nets.py -k coupled_colours",
    ),
    "dropout shrinks what it keeps": Mutation(
        "ppdgm/language/vocabulary.py",
        "< rate, 0.0, x / (1.0 - rate))",
        "< rate, 0.0, x)",
        "tests/test_causal_draws.py -k dropout_is_on and pyro and not numpyro",
    ),
    "logits of orderings are averaged": Mutation(
        "ppdgm/models/likelihoods/autoregressive.py",
        "xp.logaddexp(total, self.log_prob(x, self.at(r)))",
        "total + self.log_prob(x, self.at(r)) / count",
        "tests/test_order_agnostic.py -k averaged and pyro and not numpyro",
    ),
    "missing numbers are not last": Mutation(
        "ppdgm/nets/order_agnostic.py",
        "P.xp.where(missing, float(width), 0.0)",
        "P.xp.where(missing, 0.0, 0.0)",
        "tests/test_order_agnostic.py -k enumerated and pyro and not numpyro",
    ),
    "a sequence's output sees itself": Mutation(
        "ppdgm/nets/sequence.py",
        "(*x.shape[: x.ndim - len(event)], times, each)), 1)",
        "(*x.shape[: x.ndim - len(event)], times, each)), 0)",
        "tests/test_sequences.py -k sum_to_one and pyro and not numpyro",
    ),
    "a norm's volume of one pixel": Mutation(
        "ppdgm/models/flows/glow.py",
        "fixed = height * width * (",
        "fixed = (",
        "tests/test_flow_model.py -k jacobian and pyro and not numpyro",
    ),
    "data that are missing are scored": Mutation(
        "ppdgm/backends/pyro/support.py",
        "    value = _filled(d, value)",
        "    value = value",
        "tests/test_words.py -k rows_without and pyro and not numpyro",
    ),
    "terms may depend on noise": Mutation(
        "ppdgm/backends/numpyro/runtime.py",
        "return noise_of_terms(self.tracer, params, partial(select, self.tracer, data, rows), len(index))",
        'return ""',
        "tests/test_words.py -k depend_on_noise and numpyro",
    ),
    "particles of a pair one after the other": Mutation(
        "ppdgm/backends/numpyro/rows.py",
        "any(isinstance(a, jax.core.Tracer) for a in arrays)",
        "isinstance(arrays[0], jax.core.Tracer)",
        "tests/test_pairs_fit.py -k many_particles",
    ),
    "a state moves at each run": Mutation(
        "ppdgm/language/states.py",
        "self.updates.setdefault(name, value)",
        "self.updates[name] = value",
        "tests/test_states.py -k numpyro",
    ),
    "a masked time counts": Mutation(
        "ppdgm/language/scan.py",
        "term = lambda v: v if mask is None else xp.where(mask, v, 0.0)",
        "term = lambda v: v",
        "tests/test_scan.py -k numpyro",
    ),
    "a second run repeats the draws of the first": Mutation(
        "ppdgm/backends/numpyro/tracer.py",
        "return key if not number else",
        "return key if True else",
        "tests/test_fresh_draws.py -k two_uses and numpyro",
    ),
    "a phase with the run's optimiser": Mutation(
        "ppdgm/backends/numpyro/loop.py",
        "chosen = [phase.optimiser or settings.optimiser for phase in self.phases]",
        "chosen = [settings.optimiser for phase in self.phases]",
        "tests/test_phases.py -k numpyro",
    ),
    "a projection left out (pyro)": Mutation(
        "ppdgm/backends/pyro/step.py",
        "                    p.copy_(self.projection(xp, p))",
        "                    pass",
        "tests/test_phases.py -k by_hand and pyro and not numpyro",
    ),
    "draws that are alike are exact": Mutation(
        "ppdgm/inference/evaluation/evaluator.py",
        "return not self.one.log_q and not self.one.shared",
        "return True",
        "tests/test_without_guide.py -k alike",
    ),
    "closed form where it is invalid": Mutation(
        "ppdgm/language/terms.py",
        "        if name not in enumerated and valid_order(name, latent, q, p):",
        "        if name not in enumerated:",
        "tests/test_contract.py -k analytic and reversed",
    ),
    "guide draws once for all data": Mutation(
        "ppdgm/language/interpreter.py",
        "            mistakes.check_given(name, got, tuple(dist.event_shape), shape, self.inside)\n",
        "            pass\n",
        "tests/test_shapes.py -k ModelWithoutPlate or WidthThatWould or DrawsOnce",
    ),
    "guide and model in different places": Mutation(
        "ppdgm/language/terms.py",
        "        if (name in guide.shared) != (name in model.shared):",
        "        if False:",
        "tests/test_shapes.py -k one_datum",
    ),
    "gate and value swapped": Mutation(
        "ppdgm/nets/mlp.py",
        'both[..., :width], self.activation) * P.activation("sigmoid", both[..., width:])',
        'both[..., width:], self.activation) * P.activation("sigmoid", both[..., :width])',
        "tests/test_nets.py -k gated",
    ),
    "norm's epsilon": Mutation(
        "ppdgm/nets/norms.py",
        "NORM_EPSILON = 1e-5",
        "NORM_EPSILON = 1e-3",
        "tests/test_nets.py -k norm",
    ),
    "norm without centring": Mutation(
        "ppdgm/nets/norms.py",
        "axes: tuple[int, ...]) -> Array:\n    centred = x - P.xp.mean(x, axis=axes, keepdims=True)",
        "axes: tuple[int, ...]) -> Array:\n    centred = x",
        "tests/test_nets.py -k norm",
    ),
    "output padding turned": Mutation(
        "ppdgm/nets/conv.py",
        '            h = P.conv_transpose2d(h, *weights(P, f"convs.{i}"), self.stride, self.padding, extra)',
        '            h = P.conv_transpose2d(h, *weights(P, f"convs.{i}"), self.stride, self.padding, extra[::-1])',
        "tests/test_nets.py -k decoder",
    ),
    "residual without the input": Mutation(
        "ppdgm/nets/convolutional.py",
        "            h = h + r\n",
        "            h = r\n",
        "tests/test_nets.py -k normed",
    ),
    "gelu by its approximation": Mutation(
        "ppdgm/backends/numpyro/vocabulary.py",
        "jax.nn.gelu(x, approximate=False)",
        "jax.nn.gelu(x)",
        "tests/test_nets.py -k gelu",
    ),
    "scale without its floor (network)": Mutation(
        "ppdgm/models/likelihoods/scale.py",
        "return floor + P.softplus(",
        "return P.softplus(",
        "tests/test_contract.py -k log_weights and network",
    ),
    "scale without its floor (posterior)": Mutation(
        "ppdgm/models/posteriors/normal.py",
        "return low + P.softplus(raw)",
        "return P.softplus(raw)",
        "tests/test_contract.py -k log_weights and learned",
    ),
    "posterior's covariance not scaled": Mutation(
        "ppdgm/models/linear_gaussian.py",
        "scale_tril=P.xp.linalg.cholesky(inverse)",
        "scale_tril=P.xp.linalg.cholesky(2.0 * inverse)",
        "tests/test_contract.py -k log_weights and ppca",
    ),
    "missing log q": Mutation(
        "ppdgm/inference/engines/bounds.py",
        "return sum(trace.log_p.values()) - sum(trace.log_q.values())",
        "return sum(trace.log_p.values())",
        "tests/test_contract.py -k gradients_at_given and vae",
    ),
    "flow's draw without gradient (pyro)": Mutation(
        "ppdgm/backends/pyro/density.py",
        "        value = value if self.has_rsample else value.detach()\n",
        "        value, log_prob = value.detach(), log_prob.detach()\n",
        "tests/test_contract.py -k pathwise and coupling",
    ),
    "flow's draw without gradient (numpyro)": Mutation(
        "ppdgm/backends/numpyro/density.py",
        "        return value, [] if log_prob is None else [log_prob]",
        "        return jax.lax.stop_gradient(value), [] if log_prob is None else [log_prob]",
        "tests/test_contract.py -k pathwise and coupling",
    ),
    "Pyro's global store used": Mutation(
        "ppdgm/backends/pyro/bind.py",
        "        return read(name, constraint=dist.constraints.real, event_dim=None, name=name)",
        "        return pyro.param(name, value)",
        "tests/test_bind.py -k pyro_svi or turns",
    ),
    "plate's scale upside down": Mutation(
        "ppdgm/backends/numpyro/bind.py",
        "scale=data_size / size",
        "scale=size / data_size",
        "tests/test_bind.py -k data_size",
    ),
    "validation left on": Mutation(
        "ppdgm/backends/pyro/vocabulary.py",
        "        Distribution.set_default_validate_args(before)\n",
        "        Distribution.set_default_validate_args(True)\n",
        "tests/test_bind.py -k torch_as",
    ),
    "validation left off by compile": Mutation(
        "ppdgm/backends/pyro/step.py",
        "        Distribution.set_default_validate_args(before)\n",
        "",
        "tests/test_bind.py -k compiled",
    ),
    "BatchNorm in training mode when judged": Mutation(
        "ppdgm/backends/pyro/tracer.py",
        "            m.training = False\n",
        "            pass\n",
        "tests/test_foreign.py -k evaluation",
    ),
    "buffers forgotten": Mutation(
        "ppdgm/backends/pyro/tracer.py",
        "        return values | {n: b.detach().cpu().numpy().copy() for n, b in self._buffers.items()}",
        "        return values",
        "tests/test_foreign.py -k statistics",
    ),
    "stateful nets let through": Mutation(
        "ppdgm/backends/numpyro/foreign.py",
        "    _refuse_state(module)\n",
        "",
        "tests/test_foreign.py -k refused",
    ),
    "one stream for all parameters": Mutation(
        "ppdgm/language/first_values.py",
        "np.random.default_rng([seed, crc32(name.encode())])",
        "np.random.default_rng([seed])",
        "tests/test_nets.py -k another",
    ),
    "initial values by fan-in": Mutation(
        "ppdgm/nets/base.py",
        "limit = (6.0 / (fan_in + fan_out)) ** 0.5",
        "limit = (6.0 / fan_in) ** 0.5",
        "tests/test_nets.py -k glorot",
    ),
    "a user's class stands in for ours": Mutation(
        "ppdgm/specs/kinds.py",
        "    if kind in known and \":\" not in kind:  # ppdgm's own, even if a user's own class has the same name\n"
        "        return known[kind]\n",
        "",
        "tests/test_specs.py -k stands_in",
    ),
    "a None that is lost in text": Mutation(
        "ppdgm/specs/spec.py",
        "if not (v is None and fields[n].default is None)",
        "if v is not None",
        "tests/test_specs.py -k round or plain",
    ),
    "one key for all sites (numpyro)": Mutation(
        "ppdgm/backends/numpyro/vocabulary.py",
        "        key = jax.random.fold_in(self.key, self.draws)",
        "        key = self.key",
        "tests/test_contract.py -k analytic and hierarchical",
    ),
    "one draw for all particles (pyro)": Mutation(
        "ppdgm/backends/pyro/density.py",
        "    wide = d.expand(torch.Size(batch_shape))\n",
        "    wide = d.expand(torch.Size((*batch_shape[:-2], 1, batch_shape[-1])))\n",
        "tests/test_contract.py -k every_draw",
    ),
    "torch's generator reseeded": Mutation(
        "ppdgm/backends/pyro/runtime.py",
        '    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):\n        torch.manual_seed',
        "    if True:\n        torch.manual_seed",
        "tests/test_bind.py -k torch_as",
    ),
    "weights of a padded batch ignored": Mutation(
        "ppdgm/inference/engines/bounds.py",
        "xp.sum(xp.mean(terms, axis=0) * weights) / xp.sum(weights)",
        "xp.mean(xp.mean(terms, axis=0))",
        "tests/test_loops.py -k padding",
    ),
    "reported ELBO with beta": Mutation(
        "ppdgm/inference/engines/svi.py",
        '"elbo": seen - kl,',
        '"elbo": seen - now["beta"] * kl,',
        "tests/test_fit.py -k beta_one",
    ),
    "log mean exp without log K": Mutation(
        "ppdgm/diagnostics/log_mean.py",
        "values = total - np.log(count) + top",
        "values = total + top",
        "tests/test_oracle.py",
    ),
    "checksum not checked": Mutation(
        "ppdgm/inference/runs/checkpoint.py",
        'if _digest(blank).decode() != about["sha256"] or',
        'if False and _digest(blank).decode() != about["sha256"] or',
        "tests/test_run_folders.py -k damage",
    ),
    "a run overwritten unasked": Mutation(
        "ppdgm/inference/runs/layout.py",
        "    if not overwrite and holds_results(out):\n",
        "    if False:\n",
        "tests/test_run_folders.py -k overwritten",
    ),
    "early stopping does not wait": Mutation(
        "ppdgm/inference/training/validation.py",
        "elif step >= self.warm:",
        "else:",
        "tests/test_fit.py -k early",
    ),
    "the last parameters instead of the best": Mutation(
        "ppdgm/inference/training/validation.py",
        "if self.criterion.better(value, self.best):",
        "if True:",
        "tests/test_fit.py -k keep_best",
    ),
    "torch's draws not restored": Mutation(
        "ppdgm/backends/pyro/loop.py",
        'self._rng = rng["cpu"], rng.get("gpu")',
        "pass",
        "tests/test_resume.py -k uninterrupted",
    ),
    "optax's state not restored": Mutation(
        "ppdgm/backends/numpyro/loop.py",
        "        self.state = self.runtime.share.put(jax.tree.unflatten(shape, found))\n",
        "",
        "tests/test_resume.py -k uninterrupted",
    ),
    "weight average the wrong way round": Mutation(
        "ppdgm/backends/pyro/loop.py",
        "torch._foreach_lerp_(moving, moved, 1.0 - (self.decay or 0.0))",
        "torch._foreach_lerp_(moving, moved, self.decay or 0.0)",
        "tests/test_fit.py -k weight_averages",
    ),
    "patience forgotten": Mutation(
        "ppdgm/inference/training/validation.py",
        'page["best"], page["waited"]',
        'page["best"], 0',
        "tests/test_resume.py -k early_stopping",
    ),
    "best parameters forgotten": Mutation(
        "ppdgm/inference/training/validation.py",
        "self.best_params = best_params or None",
        "self.best_params = None",
        "tests/test_resume.py -k best_parameters",
    ),
    "data not compared": Mutation(
        "ppdgm/inference/inputs/own_rows.py",
        "digest.update(np.ascontiguousarray(some).data)",
        "pass",
        "tests/test_resume.py -k refuses",
    ),
    "folder not held": Mutation(
        "ppdgm/inference/runs/folder.py",
        "            if not held:\n",
        "            if False:\n",
        "tests/test_resume.py -k two_sessions",
    ),
    "changed recipe not noticed": Mutation(
        "ppdgm/inference/runs/folder.py",
        "        if now.get(key) != then.get(key):\n",
        "        if False:\n",
        "tests/test_run_folders.py -k recipes_that",
    ),
    "old checkpoints left": Mutation(
        "ppdgm/inference/runs/folder.py",
        '        self._remove((self.path / CHECKPOINTS).glob("*"))\n',
        "",
        "tests/test_run_folders.py -k outlive",
    ),
    "the step after the bad one skipped": Mutation(
        "ppdgm/inference/training/loop.py",
        "            return guess  #",
        "            return guess + 1  #",
        "tests/test_skipped.py -k just_the_bad",
    ),
    "overflow in the optimiser not noticed": Mutation(
        "ppdgm/backends/numpyro/loop.py",
        "if by_name]",
        "()",
        "tests/test_skipped.py -k overflows",
    ),
    "streamed rows mixed up": Mutation(
        "ppdgm/inference/inputs/feed.py",
        "np.arange(plan.count * plan.index.shape[1])",
        "np.arange(plan.count * plan.index.shape[1])[::-1]",
        "tests/test_streaming.py -k training_from_disk",
    ),
    "order of data the same each epoch": Mutation(
        "ppdgm/inference/inputs/batches.py",
        "default_rng([self.seed, epoch])",
        "default_rng([self.seed])",
        "tests/test_loops.py -k every_datum",
    ),
    "Bernoulli's slope wrong at 0": Mutation(
        "ppdgm/backends/numpyro/distributions.py",
        "(value - mean) * tangents",
        "(value - (logits > 0)) * tangents",
        "tests/test_fit.py -k zero",
    ),
    "the caller's parameters donated": Mutation(
        "ppdgm/backends/pyro/tracer.py",
        "v.detach().clone().requires_grad_",
        "v.detach().requires_grad_",
        "tests/test_loops.py -k callers",
    ),
    "Adam without bias correction": Mutation(
        "ppdgm/backends/pyro/step.py",
        "torch.sqrt(v) * rate[2]",
        "torch.sqrt(v)",
        "tests/test_step.py -k rules",
    ),
    "rates of the first step for all": Mutation(
        "ppdgm/backends/pyro/loop.py",
        "rows(j, i), rates[i])",
        "rows(j, i), rates[0])",
        "tests/test_by_hand.py -k stages_are",
    ),
    "a request to end is swallowed": Mutation(
        "ppdgm/inference/training/loop.py",
        "if self.number not in (0, signal.SIGINT):",
        "if False:",
        "tests/test_resume.py -k ctrl_c",
    ),
    "enumerated closed forms not weighed": Mutation(
        "ppdgm/language/enumeration.py",
        "xp.sum(probs[..., None] * form,",
        "xp.sum(form,",
        "tests/test_enumeration.py -k closed_forms",
    ),
    "what is summed out counts at every site": Mutation(
        "ppdgm/language/enumeration.py",
        "total if n == home else xp.zeros_like(total)",
        "total",
        "tests/test_enumeration.py -k by_hand",
    ),
    "an impossible class counts": Mutation(
        "ppdgm/language/enumeration.py",
        '    total = xp.where(possible, total, -float("inf"))\n',
        "",
        "tests/test_enumeration.py -k known_label",
    ),
    "a relaxed prior of enumerated values": Mutation(
        "ppdgm/models/posteriors/base.py",
        "or prior if self.infer else prior",
        "or prior if False else prior",
        "tests/test_enumeration_readings.py -k zoos_latents",
    ),
    "evaluations score the relaxation": Mutation(
        "ppdgm/language/interpreter.py",
        "if name in self.axes or how is None or not how.relaxed or how.enumerate:",
        "if name in self.axes or (how is not None and (not how.relaxed or how.enumerate)):",
        "tests/test_discrete.py -k temperature",
    ),
    "a relaxation's volume": Mutation(
        "ppdgm/models/relaxed.py",
        "volume = lgamma(classes) + (classes - 1)",
        "volume = lgamma(classes) + classes",
        "tests/test_discrete.py -k integrate",
    ),
    "straight through keeps no gradient": Mutation(
        "ppdgm/models/posteriors/gumbel.py",
        "hardened(P, P.one_hot(P.xp.argmax(z, axis=-1), self.classes), chosen)",
        "P.one_hot(P.xp.argmax(z, axis=-1), self.classes) + 0.0 * chosen",
        "tests/test_discrete.py -k straight",
    ),
    "the log-determinant's sign": Mutation(
        "ppdgm/models/flows/autoregressive.py",
        "total = total + P.xp.sum(log_slope, axis=-1)",
        "total = total - P.xp.sum(log_slope, axis=-1)",
        "tests/test_flows.py -k jacobian",
    ),
    "coordinates solved in the wrong order": Mutation(
        "ppdgm/models/flows/autoregressive.py",
        "[:: -1 if i % 2 else 1]",
        "[::1]",
        "tests/test_flows.py -k there_and_back",
    ),
    "the gradient of an inverse has the other sign": Mutation(
        "ppdgm/models/flows/sigmoids.py",
        "step = (y - there) *",
        "step = (there - y) *",
        "tests/test_neural_flows.py -k gradient_of_an_inverse and pyro and not numpyro",
    ),
    "a reversible block undoes one half": Mutation(
        "ppdgm/nets/reversible.py",
        'second = second - half(P, "g", first)',
        "second = 1.0 * second",
        "tests/test_reversible.py -k plain_backpropagation and pyro and not numpyro",
    ),
    "a log-location-scale KL to a gamma": Mutation(
        "ppdgm/models/posteriors/positive.py",
        "- P.lgamma(a) +",
        "+ P.lgamma(a) +",
        "tests/test_contract.py -k analytic and weibull and pyro and not numpyro",
    ),
    "an aggregated posterior of other rows": Mutation(
        "ppdgm/models/priors/aggregated.py",
        "return np.asarray(x)",
        "return 0.9 * np.asarray(x)",
        "tests/test_aggregated_prior.py -k reconstruction and pyro and not numpyro",
    ),
    "a full covariance's normaliser": Mutation(
        "ppdgm/models/posteriors/full.py",
        "+ 0.5 * d * log(2 * pi)",
        "+ d * log(2 * pi)",
        "tests/test_registry.py -k keeps and FullCovarianceNormal",
    ),
    "a vamp prior draws one component": Mutation(
        "ppdgm/models/priors/vamp.py",
        "posterior(inputs[m])",
        "posterior(inputs[0 * m])",
        "tests/test_mixtures.py -k mixtures_draw",
    ),
    "a gate of scales, not variances": Mutation(
        "ppdgm/models/hierarchical/guides.py",
        "gate = scale**2 / (scale**2 + own_scale**2)",
        "gate = scale / (scale + own_scale)",
        "tests/test_hierarchy.py -k product_of_two",
    ),
    "every level climbs from the first": Mutation(
        "ppdgm/models/hierarchical/guides.py",
        'P.net(f"z{level}.features")(h[-1])',
        'P.net(f"z{level}.features")(h[0])',
        "tests/test_contract.py -k hvae and three and top and log_weights",
    ),
    "a gradient laid out otherwise than its parameter": Mutation(
        "ppdgm/backends/pyro/step.py",
        "return gradient if gradient.stride() == param.stride() else torch.empty_like(param).copy_(gradient)",
        "return gradient",
        "tests/test_engines.py -k same_steps_without",
    ),
    "DReG with weights that are not squared": Mutation(
        "ppdgm/inference/engines/importance.py",
        "        factor = a + (1.0 - a) * w\n",
        "        factor = a + (1.0 - a) + 0.0 * w\n",
        "tests/test_estimators.py -k means",
    ),
    "VIMCO's baseline knows its particle": Mutation(
        "ppdgm/inference/engines/estimators.py",
        "others = (xp.sum(terms, axis=0) - terms) / (k - 1)",
        "others = 0.5 * terms + 0.5 * xp.mean(terms, axis=0)",
        "tests/test_estimators.py -k means",
    ),
    "the score function's term in the objective's value": Mutation(
        "ppdgm/inference/engines/estimators.py",
        "return stop(signal) * (log_q - stop(log_q))",
        "return stop(signal) * log_q",
        "tests/test_engines.py -k objective_is_the_bound",
    ),
    "free bits below the floor": Mutation(
        "ppdgm/inference/engines/bounds.py",
        "xp.where(kl > floor, kl, 0.0 * kl + floor)",
        "xp.where(kl > floor, kl, kl + floor)",
        "tests/test_pieces.py -k worth",
    ),
    "frozen parameters move": Mutation(
        "ppdgm/inference/engines/engine.py",
        "return any(fnmatchcase(name, pattern) for pattern in self.freeze)",
        "return False",
        "tests/test_engines.py -k frozen",
    ),
    "pieces all count alike": Mutation(
        "ppdgm/backends/numpyro/loop.py",
        "shares = weight.sum(1) / weight.sum()",
        "shares = jnp.full(self.pieces, 1.0 / self.pieces)",
        "tests/test_pieces.py -k whole and numpyro and elbo",
    ),
    "players swapped": Mutation(
        "ppdgm/backends/numpyro/loop.py",
        "jnp.full(v.shape, i == k, v.dtype)",
        "jnp.full(v.shape, i != k, v.dtype)",
        "tests/test_estimators.py -k means",
    ),
    "the guide's turn and the model's swapped": Mutation(
        "ppdgm/inference/engines/em.py",
        "(steps % (self.e_steps + self.m_steps) >= self.e_steps)",
        "(steps % (self.e_steps + self.m_steps) < self.e_steps)",
        "tests/test_engines.py -k one_side",
    ),
    "lagging inference forgets what it saw": Mutation(
        "ppdgm/inference/training/loop.py",
        '            self.controller.restore(page["director"])\n',
        "",
        "tests/test_engines.py -k resumes and lagging",
    ),
    "a stopped guide with its gradient": Mutation(
        "ppdgm/language/interpreter.py",
        "params = {n: self.stop(v) for n, v in self.params.items()} if stopped else self.params",
        "params = self.params",
        "tests/test_estimators.py -k means",
    ),
    "Rényi with the wrong sign": Mutation(
        "ppdgm/inference/engines/bounds.py",
        "    return (logsumexp((1.0 - alpha) * log_w, 0) - log(log_w.shape[0])) / (1.0 - alpha)",
        "    return (logsumexp((1.0 + alpha) * log_w, 0) - log(log_w.shape[0])) / (1.0 + alpha)",
        "tests/test_engines.py -k renyi",
    ),
    "chains that take every proposal's energy for less": Mutation(
        "ppdgm/language/step.py",
        "return xp.exp(GAIN * (accepted - ACCEPT))",
        "return xp.exp(GAIN * (ACCEPT - accepted))",
        "tests/test_engines.py -k posterior_is_that",
    ),
    "chains at the prior": Mutation(
        "ppdgm/language/step.py",
        "return sum(v.sum() for v in self.tracer.model(params, self.batch, self.index, z).values())",
        "return sum(v.sum() for n, v in self.tracer.model(params, self.batch, self.index, z).items() if n in z)",
        "tests/test_engines.py -k posterior_is_that",
    ),
    "mixed precision in evaluations": Mutation(
        "ppdgm/language/tracer.py",
        "words = self.mixed_words if gradients is not None and gradients.mixed else self.words",
        "words = self.mixed_words if gradients is None or gradients.mixed else self.words",
        "tests/test_mixed_precision.py -k evaluated",
    ),
    "annealing that forgets a temperature": Mutation(
        "ppdgm/inference/evaluation/annealing.py",
        "change = (beta[t - 1] - beta[t]) if reverse else (beta[t] - beta[t - 1])",
        "change = (beta[t - 1] - beta[t]) if reverse else (beta[t] - beta[max(t - 2, 0)])",
        "tests/test_diagnosis.py -k bracket",
    ),
    "reverse chains weighed before their move": Mutation(
        "ppdgm/inference/evaluation/annealing.py",
        "        if not reverse:\n            weights += change * seen\n",
        "        weights += change * seen\n",
        "tests/test_diagnosis.py -k bracket",
    ),
    "refitted posteriors without their entropy's slope": Mutation(
        "ppdgm/inference/evaluation/refit.py",
        "slope = joint(mean + unit * now_at.at(noise))[2] * unit + now_at.falling(noise)",
        "slope = joint(mean + unit * now_at.at(noise))[2] * unit",
        "tests/test_gaps.py -k correlated",
    ),
    "a sampler's weights by its own density alone": Mutation(
        "ppdgm/inference/evaluation/evidence.py",
        "each += [] if dreamt is None else [prior]",
        "each += [] if dreamt is None else [each[0]]",
        "tests/test_gaps.py -k quadrature",
    ),
    "the aggregated posterior of other data": Mutation(
        "ppdgm/inference/evaluation/terms.py",
        "index = np.arange(where.start, where.start + chunk) % evaluator.size",
        "index = np.arange(where.start + 1, where.start + chunk + 1) % (evaluator.size // 2)",
        "tests/test_diagnosis.py -k surgery",
    ),
    "resampled without weights": Mutation(
        "ppdgm/inference/evaluation/posterior.py",
        "taken = resample(p - q, draws, evaluator.seed, i * len(index))  # [S, B]",
        "taken = resample(0.0 * p, draws, evaluator.seed, i * len(index))  # [S, B]",
        "tests/test_diagnosis.py -k resampled",
    ),
    "predictions of other draws": Mutation(
        "ppdgm/inference/evaluation/export.py",
        "few = {n: v[np.rint(taken).astype(int)] for n, v in posterior.latents.items()}",
        "few = {n: v[::-1][np.rint(taken).astype(int)] for n, v in posterior.latents.items()}",
        "tests/test_export.py -k predictions",
    ),
    "leave-one-out without log q": Mutation(
        "ppdgm/inference/evaluation/export.py",
        "correction = np.asarray(sum(trace.shared.values()), np.float64)",
        "correction = 0.0 * np.asarray(sum(trace.shared.values()), np.float64)",
        "tests/test_export.py -k leave_one_out_where",
    ),
    "looks are lost when a run is resumed": Mutation(
        "ppdgm/inference/training/loop.py",
        '            self.monitor.restore(page["live"])\n',
        "            pass\n",
        "tests/test_live.py -k resumed",
    ),
    "slopes at another temperature": Mutation(
        "ppdgm/language/runtime.py",
        "(prior + xp.astype(temperature, prior.dtype) * seen).sum()",
        "(prior + seen).sum()",
        "tests/test_diagnosis.py -k slopes",
    ),
}
MUTATIONS |= {name: Mutation(*fields) for name, fields in ENGINES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="some of them; all by default")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--quick", action="store_true", help="which of them the tests of `make quick` kill")
    options = parser.parse_args()
    chosen = {n: m for n, m in MUTATIONS.items() if not options.names or n in options.names}
    if unknown := set(options.names) - set(MUTATIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{n}: {m.file}: {m.before.strip()} -> {m.after.strip()}" for n, m in chosen.items()))
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        if options.quick:
            return write_quick(copy, chosen)
        tests = sorted({m.tests for m in chosen.values()})
        print(f"unmutated, {len(tests)} selections …", flush=True)
        if failed := [t for t in tests if not passes(copy, t)]:
            sys.exit(f"These fail without any mutation: {failed}")
        survived = [name for name, mutation in chosen.items() if not killed(copy, name, mutation)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations were killed.")
    sys.exit(1 if survived else 0)


def write_quick(copy: Path, chosen: dict[str, Mutation]) -> None:
    """Write which mutations are killed by those of their tests that are quick."""
    entries = QUICK.read_text(encoding="utf-8").split()
    dead, alive = [], []
    for name, mutation in chosen.items():
        path, _, chosen_by = mutation.tests.partition(" ")
        file = path.partition("::")[0]
        quick = [path] if file in entries else [e for e in entries if e.startswith(path)]
        tests = " ".join([*quick, chosen_by]) if quick else ""
        (dead if tests and killed(copy, name, replace(mutation, tests=tests), empty=True) else alive).append(name)
    lines = [
        "# What `make quick` finds",
        "",
        f"Of {len(chosen)} mutations in `benchmarks/mutations.py`, the quick tests kill at least {len(dead)}: these "
        "have a quick test among the tests that must kill them, and it fails. `python benchmarks/mutations.py --quick` "
        "writes this page.",
        "",
        "## Killed",
        "",
        *(f"- {name}" for name in dead),
        "",
        "## Left to the whole suite",
        "",
        *(f"- {name}" for name in alive),
    ]
    (ROOT / "benchmarks" / "results" / "quick.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(dead)} of {len(chosen)} mutations were killed by quick tests.")


def killed(copy: Path, name: str, mutation: Mutation, empty: bool = False) -> bool:
    """Whether the mutation's tests fail with it."""
    path = copy / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        sys.exit(f"{name}: its line stands {text.count(mutation.before)} times in {mutation.file}, expected once.")
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    started = time.perf_counter()
    try:
        dead = not passes(copy, mutation.tests, empty)
    finally:
        path.write_text(text, encoding="utf-8")
    print(f"{'killed  ' if dead else 'SURVIVED'}  {name}  ({time.perf_counter() - started:.0f} s)", flush=True)
    return dead


def passes(copy: Path, tests: str, empty: bool = False) -> bool:
    """Whether the selected tests pass in the copy; an empty selection is an error, unless `empty` is allowed."""
    files, _, words = tests.partition(" -k ")
    command = [sys.executable, "-m", "pytest", "--all", "-q", "-x", "-p", "no:cacheprovider", *files.split()]
    command += ["-k", words] if words else []
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True)
    if done.returncode not in ((0, 1, 5) if empty else (0, 1)):
        sys.exit(f"pytest could not run {tests!r}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 1


def environment(copy: Path) -> dict[str, str]:
    """This process's environment, with the copy of the package in front of the installed one."""
    import os

    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    main()
