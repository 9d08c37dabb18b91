"""Published Pyro programs with latents of each row: autoencoders, topic models, mixtures, sequences."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import nn
from torch.nn.functional import softplus

from benchmarks.published.listing import Made, binary, choices, counts, normal, published

N, Z = 40, 2


class Encoder(nn.Module):
    """A location and a scale for each row."""

    def __init__(self, inputs: int, outputs: int = Z, hidden: int = 8):
        super().__init__()
        self.inputs, self.body = inputs, nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus())
        self.loc, self.scale = nn.Linear(hidden, outputs), nn.Linear(hidden, outputs)

    def forward(self, *x):
        h = self.body(torch.cat(x, -1).reshape(-1, self.inputs))
        return self.loc(h), torch.exp(self.scale(h))


def decoder(inputs: int, outputs: int) -> nn.Module:
    """Probabilities."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.Softplus(), nn.Linear(8, outputs), nn.Sigmoid())


@published("pyro", "examples/vae/vae.py", "data")
def vae() -> Made:
    encoder, decode = Encoder(36), decoder(Z, 36)

    def model(x):
        pyro.module("decoder", decode)
        with pyro.plate("data", x.shape[0]):
            loc = torch.zeros(x.shape[0], Z, dtype=x.dtype, device=x.device)
            scale = torch.ones(x.shape[0], Z, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            image = decode(z)
            pyro.sample("obs", dist.Bernoulli(image, validate_args=False).to_event(1), obs=x.reshape(-1, 36))
            return image

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(*encoder(x)).to_event(1))

    return model, guide, {"x": binary(N, 1, 6, 6)}


@published("pyro", "examples/vae/vae_comparison.py", "data")
def vae_comparison() -> Made:
    encoder, decode = Encoder(36), decoder(Z, 36)

    def model(data):
        net = pyro.module("decoder", decode)
        mean, std = torch.zeros([data.size(0), Z]), torch.ones([data.size(0), Z])
        with pyro.plate("data", data.size(0)):
            z = pyro.sample("latent", dist.Normal(mean, std).to_event(1))
            pyro.sample("obs", dist.Bernoulli(net(z), validate_args=False).to_event(1), obs=data.reshape(-1, 36))

    def guide(data):
        net = pyro.module("encoder", encoder)
        with pyro.plate("data", data.size(0)):
            mean, variance = net(data)
            pyro.sample("latent", dist.Normal(mean, variance.sqrt()).to_event(1))

    return model, guide, {"data": binary(N, 1, 6, 6)}


@published("pyro", "tutorial/source/vae_flow_prior.ipynb", "batch", "Pyro's own autoregressive flow for Zuko's")
def vae_with_a_flow_prior() -> Made:
    encoder, decode = Encoder(36), decoder(Z, 36)
    flow = dist.transforms.affine_autoregressive(Z, hidden_dims=[8])

    def model(x):
        pyro.module("prior", flow)
        pyro.module("decoder", decode)
        with pyro.plate("batch", len(x)):
            base = dist.Normal(torch.zeros(Z), torch.ones(Z)).to_event(1)
            z = pyro.sample("z", dist.TransformedDistribution(base, [flow]))
            pyro.sample("x", dist.Bernoulli(decode(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(*encoder(x)).to_event(1))

    return model, guide, {"x": binary(N, 36)}


def _semi_supervised() -> tuple:
    classes = 4
    encoder_y = nn.Sequential(nn.Linear(36, 8), nn.Softplus(), nn.Linear(8, classes), nn.Softmax(-1))
    encoder_z, decode, holder = Encoder(36 + classes), decoder(Z + classes, 36), nn.Module()
    holder.encoder_y, holder.encoder_z, holder.decoder = encoder_y, encoder_z, decode

    def joined(a, b):  # as the example's nets do, allow_broadcast=True
        lead = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        return torch.cat([a.expand(*lead, a.shape[-1]), b.expand(*lead, b.shape[-1])], -1)

    def model(xs, ys=None):
        pyro.module("ss_vae", holder)
        size = xs.size(0)
        with pyro.plate("data"):
            zs = pyro.sample("z", dist.Normal(xs.new_zeros([size, Z]), xs.new_ones([size, Z])).to_event(1))
            prior = xs.new_ones([size, classes]) / (1.0 * classes)
            ys = pyro.sample("y", dist.OneHotCategorical(prior), obs=ys)
            pyro.sample("x", dist.Bernoulli(decode(joined(zs, ys))).to_event(1), obs=xs)

    def guide(xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(encoder_y(xs)))
            both = joined(xs, ys)
            loc, scale = encoder_z(both)
            shape = (*both.shape[:-1], Z)
            pyro.sample("z", dist.Normal(loc.reshape(shape), scale.reshape(shape)).to_event(1))

    return model, guide


@published("pyro", "examples/vae/ss_vae_M2.py", "data")
def ss_vae_with_labels() -> Made:
    import numpy as np

    return *_semi_supervised(), {"xs": binary(N, 36), "ys": np.eye(4, dtype="float32")[choices(4, N)]}


@published("pyro", "examples/vae/ss_vae_M2.py", "data")
def ss_vae_without_labels() -> Made:
    model, guide = _semi_supervised()
    return (lambda xs: model(xs)), (lambda xs: guide(xs)), {"xs": binary(N, 36)}


@published("pyro", "examples/vae/ss_vae_M2.py", "data")
def ss_vae_enumerated() -> Made:
    model, guide = _semi_supervised()
    return (lambda xs: model(xs)), config_enumerate(lambda xs: guide(xs), "parallel", True), {"xs": binary(N, 36)}


@published("pyro", "examples/cvae/cvae.py", "data")
def cvae() -> Made:
    baseline, prior, recognition, generate = decoder(36, 36), Encoder(72), Encoder(72), decoder(Z, 36)
    for p in baseline.parameters():
        p.requires_grad = False

    def model(xs, ys=None):
        pyro.module("generation_net", generate)
        pyro.module("prior_net", prior)
        size = xs.shape[0]
        with pyro.plate("data"):
            with torch.no_grad():
                guess = baseline(xs.view(size, -1)).view(xs.shape)
            zs = pyro.sample("z", dist.Normal(*prior(xs.view(size, -1), guess.view(size, -1))).to_event(1))
            loc = generate(zs)
            masked = loc[(xs == -1).view(-1, 36)].view(size, -1)
            left = ys[xs == -1].view(size, -1)
            pyro.sample("y", dist.Bernoulli(masked, validate_args=False).to_event(1), obs=left)

    def guide(xs, ys=None):
        pyro.module("recognition_net", recognition)
        with pyro.plate("data"):
            size = xs.shape[0]
            pyro.sample("z", dist.Normal(*recognition(xs.view(size, -1), ys.view(size, -1))).to_event(1))

    whole = binary(N, 6, 6)
    part = whole.copy()
    part[:, :3] = -1.0  # the part that is to be filled in
    return model, guide, {"xs": part, "ys": whole}


def _air(subsample: int | None) -> tuple:
    encode, what_of, decode = nn.Linear(36 + 3, 1 + 2 * 3), nn.Linear(36 + 3, 2 * Z), decoder(Z, 36)

    def step(t, data, where, present):
        present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(0.5 * present).to_event(1))
        pose = dist.Normal(torch.zeros(len(data), 3), 1.0).mask(present).to_event(1)
        pyro.sample(f"z_where_{t}", pose)
        what = pyro.sample(f"z_what_{t}", dist.Normal(torch.zeros(len(data), Z), 1.0).mask(present).to_event(1))
        return present * decode(what), present

    def model(data):
        pyro.module("decode", decode)
        with pyro.plate("data", data.size(0)) as indices:
            batch, x = data[indices], 0.0
            present = torch.ones(len(batch), 1)
            for t in range(2):
                y, present = step(t, batch, None, present)
                x = x + y
            pyro.sample("obs", dist.Normal(x, 0.3 * torch.ones(36)).to_event(1), obs=batch)

    def guide(data):
        pyro.module("encode", encode)
        pyro.module("what", what_of)
        with pyro.plate("data", data.size(0), subsample_size=subsample) as indices:
            batch = data[indices]
            present, where = torch.ones(len(batch), 1), torch.zeros(len(batch), 3)
            for t in range(2):
                h = encode(torch.cat([batch, where], -1))
                present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(torch.sigmoid(h[:, :1]) * present).to_event(1))
                pose = dist.Normal(h[:, 1:4], softplus(h[:, 4:])).mask(present).to_event(1)
                where = pyro.sample(f"z_where_{t}", pose)
                loc, scale = what_of(torch.cat([batch, where], -1)).chunk(2, -1)
                pyro.sample(f"z_what_{t}", dist.Normal(loc, softplus(scale)).mask(present).to_event(1))

    return model, guide


@published("pyro", "examples/air/air.py", "data", "objects are added, and not put in their place by a grid")
def air() -> Made:
    return *_air(8), {"data": normal(N, 36)}


def _deep_exponential_family() -> tuple:
    widths = {"top": 4, "mid": 3, "bottom": 2, "image": 6}

    def matmul(z, w, left, right):
        return torch.matmul(z, w.reshape(widths[left], widths[right]) if w.dim() == 1 else
                            w.reshape(-1, widths[left], widths[right]))  # fmt: skip

    def model(x):
        w, layers = {}, (("top", "mid"), ("mid", "bottom"), ("bottom", "image"))
        for left, right in layers:
            with pyro.plate(f"w_{left}_plate", widths[left] * widths[right]):
                w[left] = pyro.sample(f"w_{left}", dist.Gamma(0.1, 0.3))
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z_top", dist.Gamma(torch.tensor(0.1), 0.1).expand([widths["top"]]).to_event(1))
            z = pyro.sample("z_mid", dist.Gamma(0.1, 0.1 / matmul(z, w["top"], *layers[0])).to_event(1))
            z = pyro.sample("z_bottom", dist.Gamma(0.1, 0.1 / matmul(z, w["mid"], *layers[1])).to_event(1))
            pyro.sample("obs", dist.Poisson(matmul(z, w["bottom"], *layers[2])).to_event(1), obs=x)

    def gamma(name, shape):
        alpha = softplus(pyro.param(f"alpha_{name}", lambda: 0.5 + 0.1 * torch.randn(shape)))
        mean = softplus(pyro.param(f"mean_{name}", lambda: 0.1 * torch.randn(shape)))
        return dist.Gamma(alpha, alpha / mean)

    def guide(x):
        for left, right in (("top", "mid"), ("mid", "bottom"), ("bottom", "image")):
            size = widths[left] * widths[right]
            with pyro.plate(f"w_{left}_plate", size):
                pyro.sample(f"w_{left}", gamma(f"w_q_{left}", (size,)))
        with pyro.plate("data", x.size(0)):
            for name in ("top", "mid", "bottom"):
                pyro.sample(f"z_{name}", gamma(f"z_q_{name}", (x.size(0), widths[name])).to_event(1))

    return model, guide


@published("pyro", "examples/sparse_gamma_def.py", "data")
def deep_exponential_family() -> Made:
    return *_deep_exponential_family(), {"x": counts(N, 6)}


@published("pyro", "examples/sparse_gamma_def.py", "data")
def deep_exponential_family_easy_guide() -> Made:
    model, _ = _deep_exponential_family()

    class Guide(EasyGuide):
        def guide(self, x):
            group = self.group(match="w_.*")
            mean = pyro.param("w_mean", lambda: 0.5 + 0.1 * torch.randn(group.event_shape))
            scale = softplus(pyro.param("w_scale", lambda: 0.1 * torch.randn(group.event_shape)))
            group.sample("ws", dist.Normal(mean, scale).to_event(1))
            group = self.group(match="z_.*")
            shape = x.shape[:1] + group.event_shape
            with self.plate("data", x.size(0)):
                mean = pyro.param("z_mean", lambda: 0.5 + 0.1 * torch.randn(shape))
                scale = softplus(pyro.param("z_scale", lambda: 0.1 * torch.randn(shape)))
                group.sample("zs", dist.Normal(mean, scale).to_event(1))

    return model, Guide(model), {"x": counts(N, 6)}


@published("pyro", "examples/sparse_gamma_def.py", "data")
def deep_exponential_family_auto_guide() -> Made:
    model, _ = _deep_exponential_family()
    return model, AutoDiagonalNormal(model), {"x": counts(N, 6)}


@published("pyro", "examples/lda.py", "documents", "documents are rows: data[ind].T for data[:, ind]")
def lda() -> Made:
    topics, words, length = 3, 10, 5
    predictor = nn.Sequential(nn.Linear(words, 8), nn.Sigmoid(), nn.Linear(8, topics), nn.Softmax(-1))

    def model(data):
        with pyro.plate("topics", topics):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0 / topics, 1.0))
            topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(words) / words))
        with pyro.plate("documents", N) as ind:
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", length):
                topic = pyro.sample("word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(topic_words[topic]), obs=data[ind].T)

    def guide(data):
        weights = pyro.param("weights_q", lambda: torch.ones(topics), constraint=constraints.positive)
        topic_words = pyro.param("words_q", lambda: torch.ones(topics, words), constraint=constraints.greater_than(0.5))
        with pyro.plate("topics", topics):
            pyro.sample("topic_weights", dist.Gamma(weights, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(topic_words))
        pyro.module("predictor", predictor)
        with pyro.plate("documents", N, 8) as ind:
            seen = data[ind]
            bag = torch.zeros(len(seen), words).scatter_add(1, seen, torch.ones(seen.shape))
            pyro.sample("doc_topics", dist.Delta(predictor(bag), event_dim=1))

    return model, guide, {"data": choices(words, N, length)}


@published("pyro", "tutorial/source/prodlda.ipynb", "documents")
def prodlda() -> Made:
    words, topics = 10, 3

    class Encode(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.body = nn.Dropout(0.2), nn.Linear(words, 8)
            self.mean, self.log_var = nn.Linear(8, topics), nn.Linear(8, topics)
            self.norm, self.norm_var = nn.BatchNorm1d(topics, affine=False), nn.BatchNorm1d(topics, affine=False)

        def forward(self, x):
            h = self.drop(softplus(self.body(x)))
            return self.norm(self.mean(h)), (0.5 * self.norm_var(self.log_var(h))).exp()

    class Decode(nn.Module):
        def __init__(self):
            super().__init__()
            self.beta, self.norm = nn.Linear(topics, words, bias=False), nn.BatchNorm1d(words, affine=False)
            self.drop = nn.Dropout(0.2)

        def forward(self, x):
            return torch.softmax(self.norm(self.beta(self.drop(x))), dim=1)

    encode, decode = Encode(), Decode()

    def model(docs):
        pyro.module("decoder", decode)
        with pyro.plate("documents", docs.shape[0]):
            loc, scale = docs.new_zeros((docs.shape[0], topics)), docs.new_ones((docs.shape[0], topics))
            theta = torch.softmax(pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1)), -1)
            total = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total, decode(theta)), obs=docs)

    def guide(docs):
        pyro.module("encoder", encode)
        with pyro.plate("documents", docs.shape[0]):
            pyro.sample("logtheta", dist.Normal(*encode(docs)).to_event(1))

    return model, guide, {"docs": counts(N, words) + 1.0}


def _scanvi(scale: float) -> tuple:
    genes, classes = 8, 3
    holder = nn.Module()
    holder.z2, holder.x = Encoder(Z + classes), nn.Linear(Z, 2 * genes)
    holder.z2l, holder.z1, holder.classify = nn.Linear(genes, 2 * Z + 2), Encoder(Z + classes), nn.Linear(Z, classes)

    def model(x, y=None):
        pyro.module("scanvi", holder)
        theta = pyro.param("inverse_dispersion", 10.0 * x.new_ones(genes), constraint=constraints.positive)
        with pyro.plate("batch", len(x)), poutine.scale(scale=scale):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(Z)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(classes)), obs=y)
            z2 = pyro.sample("z2", dist.Normal(*holder.z2(z1, y)).to_event(1))
            size = pyro.sample("l", dist.LogNormal(2.0, 0.5 * x.new_ones(1)).to_event(1))
            gate, mu = holder.x(z2).chunk(2, -1)
            logits = (size * torch.softmax(mu, -1) + 5e-3).log() - (theta + 5e-3).log()
            likelihood = dist.ZeroInflatedNegativeBinomial(gate_logits=gate, total_count=theta, logits=logits)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("scanvi", holder)
        with pyro.plate("batch", len(x)), poutine.scale(scale=scale):
            h1, h2 = holder.z2l(torch.log1p(x)).chunk(2, -1)
            pyro.sample("l", dist.LogNormal(h1[..., -1:], softplus(h2[..., -1:])).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(h1[..., :-1], softplus(h2[..., :-1])).to_event(1))
            labels = dist.OneHotCategorical(logits=holder.classify(z2))
            if y is None:
                y = pyro.sample("y", labels)
            else:
                pyro.factor("classification_loss", 0.01 * labels.log_prob(y), has_rsample=False)
            pyro.sample("z1", dist.Normal(*holder.z1(z2, y)).to_event(1))

    return model, guide


@published("pyro", "examples/scanvi/scanvi.py", "batch")
def scanvi() -> Made:
    import numpy as np

    return *_scanvi(1.0), {"x": counts(N, 8), "y": np.eye(3, dtype="float32")[choices(3, N)]}


@published("pyro", "tutorial/source/scanvi.ipynb", "batch")
def scanvi_with_a_scale() -> Made:
    import numpy as np

    return *_scanvi(0.05), {"x": counts(N, 8), "y": np.eye(3, dtype="float32")[choices(3, N)]}


def _deep_markov(annealing: float) -> tuple:
    width, steps = 4, 3
    trans, emit, combine, holder = Encoder(Z), decoder(Z, width), Encoder(Z + 5), nn.Module()
    rnn = nn.RNN(width, 5, batch_first=True)
    holder.trans, holder.emit, holder.combine, holder.rnn = trans, emit, combine, rnn
    holder.start = nn.Parameter(torch.zeros(Z))

    def model(mini_batch, mini_batch_reversed, mini_batch_mask):
        pyro.module("dmm", holder)
        z = holder.start.expand(mini_batch.size(0), Z)
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, steps + 1)):
                with poutine.scale(scale=annealing):
                    latent = dist.Normal(*trans(z)).mask(mini_batch_mask[:, t - 1 : t]).to_event(1)
                    z_now = pyro.sample(f"z_{t}", latent)
                seen = dist.Bernoulli(emit(z_now)).mask(mini_batch_mask[:, t - 1 : t]).to_event(1)
                pyro.sample(f"obs_x_{t}", seen, obs=mini_batch[:, t - 1, :])
                z = z_now

    def guide(mini_batch, mini_batch_reversed, mini_batch_mask):
        pyro.module("dmm", holder)
        h, _ = rnn(mini_batch_reversed)
        h, z = h.flip(1), holder.start.expand(mini_batch.size(0), Z)
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, steps + 1)):
                with poutine.scale(scale=annealing):
                    latent = dist.Normal(*combine(z, h[:, t - 1, :])).mask(mini_batch_mask[:, t - 1 : t]).to_event(1)
                    z = pyro.sample(f"z_{t}", latent)

    return model, guide


def _songs() -> dict:
    import numpy as np

    x, lengths = binary(N, 3, 4), 1 + choices(3, N)
    mask = (np.arange(3) < lengths[:, None]).astype("float32")
    return {"mini_batch": x, "mini_batch_reversed": x[:, ::-1].copy(), "mini_batch_mask": mask}


@published("pyro", "examples/dmm.py", "z_minibatch", "the example's helper for packed sequences is left out")
def deep_markov_model() -> Made:
    return *_deep_markov(1.0), _songs()


@published("pyro", "tutorial/source/dmm.ipynb", "z_minibatch", "as above; the annealing factor is held at 0.2")
def deep_markov_model_annealed() -> Made:
    return *_deep_markov(0.2), _songs()


@published("pyro", "examples/contrib/cevae/synthetic.py", "data")
def cevae() -> Made:
    from pyro.contrib.cevae import Guide, Model

    config = {"feature_dim": 4, "latent_dim": 2, "hidden_dim": 6, "num_layers": 2, "num_samples": 10}
    config |= {"outcome_dist": "bernoulli"}
    model, guide = Model(config), Guide(config)
    return model, guide, {"x": normal(N, 4), "t": binary(N), "y": binary(N, 1)[:, 0]}


@published(
    "pyro",
    "examples/contrib/cevae/synthetic.py",
    "data",
    "model and guide are attributes of one PyroModule, so that their nets have different names",
)
def cevae_named() -> Made:
    from pyro.nn import PyroModule

    model, guide, data = cevae()
    both = PyroModule("cevae")
    both.model, both.guide = model, guide
    return model, guide, data
