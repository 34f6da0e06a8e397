"""Which parts of a network are trained, and how fast: `fit.train_layers`, `fit.layer_decay`, `fit.unfreeze`.

A network's levels, from the bottom: what comes before its layers (embeddings, stem), each layer of the largest stack of
numbered modules, and what comes after them (pooler, classifier). The topmost level is its head. Numbered are also
modules with a name before the number, as torchvision has them: encoder_layer_0 to encoder_layer_11, or the stages
layer1 to layer4, of which the numbered blocks within are the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from serve.errors import UserError, did_you_mean
from train.classifier import Classifier
from train.fit_config import FitConfig

Layer = tuple[int, ...]  # its number in the stack; of a stage, and of the block in it
_NETWORK = "network."
_NUMBERED = re.compile(r"(.*?)(\d+)")  # of one part of a parameter's name
_LEAST_SHARE = 1 / 8  # of all weights: in Inception's branches, say, numbers stand for nothing


def levels(classifier: Classifier) -> dict[str, int]:
    """The level of each parameter of the network, by its name in the network, 0 at the bottom. Raises UserError."""
    names = [name for name, _ in classifier.network.named_parameters()]
    layer_of = _layers(classifier.network)
    if layer_of is None:
        raise UserError(
            f"'{classifier.spec.model}' has no numbered layers, so it has no order from bottom to top",
            "leave out fit.layer_decay and fit.unfreeze, and name parts in fit.train_layers",
        )
    place = {layer: at + 1 for at, layer in enumerate(sorted(set(layer_of.values())))}
    last = max(at for at, name in enumerate(names) if name in layer_of)
    found: dict[str, int] = {}
    level = 0
    for at, name in enumerate(names):  # what stands between two layers goes with the one before it
        level = place[layer_of[name]] if name in layer_of else level if at < last else len(place) + 1
        found[name] = level
    return found


def _layers(network: nn.Module) -> dict[str, Layer] | None:
    """The layer that each parameter of the largest stack is in, by name; None where no stack is most of the network.

    Embeddings count for nothing there: of a small transformer they are most of the weights.
    """
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    sizes = {name: value.numel() for name, value in network.named_parameters() if id(value) not in embeddings}
    stacks: dict[str, dict[str, Layer]] = {}
    for name in sizes:
        for stack, layer in _stacks_of(name):
            stacks.setdefault(stack, {})[name] = layer
    # of modules that have a name as well, a single one is no stack: conv1
    real = [found for stack, found in stacks.items() if stack.endswith(".") or len(set(found.values())) > 1]
    largest = max(real, key=lambda found: sum(sizes[name] for name in found), default=None)
    if largest is None or sum(sizes[name] for name in largest) < _LEAST_SHARE * sum(sizes.values()):
        return None
    return largest


def _stacks_of(name: str) -> Iterator[tuple[str, Layer]]:
    """The stacks that a parameter may be in, the outermost first, and in which layer of each."""
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if found := _NUMBERED.fullmatch(part):
            stem, inner = found[1], parts[at + 1]
            within = (int(inner),) if stem and inner.isdigit() else ()
            yield ".".join([*parts[:at], stem]) or ".", (int(found[2]), *within)


def rates(config: FitConfig, classifier: Classifier) -> dict[str, float]:
    """What the learning rate of each of the classifier's parameters is multiplied by, where that is not 1.

    `layer_decay` for each level below the head, as ELECTRA is tuned (Clark et al. 2020, arXiv 2003.10555, table 6).
    """
    if config.layer_decay == 1.0:
        return {}
    found = levels(classifier)
    top = max(found.values())
    return {_NETWORK + name: config.layer_decay ** (top - level) for name, level in found.items()}


def check_layers(config: FitConfig, classifier: Classifier) -> None:
    """Raise UserError for layers that the classifier, trained or not, does not have."""
    if config.train_layers != "all":
        _wanted(config, classifier)
    if config.layer_decay != 1.0 or config.unfreeze is not None:
        levels(classifier)


def never_thawed(config: FitConfig, classifier: Classifier) -> str | None:
    """What to say where the epochs, or patience, may end before `config.unfreeze` has come to the lowest layers.

    None where it does. It is no mistake that does harm: a recipe may be tried with fewer epochs, frozen embeddings be
    meant, and upper layers that gain nothing be left before the lower ones.
    """
    if config.unfreeze is None:
        return None
    found = sorted(set(levels(classifier).values()))
    top, last = found[-1], _thawed(config.epochs - 1, config.unfreeze)
    reached = sum(level > top - last for level in found)
    least = (top - found[0]) * config.unfreeze + 1
    if reached == len(found):
        if config.patience is None or config.patience + 1 >= least:
            return None
        return (
            f"fit.patience = {config.patience} may end the training after {config.patience + 1} epochs, and "
            f"fit.unfreeze = {config.unfreeze} trains all layers from epoch {least} on: the lowest would never be "
            f"trained; a patience of {least - 1} or more lets it come to all"
        )
    return (
        f"fit.unfreeze = {config.unfreeze} comes to the upper {reached} of {len(found)} layers, the head among them, "
        f"in {config.epochs} epochs: those below are never trained; {least} epochs or more train all"
    )


def freeze(config: FitConfig, classifier: Classifier) -> None:
    """Leave only what `config.train_layers` names to be trained. Raises UserError where it names nothing there is."""
    if config.train_layers == "all":
        return
    wanted = _wanted(config, classifier)
    for name, parameter in classifier.network.named_parameters():
        parameter.requires_grad_(name in wanted)


def hold_still(network: nn.Module) -> None:
    """Keep the statistics of batch norms whose weights are frozen as they are, also while the network is trained."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()


def _wanted(config: FitConfig, classifier: Classifier) -> set[str]:
    return _head(classifier) if config.train_layers == "head" else _named(config.train_layers, classifier.network)


def _head(classifier: Classifier) -> set[str]:
    found = levels(classifier)
    top = max(found.values())
    return {name for name, level in found.items() if level == top}


def _named(patterns: str | tuple[str, ...], network: nn.Module) -> set[str]:
    """The parameters that the patterns name, by themselves or by the module that holds them."""
    assert not isinstance(patterns, str)
    names = [name for name, _ in network.named_parameters()]
    modules = [name for name, module in network.named_modules() if name and any(True for _ in module.parameters())]
    wanted: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not matched:
            raise UserError(
                f"fit.train_layers: nothing in the network is called '{pattern}'", did_you_mean(pattern, modules)
            )
        wanted |= matched
    return wanted


class Unfreeze(TrainerCallback):
    """The head alone first, then one more level from the top each `every` epochs (ULMFiT, Howard & Ruder 2018,

    arXiv 1801.06146, section 3.3). It depends on the epoch's number alone, so a resumed training does the same.
    """

    def __init__(self, classifier: Classifier, every: int) -> None:
        self._network, self._every = classifier.network, every
        self._levels = levels(classifier)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        thawed = _thawed(round(state.epoch or 0), self._every)
        top = max(self._levels.values())
        for name, parameter in self._network.named_parameters():
            parameter.requires_grad_(self._levels[name] > top - thawed)


def _thawed(epoch: int, every: int) -> int:
    """How many levels are trained, from the top, in an epoch counted from 0."""
    return 1 + epoch // every
