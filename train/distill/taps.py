"""Reads what passes inside a model, by hooks, so that no network has to return more than its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Taps:
    """The outputs of some modules, and what entered some, as of the model's last forward pass."""

    def __init__(self, modules: Mapping[str, nn.Module], entered: Mapping[str, nn.Module] | None = None) -> None:
        self._seen: dict[str, torch.Tensor] = {}
        self._hooks = [module.register_forward_hook(self._keep(name)) for name, module in modules.items()]
        for name, module in (entered or {}).items():
            self._hooks.append(module.register_forward_pre_hook(self._keep_entered(name), with_kwargs=True))

    def __getitem__(self, name: str) -> torch.Tensor:
        """What the tap called `name` saw, in fp32 whatever autocast made of it."""
        return self._seen[name].float()

    def has(self, name: str) -> bool:
        """Whether there is a tap of this name, and it has seen something."""
        return name in self._seen

    def clear(self) -> None:
        """Let go of the tensors, and with them of the graph behind them."""
        self._seen.clear()

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self.clear()

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._seen[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def _keep_entered(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, named: Any) -> None:
            self._seen[name] = inputs[0] if inputs else named["hidden_states"]

        return keep
