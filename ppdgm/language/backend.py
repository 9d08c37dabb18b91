"""What the package needs from a backend's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import numpy as np

from ppdgm.language.augmenting import Augment
from ppdgm.language.native import Module
from ppdgm.language.phases import EngineLike, StateLike
from ppdgm.language.runtime import Native, Values
from ppdgm.language.runtime import Runtime as AnyRuntime
from ppdgm.language.served import Exported, Served
from ppdgm.language.trainer import Trainer as AnyTrainer
from ppdgm.language.trainer import TrainerSettings
from ppdgm.language.vocabulary import Array, PairLike, ProgramLike


class Backend(Protocol):
    """What the package needs from a backend's module."""

    @property
    def Runtime(self) -> Callable[[ProgramLike | PairLike, str, int | Literal["all"] | None], AnyRuntime]: ...
    @property
    def Trainer(
        self,
    ) -> Callable[[AnyRuntime, EngineLike, Native, TrainerSettings, Mapping[str, StateLike]], AnyTrainer]: ...
    @property
    def augment_rows(self) -> Callable[[Augment, np.ndarray], np.ndarray]: ...
    @property
    def bind(self) -> Callable[..., tuple[Callable[..., Array], Callable[..., Array]]]: ...
    @property
    def differentiable(self) -> Callable[..., Callable[..., tuple[float, dict[str, Values]]]]: ...
    @property
    def module_params(self) -> Callable[[Module], Values]: ...
    @property
    def module_states(self) -> Callable[[Module], Values]: ...
    @property
    def precision(self) -> Callable[[str], AbstractContextManager[object]]: ...
    @property
    def FORMATS(self) -> tuple[str, ...]: ...
    @property
    def exported(self) -> Callable[[AnyRuntime, Native, Served, str], Exported]: ...
