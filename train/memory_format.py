"""In which order the maps of a convolutional network lie in memory while it is trained, and why, in words.

Nothing is switched: a preparer gives [N, H, W, C], so what `Normalise` makes of it is channels_last already, and
convolutions keep the order of what they are given (PyTorch, "Channels Last Memory Format"), on processor and GPU.
"""

from __future__ import annotations

import torch
from torch import nn

from serve.manifest import ImagePreprocessing
from train.classifier import Classifier


def memory_format(classifier: Classifier) -> str | None:
    """What to say of a classifier of images that has convolutions, found on an example; None of any other."""
    if not isinstance(classifier.spec.preprocessing, ImagePreprocessing):
        return None
    kept = _kept(classifier)
    if not kept:
        return None
    if all(kept):
        return "convolutions in channels_last: images are decoded so, a pixel's channels side by side, and they keep it"
    return (
        f"{sum(kept)} of {len(kept)} convolutions in channels_last: images are decoded so, and what the network does "
        "before the others puts each channel by itself"
    )


@torch.no_grad()
def _kept(classifier: Classifier) -> list[bool]:
    """Whether the output [N, C, H, W] of each convolution lies as channels_last; one value or channel is both."""
    kept: list[bool] = []

    def note(_: nn.Module, __: object, made: torch.Tensor) -> None:
        kept.append(made.is_contiguous(memory_format=torch.channels_last))

    hooks = [module.register_forward_hook(note) for module in classifier.modules() if isinstance(module, nn.Conv2d)]
    try:
        if hooks:
            classifier.eval()(classifier.example(1))
    finally:
        for hook in hooks:
            hook.remove()
    return kept
