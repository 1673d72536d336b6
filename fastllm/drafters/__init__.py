"""Drafters: the cheap models that propose tokens. One file per family.

A drafter prepares for an article once (`begin`) and is then asked each round for a draft. It never
changes the text, only how fast the text comes: `fastllm.decoding.verification` sees to
that, provided that a draft's q is exactly the distribution its tokens were drawn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch

from fastllm.decoding.proposals import Draft
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets import Encoding, Target
from fastllm.trace import DecodingConfig


class DrafterSession(Protocol):
    """A drafter at work on one article."""

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens.

        Args:
            prefix: the start token and everything written so far.
            k: the most tokens to propose, at least 1. Fewer, or none, is allowed.
            config: the settings of the run. Filters are to be applied to q as the target applies
                them to p, the temperature is that of `DecodingConfig.drafting`.
            uniforms: k float64 numbers in [0, 1), on the CPU, for the drafter's draws.
        """

    def accept(self, tokens: Sequence[int]) -> None:
        """Told after each round which tokens were added to the text."""


class Drafter(Protocol):
    """A drafter before it has seen an article.

    A class that inherits from it needs `name`, `vocabulary` and `begin`; the rest has defaults that
    suit a drafter without weights.

    Attributes:
        name: unique and human-readable.
        vocabulary: the fingerprint of the vocabulary it was made for; empty if any will do.
        draft_temperature: at which its sessions draw where the settings leave it to them and the
            text is sampled (`DecodingConfig.drafting`); None is the target's temperature.
    """

    name: str
    vocabulary: str
    draft_temperature: float | None = None

    def begin(self, encoding: Encoding) -> DrafterSession:
        """Prepares for an article (its `source_ids`, and what else the target offers)."""

    @property
    def parameters(self) -> int:
        """How many weights it has of its own; for a table, how many entries."""
        return 0

    def bind(self, target: Target) -> None:
        """Takes what it needs from its target before training; by default it needs nothing.

        Raises:
            CheckpointError: it was trained for another target.
        """
        return None  # said, so that those who inherit may leave it as it is

    def save(self, folder: str | Path) -> None:
        """Writes its configuration and weights; by default there are none."""
        return None

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Loads what `save` wrote.

        Raises:
            CheckpointError: the folder is incomplete, or the class saves nothing.
        """
        raise CheckpointError(f"{folder}: a {cls.__name__} saves nothing, so none can be loaded.")


Training = Literal["none", "counting", "gradient"]
"""How a family learns: not at all, by counting texts, or by gradient descent."""


@dataclass(frozen=True)
class FamilySpec:
    """What the rest of the package knows about a family. It stands beside the family's class.

    Attributes:
        name: as `--drafter` and `config.json` give it.
        title: what tables and the page call it.
        description: the kind of model, with its article, for a model card.
        drafter: the class. One that is trained by gradient has `fresh` and `SETTINGS`, as
            `fastllm.drafters.neural.NeuralDrafter`.
        training: how it learns.
        bound_to_target: whether it is made from parts of one target, which `fresh` takes as
            `target=` and `bind` takes after loading.
        required_keys: what its `config.json` must hold.
        weights: files of which its folder must hold one; empty if `load` itself checks.
        model_type: of checkpoints of transformers that it loads, too; empty if there are none.
    """

    name: str
    title: str
    description: str
    drafter: type[Any]
    training: Training = "gradient"
    bound_to_target: bool = False
    required_keys: tuple[str, ...] = ("name", "vocabulary", "settings")
    weights: tuple[str, ...] = ("model.safetensors",)
    model_type: str = ""

    @property
    def trainable(self) -> bool:
        """Whether it is trained by gradient descent."""
        return self.training == "gradient"


_MODULES = ("lookup", "lstm", "t5", "cnn", "shared", "block", "ngram")
"""The modules of this package that hold a family, each with its spec as `SPEC`; the page shows them
in this order."""

_families: dict[str, FamilySpec] = {}


def families() -> dict[str, FamilySpec]:
    """The families by name, those of this package first."""
    own = [import_module(f"fastllm.drafters.{module}").SPEC for module in _MODULES]
    return {spec.name: spec for spec in own} | _families


def register(spec: FamilySpec) -> None:
    """Adds a family that lives outside this package, until the process ends.

    Raises:
        SettingsError: the name is taken.
    """
    if spec.name in families():
        raise SettingsError(f"there is a family {spec.name!r} already: give another name.")
    _families[spec.name] = spec


def spec_of(name: str) -> FamilySpec:
    """The family of that name.

    Raises:
        SettingsError: there is none.
    """
    found = families()
    if name not in found:
        raise SettingsError(f"drafter {name!r}: no such family. Give one of {', '.join(found)}.")
    return found[name]


def trainable() -> list[str]:
    """The names of the families that are trained by gradient descent."""
    return [spec.name for spec in families().values() if spec.trainable]


def untrained() -> list[str]:
    """The names of the families with nothing to train or load: each is a drafter by its name."""
    return [spec.name for spec in families().values() if spec.training == "none"]


def drafter_class(name: str) -> Any:
    """The class of a family: see `FamilySpec.drafter`."""
    return spec_of(name).drafter
