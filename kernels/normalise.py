"""Images from uint8 to what a network takes, in one pass: flipped, mixed with a partner, and normalised.

    y = scale * round(share * x' + (1 - share) * x'_partner) + shift,  x' the image, mirrored left for right if asked

images uint8 [B, H, W, C] or [B, C, H, W], scale and shift fp32 [C] (1 / (255 std) and -mean / std), y [B, C, H, W], in
memory in the order of the input: channels_last for the first. A mixed pixel is rounded to a grey level, as where images
are mixed before they are normalised (Mixup: Zhang et al. 2017, arXiv 1710.09412). Memory-bound: one byte read and two
written a pixel's channel in half precision, another byte read where it is mixed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.ahead import Build
from kernels.runtime import jit, runs_triton, tl, triton
from kernels.tuning import Sizes, Tunable

Layout = Literal["NHWC", "NCHW"]
OUTPUTS = (torch.bfloat16, torch.float16, torch.float32)


def normalise(
    images: Tensor,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "NHWC",
    flip: Tensor | None = None,
    partner: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """y [B, C, H, W] of `dtype` (bfloat16, float16 or float32) of the module's formula.

    `flip` bool [B]: which are mirrored. `partner` int64 [B] and `share` fp32 [B]: with which image of the batch, itself
    mirrored or not, each is mixed, and what part stays its own. These three may be on the CPU, where to check partners
    and shares costs nothing; on a GPU it waits for the GPU. Raises ValueError for what does not fit, a partner outside
    of the batch, and a share outside of 0 to 1.
    """
    y = _normalise(images, scale, shift, dtype, layout, flip, partner, share)
    return y.permute(0, 3, 1, 2) if layout == "NHWC" else y


def reference(
    images: Tensor,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "NHWC",
    flip: Tensor | None = None,
    partner: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """The same in plain PyTorch, computed in fp32."""
    y = _plain(images, scale, shift, dtype, layout, flip, partner, share)
    return y.permute(0, 3, 1, 2) if layout == "NHWC" else y


def builds() -> list[Build]:
    """Photographs and CIFAR's images, plain and mixed, and planes of channels."""
    kinds: list[tuple[int, Layout, str, bool]]
    kinds = [(224, "NHWC", "bf16", True), (224, "NHWC", "bf16", False), (224, "NHWC", "fp16", True)]
    kinds += [(32, "NHWC", "bf16", True), (224, "NCHW", "bf16", True), (224, "NHWC", "fp32", False)]
    return [_build(*kind, chosen) for kind in kinds for chosen in PIXELS.committed("u8", P=kind[0] ** 2 * 3)]


def _sizes(P: int) -> Sizes:
    """2,048 of the P values of an image a program, one 128-bit load of a thread; more take registers when mixed."""
    return {"BLOCK": min(max(1 << (P - 1).bit_length(), 32), 2048), "num_warps": 4, "num_stages": 2}


def _tried(P: int) -> list[Sizes]:
    return [
        {"BLOCK": block, "num_warps": warps, "num_stages": 2}
        for block in (1024, 2048, 4096, 8192)
        if block <= max(2 * P, 1024)
        for warps in (2, 4, 8)
        if 8 <= block // (32 * warps) <= 64
    ]


PIXELS = Tunable("normalise", _sizes, _tried)
TUNABLES = (PIXELS,)


@torch.library.custom_op("limbeck::normalise", mutates_args=())
def _normalise(
    images: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, layout: str, flip: Tensor | None,
    partner: Tensor | None, share: Tensor | None,
) -> Tensor:  # fmt: skip
    """y in the order of `images`."""
    _check(images, scale, shift, dtype, layout, flip, partner, share)
    device = images.device
    flip, partner, share = (
        None if each is None else each.to(device, non_blocking=True) for each in (flip, partner, share)
    )
    if not runs_triton(images):
        return _plain(images, scale, shift, dtype, layout, flip, partner, share).contiguous()
    y = torch.empty(images.shape, dtype=dtype, device=device)
    if y.numel():
        images, values = images.contiguous(), images[0].numel()
        channels, width = (images.shape[3], images.shape[2]) if layout == "NHWC" else (images.shape[1], images.shape[3])
        chosen = PIXELS.sizes(images, P=values)
        flags = None if flip is None else flip.contiguous().view(torch.int8)
        partner, share = (None if each is None else each.contiguous() for each in (partner, share))
        _kernel[(len(images), triton.cdiv(values, chosen["BLOCK"]))](
            *(images, scale.contiguous(), shift.contiguous(), y),
            *(each if each is not None else images for each in (flags, partner, share)),
            P=values, W=width, C=channels, LAST=layout == "NHWC", FLIP=flip is not None, MIX=partner is not None,
            **chosen,
        )  # fmt: skip
    return y


@_normalise.register_fake
def _(
    images: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, layout: str, flip: Tensor | None,
    partner: Tensor | None, share: Tensor | None,
) -> Tensor:  # fmt: skip
    return torch.empty(images.shape, dtype=dtype, device=images.device)


@jit
def _pixels(
    images_ptr, flip_ptr, image, at, there, P: tl.constexpr, W: tl.constexpr, STEP: tl.constexpr, FLIP: tl.constexpr
):  # fmt: skip
    """The values `at` of an image as fp32, from the mirrored places where it is flipped."""
    base = images_ptr + image * P
    if FLIP:
        if tl.load(flip_ptr + image) != 0:
            pixel = at // STEP  # STEP values lie between one column and the next
            at = (pixel + (W - 1) - 2 * (pixel % W)) * STEP + at % STEP
            values = tl.load(base + at, mask=there, other=0)  # byte by byte, next to each other within a warp
        else:
            values = tl.load(base + at, mask=there, other=0)
    else:
        values = tl.load(base + at, mask=there, other=0)
    return values.to(tl.float32)


@jit
def _kernel(
    images_ptr, scale_ptr, shift_ptr, y_ptr, flip_ptr, partner_ptr, share_ptr,
    P: tl.constexpr, W: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr, FLIP: tl.constexpr, MIX: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)  # int64: B * P may pass 2^31; the first axis has no limit of 65,535
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < P
    step: tl.constexpr = C if LAST else 1
    x = _pixels(images_ptr, flip_ptr, image, at, there, P, W, step, FLIP)
    if MIX:
        share = tl.load(share_ptr + image)
        if share < 1.0:
            other = _pixels(images_ptr, flip_ptr, tl.load(partner_ptr + image), at, there, P, W, step, FLIP)
            x = (share * x + (1.0 - share) * other + 12582912.0) - 12582912.0  # 1.5 * 2^23 rounds, ties to even
    channel = at % C if LAST else at // (P // C)
    if C <= 4:  # picked, for two loads a value would cost more than the image
        scale, shift = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for each in tl.static_range(C):
            scale = tl.where(channel == each, tl.load(scale_ptr + each), scale)
            shift = tl.where(channel == each, tl.load(shift_ptr + each), shift)
    else:
        scale = tl.load(scale_ptr + channel, mask=there, other=0.0)
        shift = tl.load(shift_ptr + channel, mask=there, other=0.0)
    tl.store(y_ptr + image * P + at, x * scale + shift, mask=there)


def _plain(
    images: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, layout: str, flip: Tensor | None,
    partner: Tensor | None, share: Tensor | None,
) -> Tensor:  # fmt: skip
    column = 2 if layout == "NHWC" else 3
    x = images
    if flip is not None:
        x = torch.where(flip.view(-1, 1, 1, 1), x.flip(column), x)
    x = x.float()
    if partner is not None and share is not None:
        part = share.view(-1, 1, 1, 1)
        x = (part * x + (1 - part) * x[partner]).round()
    shape = (1, 1, 1, -1) if layout == "NHWC" else (1, -1, 1, 1)
    return (x * scale.view(shape) + shift.view(shape)).to(dtype)


def _check(
    images: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype, layout: str, flip: Tensor | None,
    partner: Tensor | None, share: Tensor | None,
) -> None:  # fmt: skip
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"normalise: layout is {layout!r}: expected 'NHWC' or 'NCHW'")
    if dtype not in OUTPUTS:
        raise ValueError(f"normalise: dtype is {_name(dtype)}: expected one of {', '.join(map(_name, OUTPUTS))}")
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        found, wanted = f"{_name(images.dtype)} {tuple(images.shape)}", ", ".join(f"B{layout[1:]}")
        raise ValueError(f"normalise: images are {found}: expected uint8 [{wanted}]")
    if (partner is None) != (share is None):
        raise ValueError("normalise: of partner and share one is None: expected both or neither")
    count, channels = len(images), images.shape[3 if layout == "NHWC" else 1]
    expected = {
        "scale": (scale, channels, torch.float32),
        "shift": (shift, channels, torch.float32),
        "flip": (flip, count, torch.bool),
        "partner": (partner, count, torch.int64),
        "share": (share, count, torch.float32),
    }
    for name, (tensor, size, kind) in expected.items():
        if tensor is not None and (tensor.dtype != kind or tensor.shape != (size,)):
            found = f"{_name(tensor.dtype)} {tuple(tensor.shape)}"
            raise ValueError(f"normalise: {name} is {found}: expected {_name(kind)} ({size},)")
    if scale.device != images.device or shift.device != images.device:
        raise ValueError(f"normalise: images are on {images.device}, scale on {scale.device}, shift on {shift.device}")
    if partner is None or share is None or not count:
        return
    least, most = (int(each) for each in partner.aminmax())
    if least < 0 or most >= count:
        raise ValueError(f"normalise: partners are {least} to {most}: expected 0 to {count - 1}")
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError("normalise: a share is outside of 0 to 1")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _build(side: int, layout: Layout, written: str, mixed: bool, chosen: Sizes) -> Build:
    pointers = {"images_ptr": "*u8", "scale_ptr": "*fp32", "shift_ptr": "*fp32", "y_ptr": f"*{written}"}
    shape = {"P": side * side * 3, "W": side, "C": 3, "LAST": layout == "NHWC", "FLIP": mixed, "MIX": mixed}
    return Build.sized(
        f"normalise {written} {layout} {side}x{side}{' flip mix' * mixed}",
        _kernel,
        pointers | {"flip_ptr": "*i8", "partner_ptr": "*i64", "share_ptr": "*fp32"},
        shape,
        chosen,
    )
