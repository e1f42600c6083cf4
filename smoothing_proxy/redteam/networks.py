"""Classifiers of this machine that an attack may look into: from a picture on [0, 1] to logits, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.local.loading import existing_file
from smoothing_proxy.backends.local.torch_file import exported_scorer, script_scorer
from smoothing_proxy.backends.local.torch_module import TorchOptions, TorchScorer
from smoothing_proxy.backends.local.torchvision import torchvision_scorer
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.preprocessing import Fitted
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.types import Label, Reply, ScoredLabel

__all__ = ["Network", "check_differentiable", "differentiable"]

TORCH_FILES = (".pt", ".pt2", ".pth")

SMALLEST = 1e-30
"""Probabilities below it have this one's logarithm; gradients go through its inverse, which is a float32 still."""

UNITY = 1e-3
"""By which probabilities may miss 1 together."""


class Network(nn.Module):
    """A classifier as a differentiable function: float32 [n, 3, h, w] in [0, 1] to logits [n, k].

    module: in evaluation mode, and it stays in it, whatever an attack's library asks for; where its first outputs
    are probabilities (none negative, 1 together), their logarithms are the logits: the softmax of a softmax is
    flat, and leaves an attack no gradient. classes: the names of its outputs. device: None takes that of its
    weights. noisy: whether the same picture gets other logits the next time. seen: pictures that have passed
    through so far, forward.
    steady: of a noisy one, the same with the noise of a number, one for all pictures; None cannot be had so.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        *,
        name: str,
        classes: Sequence[Label],
        device: torch.device | None = None,
        noisy: bool = False,
        steady: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._module = (module,)  # not registered: an exported program refuses to be told its mode
        self._steady = steady
        self._probabilities: bool | None = None
        self.name = name
        self.noisy = noisy
        self.classes = tuple(classes)
        self.seen = 0
        self.device = device or _device_of(module)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        self.seen += len(pictures)
        return self._as_logits(self._module[0](pictures))

    def with_noise(self, pictures: Tensor, number: int) -> Tensor:
        """The same, with the noise of that number: what two pictures get for one number can be compared.

        Fresh noise where there is none to be had by number.
        """
        if self._steady is None:
            logits: Tensor = self(pictures)
            return logits
        self.seen += len(pictures)
        return self._as_logits(self._steady(pictures, number))

    def _as_logits(self, outputs: Tensor) -> Tensor:
        seen = outputs.detach()
        if self._probabilities is None and bool(torch.isfinite(seen).all()):
            self._probabilities = _are_probabilities(seen)
        return outputs.clamp_min(SMALLEST).log() if self._probabilities else outputs

    def logits(self, pictures: Tensor, batch_size: int = 64) -> Tensor:
        """The same without gradients, a batch at a time, on the CPU."""
        with torch.no_grad():
            parts = [
                self(pictures[start : start + batch_size].to(self.device)).float().cpu()
                for start in range(0, len(pictures), batch_size)
            ]
        return torch.cat(parts)


def differentiable(name: str, /, *, label_map: LabelMap | None = None, **options: Any) -> Network:
    """The network behind a classifier of this machine that PyTorch runs.

    name: as `backend` takes it: "local:torchvision/resnet18", "local:net.pt2", "local:net.pt"; options: its own,
    such as `labels`, the names of its outputs.
    label_map: outputs that it makes one label of are one class here too, with the best of their logits; outputs
    that it drops are no class. Sizes other than the network's own are resized as near to how the backend does it
    as a differentiable function can be.

    Raises ConfigError for a classifier that is not PyTorch's, naming the attacks that work on it all the same.
    """
    scorer, names, output = _opened(name, options)
    for weight in scorer.network.parameters() if isinstance(scorer.network, nn.Module) else ():
        weight.requires_grad = False
    classes = names or _numbered(scorer)
    network = Network(_Logits(scorer, output), name=name, classes=classes, device=scorer.device)
    return _grouped(network, label_map or LabelMap())


def check_differentiable(name: str) -> None:
    """Raises ConfigError for a classifier that is not PyTorch's, by its name alone, before anything is asked."""
    kind, _, target = name.partition(":")
    if kind != "local" or not (target.startswith("torchvision/") or target.endswith(TORCH_FILES)):
        raise ConfigError(_no_gradients(name))


def _opened(name: str, options: dict[str, Any]) -> tuple[TorchScorer, tuple[str, ...] | None, str]:
    check_differentiable(name)
    target = name.partition(":")[2]
    if target.startswith("torchvision/"):
        scorer, settings = torchvision_scorer(target.removeprefix("torchvision/"), name=name, **options)
        return scorer, settings.names(), settings.output
    asked = parse_settings(TorchOptions, options, source=name)
    file = existing_file(target)
    scorer = (exported_scorer if file.suffix == ".pt2" else script_scorer)(file, asked)
    return scorer, asked.names(), asked.output


def _no_gradients(name: str) -> str:
    from smoothing_proxy.redteam.attacks.registry import names_needing

    asked = ", ".join(names_needing("labels") + names_needing("scores"))
    return (
        f"{name}: has no gradients, since PyTorch does not run it; attacks that work on it: {asked}, and transfer "
        "from a surrogate that has them (local:torchvision/NAME, local:FILE.pt2, local:FILE.pt)"
    )


def _are_probabilities(outputs: Tensor) -> bool:
    return bool((outputs >= 0).all()) and bool(((outputs.sum(dim=1) - 1).abs() < UNITY).all())


def _device_of(module: object) -> torch.device:
    weights = module.parameters() if isinstance(module, nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


class _Logits(nn.Module):
    """A scorer's network after its preprocessing; probabilities become their logarithms."""

    def __init__(self, scorer: TorchScorer, output: str) -> None:
        super().__init__()
        network = scorer.network
        self._network = (network,)
        self._fit = Fitted(scorer.preprocess)
        self._limits = scorer.limits
        self._probabilities = output == "probabilities"

    def forward(self, pictures: Tensor) -> Tensor:
        fitted = self._fit(pictures)
        step = self._limits.most or len(fitted)
        outputs = torch.cat([self._run(fitted[start : start + step]) for start in range(0, len(fitted), step)])
        return outputs.clamp_min(SMALLEST).log() if self._probabilities else outputs

    def _run(self, pictures: Tensor) -> Tensor:
        missing = max(self._limits.least - len(pictures), 0)
        filled = torch.cat([pictures, pictures.new_zeros(missing, *pictures.shape[1:])]) if missing else pictures
        outputs: Tensor = self._network[0](filled)[: len(pictures)]
        return outputs


def _numbered(scorer: TorchScorer) -> tuple[str, ...]:
    height, width = scorer.picture_size or (224, 224)
    outputs = _Logits(scorer, "logits")(torch.zeros(1, 3, height, width, device=scorer.device))
    return tuple(str(number) for number in range(outputs.shape[1]))


def _grouped(network: Network, labels: LabelMap) -> Network:
    """The network with one output for each label that the map makes of its outputs."""
    votes = [labels.vote(Reply((ScoredLabel(name, 1.0),))) for name in network.classes]
    classes = tuple(dict.fromkeys(vote for vote in votes if vote is not None))
    if classes == network.classes:
        return network
    if not classes:
        raise ConfigError(f"{network.name}: the label map drops every output of it")
    members = [torch.tensor([i for i, vote in enumerate(votes) if vote == name]) for name in classes]

    def best_of_each(pictures: Tensor) -> Tensor:
        outputs = network(pictures)
        return torch.stack([outputs[:, group.to(outputs.device)].amax(dim=1) for group in members], dim=1)

    return Network(best_of_each, name=network.name, classes=classes, device=network.device)
