"""Plain Pyro pairs, written as people publish them; nothing here knows ppdgm."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.nn import functional

X, Z = 6, 2  # widths of data and latents


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(X, 8), nn.Linear(8, Z), nn.Linear(8, Z)

    def forward(self, x):
        h = torch.tanh(self.fc1(x))
        return self.fc21(h), torch.exp(self.fc22(h))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(Z, 8), nn.Linear(8, X)

    def forward(self, z):
        return self.fc2(torch.tanh(self.fc1(z)))


def positive_scale():
    return pyro.param("scale", torch.tensor(0.8), constraint=dist.constraints.positive)


class Functions:
    """Functions with `pyro.module` and `pyro.param`."""

    def __init__(self, n=None, b=None):
        encoder, decoder = self.nets = Encoder(), Decoder()

        def plate(x):
            return pyro.plate("data", x.shape[0] if n is None else n, subsample_size=b)

        def model(x):
            pyro.module("decoder", decoder)
            scale = positive_scale()
            with plate(x) as i:
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x[i])

        def guide(x):
            pyro.module("encoder", encoder)
            with plate(x) as i:
                pyro.sample("z", dist.Normal(*encoder(x[i])).to_event(1))

        self.pair = model, guide


class Modules:
    """`PyroModule`s."""

    def __init__(self, n=None, b=None):
        def plate(x):
            return pyro.plate("data", x.shape[0] if n is None else n, subsample_size=b)

        class Model(PyroModule):
            def __init__(self):
                super().__init__()
                self.decoder = Decoder()
                self.scale = PyroParam(torch.tensor(0.8), constraint=dist.constraints.positive)

            def forward(self, x):
                with plate(x) as i:
                    z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(self.decoder(z), self.scale).to_event(1), obs=x[i])

        class Guide(PyroModule):
            def __init__(self):
                super().__init__()
                self.encoder = Encoder()

            def forward(self, x):
                with plate(x) as i:
                    pyro.sample("z", dist.Normal(*self.encoder(x[i])).to_event(1))

        self.pair = Model(), Guide()
        self.nets = self.pair[1].encoder, self.pair[0].decoder


class VAE(nn.Module):
    """The methods of a module, as in Pyro's own VAE example."""

    def __init__(self, n=None, b=None):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.nets, self.pair, self.n, self.b = (self.encoder, self.decoder), (self.model, self.guide), n, b

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0] if self.n is None else self.n, subsample_size=self.b) as i:
            x = x[i]
            z_loc = torch.zeros(x.shape[0], Z, dtype=x.dtype, device=x.device)
            z_scale = torch.ones(x.shape[0], Z, dtype=x.dtype, device=x.device)
            z = pyro.sample("z", dist.Normal(z_loc, z_scale).to_event(1))
            loc = self.decoder.forward(z)
            pyro.sample("x", dist.Normal(loc, positive_scale(), validate_args=False).to_event(1), obs=x.reshape(-1, X))
            return loc

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0] if self.n is None else self.n, subsample_size=self.b) as i:
            z_loc, z_scale = self.encoder.forward(x[i])
            pyro.sample("z", dist.Normal(z_loc, z_scale).to_event(1))


class Scaled:
    """Called with minibatches; the plate says for how many data they stand."""

    def __init__(self):
        encoder, decoder = self.nets = Encoder(), Decoder()

        def model(x):
            pyro.module("decoder", decoder)
            with pyro.plate("data", 500, subsample=x):
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), positive_scale()).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(x), subsample_size=len(x)) as i:
                pyro.sample("z", dist.Normal(*encoder(x[i])).to_event(1))

        self.pair = model, guide


def nested(data_dim):
    """Per datum one z, and a w for each of three groups of two observations."""
    encoder, decoder = nn.Linear(2, 2), nn.Linear(1, 2)
    inner_dim = -3 - data_dim

    def along(t, n):  # [data, group, n] in the plates' order of dimensions
        return t if data_dim == -2 else t.transpose(0, 1)

    def model(x):
        pyro.module("decoder", decoder)
        groups = pyro.plate("groups", 3, dim=inner_dim)
        with pyro.plate("data", x.shape[0], dim=data_dim):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with groups:
                w = pyro.sample("w", dist.Normal(z, 0.5))
                loc = decoder(w.unsqueeze(-1))
                pyro.sample("x", dist.Normal(loc, 0.7).to_event(1), obs=along(x.reshape(-1, 3, 2), 2))

    def guide(x):
        pyro.module("encoder", encoder)
        groups = pyro.plate("groups", 3, dim=inner_dim)
        with pyro.plate("data", x.shape[0], dim=data_dim):
            h = encoder(x.reshape(-1, 3, 2))
            loc = h[..., 0].mean(1)
            pyro.sample("z", dist.Normal(loc.unsqueeze(-1) if data_dim == -2 else loc, 0.9))
            with groups:
                pyro.sample("w", dist.Normal(along(h[..., 1], 1), 0.6))

    return model, guide


def everything():
    """A mask, a factor on both sides, a deterministic site, an auxiliary draw, missing observations."""
    encoder, decoder = Encoder(), Decoder()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            loc = pyro.deterministic("loc", decoder(z), event_dim=1)
            with poutine.mask(mask=x[:, 0] > 0):
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)
            pyro.sample("first", dist.Normal(loc[..., 0], 1.0), obs=x[:, 0], obs_mask=x[:, 1] > 0)
            pyro.factor("reward", -0.3 * (z**2).sum(-1))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = encoder(x)
            z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            u = pyro.sample("u", dist.Normal(z.sum(-1), 1.0), infer={"is_auxiliary": True})
            pyro.factor("reward", 0.1 * u, has_rsample=True)
            with poutine.mask(mask=x[:, 1] <= 0):
                pyro.sample("first_unobserved", dist.Normal(u, 1.0))

    return model, guide


def with_global():
    """A latent for all data, and one for each."""

    def model(x):
        with pyro.plate("coordinates", X):
            m = pyro.sample("m", dist.Normal(0.0, 2.0))
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(m.unsqueeze(-2) + z.unsqueeze(-1), 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("m_loc", torch.zeros(X))
        with pyro.plate("coordinates", X):
            pyro.sample("m", dist.Normal(loc, 0.1))
        a = pyro.param("a", torch.tensor(0.1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(a * x.sum(-1), 0.5))

    return model, guide


def convolutional(n=None, b=None):
    """Networks that take no dimension more than [B, channels, height, width]."""
    encoder, decoder = nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(1, 1, 3)

    def plate(x):
        return pyro.plate("data", x.shape[0] if n is None else n, subsample_size=b)

    def model(x):
        pyro.module("decoder", decoder)
        with plate(x) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(1, 2, 2), 1.0).to_event(3))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(3), obs=x[i])

    def guide(x):
        pyro.module("encoder", encoder)
        with plate(x) as i:
            loc, raw = encoder(x[i]).split(1, -3)
            pyro.sample("z", dist.Normal(loc, functional.softplus(raw)).to_event(3))

    return model, guide


class Labelled:
    """Two fields, put side by side along the features."""

    def __init__(self):
        encoder, decoder = nn.Linear(X + 1, 2 * Z), nn.Linear(Z + 1, X)

        def model(x, y):
            pyro.module("decoder", decoder)
            with pyro.plate("data", x.shape[0]):
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                loc = decoder(torch.cat([z, y.unsqueeze(-1)], -1))  # one dimension more, and this raises
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

        def guide(x, y, unused=None):
            pyro.module("encoder", encoder)
            with pyro.plate("data", x.shape[0]):
                loc, raw = encoder(torch.cat([x, y.unsqueeze(-1)], -1)).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

        self.pair = model, guide


class Normalised(nn.Module):
    """Batch normalisation in both nets, dropout in one, and a buffer that its module assigns anew."""

    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.calls = self.calls + 1
            return x

    def __init__(self, n=None, b=None):
        super().__init__()
        self.n, self.b = n, b
        self.encoder = nn.Sequential(
            nn.Linear(X, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2 * Z)
        )
        self.decoder = nn.Sequential(nn.Linear(Z, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, X))
        self.counter = Normalised.Counter()
        self.pair = self.model, self.guide

    def plate(self, x):
        return pyro.plate("data", x.shape[0] if self.n is None else self.n, subsample_size=self.b)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with self.plate(x) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(self.counter(z)), 1.0).to_event(1), obs=x[i])

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with self.plate(x) as i:
            loc, raw = self.encoder(x[i]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class LinearGaussian:
    """x | z ~ N(Wz, 0.5²), z ~ N(0, I), with a guide that is linear in x and too wide."""

    def __init__(self, n=None, b=None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.weight = torch.randn(X, Z)
        noise = 0.5
        self.covariance = self.weight @ self.weight.T + noise**2 * torch.eye(X)
        gain = self.weight.T @ torch.linalg.inv(self.covariance)
        posterior = torch.eye(Z) - gain @ self.weight
        self.gain, self.scale = 0.9 * gain, 1.2 * posterior.diagonal().sqrt()

        def plate(x):
            return pyro.plate("data", x.shape[0] if n is None else n, subsample_size=b)

        def model(x):
            weight = pyro.param("weight", self.weight)
            with plate(x) as i:
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ weight.T, noise).to_event(1), obs=x[i])

        def guide(x):
            gain = pyro.param("gain", self.gain)
            with plate(x) as i:
                pyro.sample("z", dist.Normal(x[i] @ gain.T, self.scale).to_event(1))

        self.pair = model, guide

    def data(self, n, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return dist.MultivariateNormal(torch.zeros(X), self.covariance).sample((n,))

    def log_likelihood(self, x):
        return dist.MultivariateNormal(torch.zeros(X), self.covariance).log_prob(x)

    def elbo(self, x):
        """In closed form, per datum."""
        loc, noise = x @ self.gain.T, dist.Normal(0.0, 0.5)
        seen = noise.log_prob(x - loc @ self.weight.T).sum(-1)
        seen = seen - 2.0 * ((self.weight * self.scale) ** 2).sum()  # E(Wε)² / 2σ², σ = 0.5
        kl = 0.5 * (self.scale**2 + loc**2 - 1.0).sum(-1) - self.scale.log().sum()
        return seen - kl
