"""Photographs from uint8 to bf16: normalised and flipped, and mixed besides. A row is an image."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import normalise as module
from kernels.bench.case import COMPILE, Case, Inputs, Target

SIDE, IMAGES = 224, 1792
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TORCHVISION = "torchvision v2"
_A_LEVEL = 20.0  # multiples of bf16's tolerance: a mixed value halfway between two grey levels may become either


def cases() -> list[Case]:
    return [_flipped(), _mixed()]


def _ours(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    return module.normalise(images, scale, shift, torch.bfloat16, flip=flip)


def _plain(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    turned = torch.where(flip[:, None, None, None], images.flip(2), images)
    return _narrow(turned * scale + shift)


def _torchvision(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as v2

    planes = images.permute(0, 3, 1, 2)
    planes = torch.where(flip[:, None, None, None], v2.horizontal_flip(planes), planes)
    return v2.normalize(v2.to_dtype(planes, torch.float32, scale=True), list(MEAN), list(STD)).to(torch.bfloat16)


def _ours_mixed(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    return module.normalise(images, scale, shift, torch.bfloat16, flip=flip, partner=partner, share=share)


def _plain_mixed(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    turned = torch.where(flip[:, None, None, None], images.flip(2), images)
    own = share.to(images.device)[:, None, None, None].to(scale.dtype)
    mixed = torch.round(own * turned + (1 - own) * turned[partner.to(images.device)])
    return _narrow(mixed * scale + shift)


def _narrow(y: Tensor) -> Tensor:
    """[B, C, H, W] in bf16, or in fp64 as it is."""
    return y.permute(0, 3, 1, 2) if y.dtype == torch.float64 else y.permute(0, 3, 1, 2).to(torch.bfloat16)


def _flipped() -> Case:
    return Case(
        kernel="normalise",
        name=f"uint8 to bf16, flipped, {SIDE} x {SIDE}",
        dtype=torch.uint8,
        rows=IMAGES,
        make=lambda rows, device: _inputs(rows, device),
        ours=_ours,
        plain=_plain,
        moved=lambda inputs: 3 * inputs[0].numel(),  # a byte is read and two are written
        fixed=True,
        targets=(Target("roof", 0.8), Target(TORCHVISION, 3.0)),
        others=((TORCHVISION, _torchvision),),
        tunes=(module.PIXELS,),
        dimensions=(("P", 3 * SIDE**2),),
    )


def _mixed() -> Case:
    return Case(
        kernel="normalise",
        name=f"uint8 to bf16, flipped and mixed, {SIDE} x {SIDE}",
        dtype=torch.uint8,
        rows=IMAGES,
        make=lambda rows, device: (*_inputs(rows, device), torch.randperm(rows), torch.rand(rows)),
        ours=_ours_mixed,
        plain=_plain_mixed,
        moved=lambda inputs: 4 * inputs[0].numel(),  # the partner's byte is read besides
        fixed=True,
        tolerated=_A_LEVEL,
        waits=True,
        targets=(Target("roof", 0.8), Target(COMPILE, 1.0)),
    )


def _inputs(rows: int, device: torch.device) -> Inputs:
    images = torch.randint(0, 256, (rows, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    scale = torch.tensor([1 / (255 * std) for std in STD], device=device)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)], device=device)
    return images, scale, shift, torch.rand(rows, device=device) < 0.5
