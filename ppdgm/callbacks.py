"""Callbacks of `fit` that write a run's progress to TensorBoard and to Weights & Biases."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from ppdgm.errors import PackageMissing
from ppdgm.inference.runs.progress import Display, Progress


class Callback(ABC):
    """Passes each `Progress` on to a library. If this fails, there is one warning, and the run goes on.

    A subclass opens its output at the first call, writes to it, and closes it.
    """

    def __init__(self) -> None:
        self._opened, self._failed = False, False
        self._validation: float | None = None

    @abstractmethod
    def open(self, step: int) -> None:
        """Get ready to write from this step on."""

    @abstractmethod
    def write(self, values: dict[str, float], step: int) -> None:
        """Write named values at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left."""

    def __call__(self, now: Progress) -> None:
        """Write the metrics under `train/`, the validation if it is new, such as `validation/elbo`, and the rate."""
        values = {**{f"train/{n}": v for n, v in now.metrics.items()}, "rate": now.rate}
        values |= {f"live/{n.removeprefix('live_')}": v for n, v in now.live.items()}
        if now.validation is not None and now.validation != self._validation:
            name = "elbo" if now.criterion == "ELBO" else now.criterion
            values[f"validation/{name}"] = self._validation = now.validation
        if not self._opened:
            self._opened = self._try(lambda: self.open(now.step))
        self._try(lambda: self.write(values, now.step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._opened:
            self._try(self.close)
        self._opened, self._validation = False, None

    def _try(self, action: Callable[[], object]) -> bool:
        if self._failed:
            return False
        try:
            action()
        except Exception as error:
            self._failed = True
            Display().warn(
                f"{type(self).__name__} failed, and is not used for the rest of the run: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}"
            )
        return not self._failed


class TensorBoard(Callback):
    """Writes scalars for TensorBoard, with tensorboardX or torch: `fit(…, callbacks=TensorBoard("runs/vae"))`.

    In a resumed run, they replace the scalars that a killed run had written after the step it is resumed from.

    Args:
        folder: of the event files.

    Raises:
        PackageMissing: neither package is installed.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)
        self._writer: Any = None
        self._make = _first_of(
            ("tensorboardX", "torch.utils.tensorboard"), "TensorBoard", "pip install tensorboardX"
        ).SummaryWriter

    def open(self, step: int) -> None:
        # Without a suffix, two files of one second would have one name.
        self._writer = self._make(str(self.folder), purge_step=step, flush_secs=10, filename_suffix=f".{step}")

    def write(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB(Callback):
    """Logs to Weights & Biases: `fit(…, callbacks=WandB("digits", id="vae-1"))`.

    Args:
        project: its name there.
        id: of the run; with the id of an earlier run, that run is continued.
        settings: further arguments of `wandb.init`, such as name, dir, config or mode.

    Raises:
        PackageMissing: wandb is not installed.
    """

    def __init__(self, project: str, id: str | None = None, **settings: Any):
        super().__init__()
        self._settings = {"project": project, "id": id, "resume": "allow", **settings}
        self._library = _first_of(("wandb",), "WandB", "pip install wandb")
        self._run: Any = None

    def open(self, step: int) -> None:
        self._run = self._library.init(**self._settings)

    def write(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def _first_of(names: tuple[str, ...], what: str, install: str) -> ModuleType:
    """The first of some modules that can be imported."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise PackageMissing(f"{what} needs {' or '.join(names)}, which can't be imported: {install}")
