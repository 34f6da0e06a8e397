"""`--shard`: parameters, gradients and the optimizer's state of a model, split over the processes that train it.

torch's FSDP2 (`torch.distributed.fsdp.fully_shard`; ZeRO stage 3, Rajbhandari et al. 2020, arXiv 1910.02054). Each
process keeps its rows of every parameter, and has a layer whole only while that computes. What is written is whole,
under the names that it has in one process, so a training may go on sharded or not, and in another number of processes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import DistillConfig
from train.fit_config import FitConfig
from train.models.layer_stack import layer_stack

_CANNOT = "leave it out, or train without --shard"


def check_sharded(name: str, config: FitConfig, distill: DistillConfig | None) -> None:
    """Raise UserError for settings that need each process to have the model whole; `name` is the model's."""
    if config.epochs == 0:
        return
    given = {
        "l1": config.l1 > 0,
        "unfreeze": config.unfreeze is not None,
        "compile": config.compile,
        "optimizer = 'adafactor'": config.optimizer == "adafactor",
        "precision = 'fp16'": config.precision == "fp16",
    }
    for setting in (setting for setting, is_given in given.items() if is_given):
        raise UserError(f"'{name}': fit.{setting} cannot be trained with --shard", _CANNOT)
    if distill is not None and distill.features:
        raise UserError(f"'{name}': [[students.distill.features]] cannot be trained with --shard", _CANNOT)


def sharded_copy(classifier: Classifier, device: torch.device) -> Classifier:
    """The same model, split over all processes on `device`, to be trained in its stead; all have to call it.

    A layer is gathered at a time; what is no layer, with the rest.
    """
    model = copy.deepcopy(classifier)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in _layers(model.network):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.register_load_state_dict_pre_hook(_split_weights)
    return model


def whole(content: Any) -> Any:
    """A state with every split tensor gathered, on the CPU; all processes have to call it."""
    if isinstance(content, DTensor):
        return content.full_tensor().detach().cpu()
    if isinstance(content, dict):
        return {key: whole(value) for key, value in content.items()}
    if isinstance(content, list):
        return [whole(value) for value in content]
    return content


def split(content: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, where `like` is split and has the same shape."""
    if isinstance(content, DTensor) or not isinstance(like, DTensor) or content.shape != like.shape:
        return content
    # all have it: nothing is sent
    return distribute_tensor(content.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def take_whole_optimizer_states(optimizer: torch.optim.Optimizer) -> None:
    """From now on `optimizer.load_state_dict` splits what it is given as its parameters are split."""
    optimizer.register_load_state_dict_pre_hook(_split_optimizer)


def _layers(network: nn.Module) -> list[nn.Module]:
    """The members of the largest stack of numbered modules; none where there is no such stack."""
    try:
        stack = network.get_submodule(layer_stack(network.state_dict()))
    except ValueError:
        return []
    return [layer for layer in stack.children() if any(True for _ in layer.parameters())]


def _split_weights(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before weights are loaded: from files, or, as they were before, split already."""
    for name, value in model.state_dict().items():
        if prefix + name in state:
            state[prefix + name] = split(state[prefix + name], value)


def _split_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    like = dict(zip(numbers, parameters, strict=True))
    found = {
        number: {
            name: split(value, like[number]) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": found}
