"""One pruning step of a convolutional network, from a trained classifier to a smaller network and its description.

The network is cut by torch-pruning and then built again from the description alone, as it will be when it is loaded;
what does not compute the same then is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from serve.errors import UserError, said
from serve.manifest import ImagePreprocessing
from train.draft import NetworkSpec
from train.inputs import Inputs
from train.models.channel_scores import Kind, channel_scores
from train.models.channels import copied, cut, find_groups, widths_of
from train.models.heads import head_of
from train.models.pruned_network import record_of, remove_blocks

if TYPE_CHECKING:
    from train.classifier import Classifier

_TOLERANCE = 1e-3  # of logits, between the network that was cut and the one that was built as small


class Pruning:
    """How to prune the network of `start`; `model` names the student in errors."""

    def __init__(self, start: Classifier, model: str) -> None:
        self._start, self._model = start, model

    def without_blocks(self, blocks: tuple[str, ...]) -> tuple[NetworkSpec, nn.Module]:
        """The network without these residual blocks."""
        with copied(self._start.network) as network:
            return self._finished(network, blocks)

    def with_widths(
        self,
        blocks: tuple[str, ...],
        whole: Mapping[str, int],
        share: float,
        round_to: int,
        importance: Kind,
        inputs: Inputs | None,
    ) -> tuple[NetworkSpec, nn.Module]:
        """The network without these residual blocks, and of every layer's `whole` width only `share`, rounded.

        The channels that stay are those that matter most in what is left, by `importance`, on `inputs`.
        """
        with copied(self._start.network) as network:
            remove_blocks(network, blocks, self._model)
            example, heads = self._example(), self._heads()
            try:
                graph, groups = find_groups(network, example, heads)
                scores = channel_scores(importance, groups, self._start.front, network, inputs)
                for group, width, score in zip(groups, widths_of(groups, whole, share, round_to), scores, strict=True):
                    if width < group.width:
                        cut(graph, group, width, score)
            except Exception as error:  # whatever torch-pruning stumbles over; --debug shows it
                raise self._cannot(f"torch-pruning fails on it with {type(error).__name__}") from error
            return self._finished(network, blocks)

    def _finished(self, network: nn.Module, blocks: tuple[str, ...]) -> tuple[NetworkSpec, nn.Module]:
        """The description of `network` and, built from it, the network with its weights."""
        spec = self._start.spec.network
        removed = (*(() if spec.pruned is None else spec.pruned.removed), *blocks)
        whole = self._built(spec.model_copy(update={"pruned": None}))
        remove_blocks(network, blocks, self._model)
        remove_blocks(whole, removed, self._model)
        smaller = spec.model_copy(update={"pruned": record_of(network, whole, removed)})
        module = self._built(smaller).eval()
        example = torch.randn(self._example().shape, generator=torch.Generator().manual_seed(0))
        try:
            module.load_state_dict(network.state_dict())
            with torch.no_grad():
                same = torch.allclose(module(example), network(example), rtol=_TOLERANCE, atol=_TOLERANCE)
        except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:  # words on shapes, the models' own
            raise self._cannot(f"then it does not work: {said(error)}") from error
        if not same:
            raise self._cannot("built again, it does not compute the same")
        return smaller, module.train(self._start.training)

    def _built(self, network: NetworkSpec, more_classes: int = 0) -> nn.Module:
        from train.models import build_network

        spec = self._start.spec
        with torch.random.fork_rng(devices=[]):
            return build_network(network, spec.preprocessing, len(spec.labels) + more_classes)

    def _heads(self) -> list[str]:
        """The layers that give a score for each class: those that are wider where there is one class more."""
        start = self._start
        if start.spec.network.source == "transformers":  # their configuration knows how many classes there are
            return [name for name, module in start.network.named_modules() if module is head_of(start.network)]
        other = self._built(start.spec.network, more_classes=1).state_dict()
        state = start.network.state_dict()
        return sorted({name.rpartition(".")[0] for name in state if state[name].shape != other[name].shape})

    def _example(self) -> torch.Tensor:
        """What the network takes for one image: float32 [1, C, H, W]."""
        preprocessing = self._start.spec.preprocessing
        assert isinstance(preprocessing, ImagePreprocessing)
        height, width, channels = preprocessing.shape
        return torch.zeros(1, channels, height, width)

    def _cannot(self, why: str) -> UserError:
        return UserError(
            f"'{self._model}': the network of '{self._start.spec.model}' cannot be made narrower: {why}",
            "leave its channels as they are, or take a smaller model of its family as the student",
        )
