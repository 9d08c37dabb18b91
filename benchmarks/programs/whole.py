"""Whole processes, as a user feels them: start, compile, 5 epochs of MNIST (B = 100), test ELBO; and the start alone.

A VAE 784-200-200-50 is trained by `ppdgm fit` on NumPyro, with an empty and with a warm cache of compiled programs, and
on Pyro; by short scripts in JAX and in torch; and by pythae's pipeline. Each runs in a process of its own, in turns.
The scripts read the same files, and print the same number: the ELBO of the 10,000 test images. PPDGM_DATA names a
folder that holds `mnist/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.seconds_per_step.problem import Unavailable

from .common import Found, Options, best, race, ranked, ratio, verdict, verdicts
from .probe import environment_with

TITLE = "Whole processes"
ROUNDS = 3
EPOCHS, B = 5, 100
READ = """
import gzip, os, sys, numpy as np
def images(name):
    folder = os.path.join(os.environ["PPDGM_DATA"], "mnist")
    path = next(p for p in (f"{folder}/{name}", f"{folder}/{name}.gz") if os.path.exists(p))
    with (gzip.open if path.endswith("gz") else open)(path, "rb") as file:
        x = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    return (x / 255 > np.random.default_rng(0).random(x.shape)).astype(np.float32)
train, test = images("train-images-idx3-ubyte"), images("t10k-images-idx3-ubyte")
rng = np.random.default_rng(0)
sizes = {"encoder": (784, 200, 200, 100), "decoder": (50, 200, 200, 784)}
first = {f"{n}{i}": (rng.uniform(-1, 1, (a, b)) * (6 / (a + b)) ** 0.5).astype("f") for n, s in sizes.items()
         for i, (a, b) in enumerate(zip(s, s[1:]))}
"""
BY_HAND = {
    "jax": READ
    + f"""
import jax, jax.numpy as jnp, optax
params = {{n: (jnp.array(w), jnp.zeros(w.shape[1])) for n, w in first.items()}}
adam = optax.adam(1e-3)
def mlp(p, net, h):
    for i in (0, 1):
        h = jnp.tanh(h @ p[f"{{net}}{{i}}"][0] + p[f"{{net}}{{i}}"][1])
    return h @ p[f"{{net}}2"][0] + p[f"{{net}}2"][1]
def loss(p, x, key):
    loc, raw = jnp.split(mlp(p, "encoder", x), 2, -1)
    s = 1e-4 + jax.nn.softplus(raw)
    logits = mlp(p, "decoder", loc + s * jax.random.normal(key, loc.shape))
    kl = 0.5 * (s**2 + loc**2 - 1 - 2 * jnp.log(s)).sum(-1)
    return (kl - (logits * x - jax.nn.softplus(logits)).sum(-1)).mean()
@jax.jit
def epoch(state, data, rows):
    def step(state, row):
        p, m, key = state
        key, own = jax.random.split(key)
        g = jax.grad(loss)(p, data[row], own)
        u, m = adam.update(g, m)
        return (optax.apply_updates(p, u), m, key), None
    return jax.lax.scan(step, state, rows)[0]
data, state = jnp.array(train), (params, adam.init(params), jax.random.key(0))
for _ in range({EPOCHS}):
    state = epoch(state, data, jnp.array(rng.permutation(60000).reshape(-1, {B})))
print("ELBO", -float(jax.jit(loss)(state[0], jnp.array(test), state[2])))
""",
    "torch": READ
    + f"""
import torch
from torch.nn import functional as F
params = {{n: (torch.tensor(w, requires_grad=True), torch.zeros(w.shape[1], requires_grad=True))
          for n, w in first.items()}}
adam = torch.optim.Adam([t for pair in params.values() for t in pair], lr=1e-3, fused=True)
def mlp(net, h):
    for i in (0, 1):
        h = torch.addmm(params[f"{{net}}{{i}}"][1], h, params[f"{{net}}{{i}}"][0]).tanh()
    return torch.addmm(params[f"{{net}}2"][1], h, params[f"{{net}}2"][0])
def loss(x):
    loc, raw = mlp("encoder", x).chunk(2, -1)
    s = 1e-4 + F.softplus(raw)
    logits = mlp("decoder", loc + s * torch.randn_like(loc))
    kl = 0.5 * (s**2 + loc**2 - 1 - 2 * s.log()).sum(-1)
    return (kl + F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)).mean()
data = torch.from_numpy(train)
for _ in range({EPOCHS}):
    for row in torch.from_numpy(rng.permutation(60000).reshape(-1, {B})):
        adam.zero_grad()
        loss(data[row]).backward()
        adam.step()
with torch.no_grad():
    print("ELBO", -float(loss(torch.from_numpy(test))))
""",
}
PYTHAE = (
    READ
    + f"""
import tempfile, torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
def mlp(net):
    layers = []
    for i in range(3):
        w = first[f"{{net}}{{i}}"]
        layer = torch.nn.Linear(*w.shape)
        layer.weight.data, layer.bias.data = torch.tensor(w.T.copy()), torch.zeros(w.shape[1])
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])
class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.net = mlp("encoder")
    def forward(self, x):
        loc, raw = self.net(x.reshape(len(x), -1)).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=2 * (1e-4 + torch.nn.functional.softplus(raw)).log())
class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.net = mlp("decoder")
    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))
config = VAEConfig(input_dim=(784,), latent_dim=50, reconstruction_loss="bce")
vae = VAE(config, encoder=Encoder(), decoder=Decoder())
training = BaseTrainerConfig(output_dir=tempfile.mkdtemp(), num_epochs={EPOCHS}, learning_rate=1e-3,
                             per_device_train_batch_size={B}, no_cuda=True)
TrainingPipeline(model=vae, training_config=training)(train_data=train)
with torch.no_grad():
    print("\\nELBO", -float(vae({{"data": torch.from_numpy(test)}}).loss))
"""
)
OURS = (
    READ
    + f"""
import ppdgm
from ppdgm.models import VAE
fit = ppdgm.fit(VAE(event_shape=(784,)), train, epochs={EPOCHS}, batch_size={B}, backend=sys.argv[1], progress=False)
print("ELBO", fit.elbo(test, k=1).mean)  # one draw of each image, as by hand
"""
)


def processes(cache: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """{name: (command, environment)}."""
    python, keep = [sys.executable, "-c"], {"PPDGM_COMPILATION_CACHE": str(cache / "warm")}
    return {
        "ppdgm, NumPyro, warm": ([*python, OURS, "numpyro"], keep),
        "ppdgm, NumPyro, cold": ([*python, OURS, "numpyro"], {"PPDGM_COMPILATION_CACHE": str(cache / "cold")}),
        "ppdgm, Pyro": ([*python, OURS, "pyro"], {}),
        "JAX by hand": ([*python, BY_HAND["jax"]], {}),
        "torch by hand": ([*python, BY_HAND["torch"]], {}),
        "pythae": ([*python, PYTHAE], {}),
        "python": ([*python, "pass"], {}),
        "import numpy": ([*python, "import numpy"], {}),
        "import numpy, ppdgm": ([*python, "import numpy, ppdgm"], {}),
        "ppdgm --help": ([sys.executable, "-m", "ppdgm", "--help"], {}),
    }


def measure(options: Options) -> Iterator[Found]:
    """Whole processes, in turns.

    Raises:
        Unavailable: there is no MNIST.
    """
    if "PPDGM_DATA" not in os.environ:
        raise Unavailable("PPDGM_DATA names no folder that holds mnist/")
    elbos: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        everyone = options.contestants_of(processes(Path(folder)))
        if options.quick:
            everyone = {n: v for n, v in everyone.items() if n.startswith(("python", "import", "ppdgm --"))}
        makers = {n: partial(_process, n, *v, Path(folder), elbos) for n, v in everyone.items()}
        found = race("whole processes", makers, options.rounds_of(ROUNDS), options)
    yield {**found, "elbo": elbos}


def _process(
    name: str, command: list[str], environment: dict[str, str], cache: Path, elbos: dict[str, float]
) -> tuple[Callable[[], object], int]:
    if name == "pythae" and find_spec("pythae") is None:
        raise Unavailable("pythae is not installed")

    def once() -> None:
        shutil.rmtree(cache / "cold", ignore_errors=True)
        here = environment_with(environment)
        done = subprocess.run(command, env=here, capture_output=True, text=True, check=True)
        if found := [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ELBO ")]:
            elbos[name] = float(found[0])

    if name.endswith("warm"):
        once()  # fills the cache
    return once, 1


def page(found: Found) -> list[str]:
    """The table, and whether the targets are met."""
    seconds, elbo = found["seconds"], {n: f"{v:.1f}" for n, v in found["elbo"].items()}
    by_hand = best(seconds, ("JAX by hand", "torch by hand"))
    lines = ["", f"{EPOCHS} epochs of MNIST, B = {B}, and the ELBO of the test images; {len(found['others'])} rounds."]
    lines += ranked(found, ("JAX by hand", "torch by hand", "pythae"), "seconds", 1.0, {"ELBO": elbo})
    if by_hand is None:
        return lines
    targets = (("ppdgm, NumPyro, warm", 1.0), ("ppdgm, NumPyro, cold", 1.15))
    return lines + verdicts(
        line for n, most in targets for line in verdict(f"{n} ÷ {by_hand}", ratio(seconds, n, by_hand), most)
    )
