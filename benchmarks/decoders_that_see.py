"""A decoder that sees a few neighbours, on binarised MNIST: VLAE and PixelVAE against the VAE of the same nets.

    PPDGM_DATA=… python -m benchmarks.decoders_that_see [--steps 3000] [--rows 20000]

Each program has the same encoder, latent and decoder net. The VAE's decoder gives the log-odds of each pixel. The
others give a map of 4 channels to a GatedPixelCNN, of which a pixel sees R pixels to each side and R + 1 rows above:
Chen et al. 2016, arXiv:1611.02731 (VLAE); Gulrajani et al. 2016, arXiv:1611.05013 (PixelVAE). Written to
results/decoders_that_see.md.
"""

import argparse
import platform
from pathlib import Path
from time import perf_counter

import ppdgm
from ppdgm.inference import SVI, Linear
from ppdgm.models import MLP, VAE, Autoregressive, GatedPixelCNN

RESULT = Path(__file__).parent / "results" / "decoders_that_see.md"
NETS = {"encoder": MLP(hidden=(200,)), "decoder": MLP(hidden=(200,))}


def program(reach, layers=1):
    """The VAE with a decoder that sees `reach` pixels to each side in its first layer; 0: none."""
    if reach == 0:
        return VAE(event_shape=(28, 28), latent=32, **NETS)
    net = GatedPixelCNN(channels=16, layers=layers, first_kernel=2 * reach + 1, hidden=16)
    return VAE(event_shape=(28, 28), latent=32, likelihood=Autoregressive(net=net, condition=(4, 28, 28)), **NETS)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=20_000)
    asked = parser.parse_args()
    data = ppdgm.load_data("mnist", binarise="static", seed=0)
    x, test = data.train[: asked.rows], data.test[:1000]
    lines, first = [], None
    for name, reach, layers in (("VAE", 0, 0), ("VLAE, R = 1", 1, 1), ("VLAE, R = 2", 2, 1), ("PixelVAE, R = 5", 3, 3)):
        started = perf_counter()
        warm = SVI(beta=Linear(steps=asked.steps // 3))
        fit = ppdgm.fit(
            program(reach, layers), x, engine=warm, steps=asked.steps, batch_size=100, learning_rate=1e-3, seed=0,
            progress=False,
        )  # fmt: skip
        seconds, bound = perf_counter() - started, fit.elbo(test, k=10)
        kl = ppdgm.trace(fit.program, fit.params, test, kl=True).kl["z"].sum(-1).mean()
        gain = "" if first is None else str(bound - first)
        first = first or bound
        lines.append(f"| {name} | {bound.mean:.2f} ± {bound.standard_error:.2f} | {gain} | {kl:.2f} | {seconds:.0f} |")
        print(lines[-1], flush=True)
    RESULT.write_text(
        "# Decoders that see their neighbours, on binarised MNIST\n\n"
        f"`python -m benchmarks.decoders_that_see --steps {asked.steps} --rows {asked.rows}`: {asked.rows:,} training "
        f"images, {asked.steps:,} steps of 100, β from 0 to 1 in the first third; 1,000 test images; "
        f"{platform.machine()}, two cores.\n\n"
        "| | test ELBO, nats | gain over the VAE (paired) | KL(z), nats | seconds of training |\n"
        "|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
