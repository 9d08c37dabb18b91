"""pythae's models, trainer, `get_nll` and sampler, with the parameters of a case."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.seconds_per_step.problem import LEARNING_RATE, Contestant, Floats, Rows, Stretch, Unavailable

from .cases import Case

INSTALL = "pythae is not installed: pip install --no-deps pythae==0.1.2 imageio cloudpickle tqdm"


def model(case: Case) -> Any:
    """The VAE or IWAE of the case.

    Raises:
        Unavailable: pythae is not installed, or has no such model.
    """
    if case.pythae is None:
        raise Unavailable("it has no such model of these nets")
    try:
        from pythae import models
    except ImportError as error:
        raise Unavailable(INSTALL) from error
    return _with(models, case.pythae, case.first(), case.particles)


def _with(models: Any, kind: str, params: dict[str, Any], particles: int) -> Any:
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net(params, "encoder")

        def forward(self, x: Any) -> Any:
            loc, raw = self.net(x.reshape(len(x), -1)).chunk(2, -1)
            scale = 1e-4 + torch.nn.functional.softplus(raw)
            return ModelOutput(embedding=loc, log_covariance=2 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net(params, "decoder")

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    pixels, latent = params["encoder.layers.0.weight"].shape[0], params["decoder.layers.0.weight"].shape[0]
    more = {"number_samples": particles} if kind == "IWAE" else {}
    config = getattr(models, f"{kind}Config")(input_dim=(pixels,), latent_dim=latent, reconstruction_loss="bce", **more)
    return getattr(models, kind)(config, encoder=Encoder(), decoder=Decoder())


def _net(params: dict[str, Any], name: str) -> Any:
    layers: list[Any] = []
    for i in range(3):
        weight, bias = params[f"{name}.layers.{i}.weight"], params[f"{name}.layers.{i}.bias"]
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def trainer(case: Case) -> Contestant:
    """The epoch of its trainer, over its own data loader, without its progress bar; it reads the loss of each step."""
    made = model(case)
    from pythae.data.datasets import BaseDataset, collate_dataset_output
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import CallbackHandler

    logging.getLogger(BaseTrainer.__module__).setLevel(logging.ERROR)

    class Recording(BaseTrainer):
        losses: list[Any]

        def _optimizers_step(self, model_output: Any = None) -> None:
            self.losses.append(model_output.loss.detach())
            super()._optimizers_step(model_output)

    data = torch.from_numpy(case.data)
    dataset = BaseDataset(data, torch.zeros(len(data)))
    config = BaseTrainerConfig(
        per_device_train_batch_size=case.batch, learning_rate=LEARNING_RATE, no_cuda=case.device == "cpu",
        keep_best_on_train=True,
    )  # fmt: skip
    own = Recording(made, dataset, training_config=config)
    own.set_optimizer()
    own.callback_handler = CallbackHandler(callbacks=[], model=made)

    def contestant(rows: Rows) -> Stretch:
        order = [list(row) for row in rows]
        loader = torch.utils.data.DataLoader(dataset, batch_sampler=order, collate_fn=collate_dataset_output)

        def stretch() -> Floats:
            own.train_loader, own.losses = loader, []
            own.train_step(1)
            return torch.stack(own.losses).cpu().numpy()

        return stretch

    return contestant


def likelihood(case: Case, chunk: int) -> Callable[[Floats, int], float]:
    """Its estimate of the mean log p(x), which it calls `get_nll`: row by row, in batches of `chunk` particles."""
    made = model(case)

    def of_rows(x: Floats, k: int) -> float:
        with torch.no_grad():
            return float(made.get_nll(torch.from_numpy(x), n_samples=k, batch_size=min(k, chunk)))

    return of_rows


def images(case: Case) -> Callable[[int, int], Floats]:
    """(n, seed) -> n images of probabilities: its sampler draws no pixels."""
    made = model(case)
    from pythae.samplers import NormalSampler

    sampler = NormalSampler(made)

    def drawn(n: int, seed: int) -> Floats:
        torch.manual_seed(seed)
        with torch.no_grad():
            return np.asarray(sampler.sample(num_samples=n).cpu().numpy())

    return drawn
