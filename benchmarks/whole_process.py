"""Whole processes, as a user feels them: start, compile, 5 epochs of MNIST (B = 100), test ELBO; and the start alone.

    PPDGM_DATA=… python benchmarks/whole_process.py [--rounds 5] [--json FILE]

A VAE 784-200-200-50 is trained by `ppdgm fit` on NumPyro, with an empty and with a warm cache of compiled programs, and
on Pyro; and by short scripts in JAX and in torch. Each runs in a process of its own, in turns; medians are printed. The
scripts read the same files, and print the same number: the ELBO of the 10,000 test images. PPDGM_DATA names a folder
that holds `mnist/`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS, B = 5, 100
READ = """
import gzip, os, sys, numpy as np
def images(name):
    folder = os.path.join(os.environ["PPDGM_DATA"], "mnist")
    path = next(p for p in (f"{folder}/{name}", f"{folder}/{name}.gz") if os.path.exists(p))
    with (gzip.open if path.endswith("gz") else open)(path) as file:
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
OURS = (
    READ
    + f"""
import ppdgm
from ppdgm.models import VAE
fit = ppdgm.fit(VAE(event_shape=(784,)), train, epochs={EPOCHS}, batch_size={B}, backend=sys.argv[1], progress=False)
print("ELBO", fit.elbo(test).mean)
"""
)


def contestants(cache: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """{name: (command, environment)}."""
    python, keep = [sys.executable, "-c"], {"PPDGM_COMPILATION_CACHE": str(cache / "warm")}
    return {
        "ppdgm, NumPyro, warm": ([*python, OURS, "numpyro"], keep),
        "ppdgm, NumPyro, cold": ([*python, OURS, "numpyro"], {"PPDGM_COMPILATION_CACHE": str(cache / "cold")}),
        "ppdgm, Pyro": ([*python, OURS, "pyro"], {}),
        "JAX by hand": ([*python, BY_HAND["jax"]], {}),
        "torch by hand": ([*python, BY_HAND["torch"]], {}),
        "python": ([*python, "pass"], {}),
        "import numpy": ([*python, "import numpy"], {}),
        "import numpy, ppdgm": ([*python, "import numpy, ppdgm"], {}),
        "ppdgm --help": ([sys.executable, "-m", "ppdgm", "--help"], {}),
    }


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float | None]:
    """Seconds of the process, and the ELBO that it prints, if it does."""
    before = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - before
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ELBO ")]
    return seconds, float(found[0]) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "PPDGM_DATA" not in os.environ:
        sys.exit("Set PPDGM_DATA to a folder that holds mnist/.")
    seconds: dict[str, list[float]] = {}
    elbos: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        everyone = contestants(Path(folder))
        run(*everyone["ppdgm, NumPyro, warm"])  # fills the cache
        for _ in range(options.rounds):
            for name, (command, environment) in everyone.items():
                shutil.rmtree(Path(folder) / "cold", ignore_errors=True)
                took, elbos[name] = run(command, environment)
                seconds.setdefault(name, []).append(took)
    for name, found in seconds.items():
        elbo = "" if elbos[name] is None else f"   ELBO {elbos[name]:.1f}"
        print(f"{name:22} {statistics.median(found):7.2f} s   ({min(found):.2f} to {max(found):.2f}){elbo}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "elbo": elbos}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
