"""log p(x) of MNIST's 10,000 test images, k = 5,000, with Burda's network: memory, and time beside pythae's `get_nll`.

    pip install --no-deps pythae==0.1.2 imageio cloudpickle tqdm    # beside the development install
    PPDGM_DATA=… python benchmarks/likelihood.py

`fit.diagnose(…, parts="likelihood")` keeps all 10,000 × 5,000 log-weights, for Pareto k̂, effective sample sizes and the
bounds over k. The peak of the process's memory is reported too. pythae has the same weights, and computes the same
number for some of the images (its loop over rows takes hours for all). The times per row and particle are compared, in
turns, on the same cores. PPDGM_DATA names a folder that holds `mnist/`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from burda import first_values, program_of
from mnist import images

import ppdgm
from ppdgm.data import binarise


def theirs(params: dict[str, np.ndarray]) -> Any:
    """pythae's VAE with these parameters."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    def net(name: str) -> Any:
        layers: list[Any] = []
        for i in range(3):
            weight, bias = params[f"{name}.layers.{i}.weight"], params[f"{name}.layers.{i}.bias"]
            layer = torch.nn.Linear(*weight.shape)
            layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)
            layers += [layer, torch.nn.Tanh()]
        return torch.nn.Sequential(*layers[:-1])

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = net("encoder")

        def forward(self, x: Any) -> Any:
            loc, raw = self.net(x.reshape(len(x), -1)).chunk(2, -1)
            scale = 1e-4 + torch.nn.functional.softplus(raw)
            return ModelOutput(embedding=loc, log_covariance=2 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = net("decoder")

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    config = VAEConfig(input_dim=(784,), latent_dim=50, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--few", type=int, default=10, help="images that pythae judges in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "PPDGM_DATA" not in os.environ:
        sys.exit("Set PPDGM_DATA to the folder that holds mnist/ with the four gzipped idx files.")
    folder, program = Path(os.environ["PPDGM_DATA"]), program_of(1)
    train, test = images(folder, "train"), binarise(images(folder, "t10k"), seed=2)
    fit = ppdgm.fit(program, train, epochs=options.epochs, binarise="dynamic", params=first_values(program, train))
    del train
    started = time.perf_counter()
    found = fit.diagnose(test, parts="likelihood", k=options.k)
    whole = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    print(f"{len(test)} images, k = {options.k}: {whole:.0f} s, peak memory {peak:.2f} GiB\n{found}", flush=True)
    result: dict[str, Any] = {"images": len(test), "k": options.k, "seconds": whole, "peak_gib": peak}
    result["log_likelihood"], result["error"] = found.log_likelihood.mean, found.log_likelihood.standard_error

    import torch

    model, rows = theirs(fit.params), torch.tensor(test[: options.few])
    some = test[:500]
    ratios, numbers = {100: [], 500: [], options.k: []}, []  # type: ignore[var-annotated]
    fit.log_likelihood(some, k=options.k)  # compiles
    for _ in range(options.rounds):
        started = time.perf_counter()
        ours = fit.log_likelihood(some, k=options.k)
        mine = (time.perf_counter() - started) / (len(some) * options.k)
        for batch, found_ratios in ratios.items():
            started = time.perf_counter()
            with torch.no_grad():
                numbers.append(model.get_nll(rows, n_samples=options.k, batch_size=batch))
            found_ratios.append((time.perf_counter() - started) / (len(rows) * options.k) / mine)
    same = ours.values[: options.few].mean()
    print(f"the same {options.few} images: ppdgm {same:.3f}, pythae {np.mean(numbers):.3f} nats")
    for batch, values in ratios.items():
        print(f"pythae in batches of {batch}: {np.median(values):.1f} × ppdgm's time per datum and particle")
    result["ratios"] = {str(b): values for b, values in ratios.items()}
    result["same_images"] = [float(same), float(np.mean(numbers))]
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
