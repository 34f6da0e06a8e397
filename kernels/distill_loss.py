"""Soft targets + cross-entropy, the gradient of both and what a curve shows of them, in one pass over the logits.

    q = softmax(t / T),  p = softmax(s / T),  p1 = softmax(s),  y = (1 - e) onehot(label) + e / K
    soft = T^2 sum over the items of KL(q || p)                  (Hinton et al. 2015, arXiv 1503.02531, section 2)
    hard = sum over the labelled items of -sum_k y_k log p1_k    (e: label smoothing, Szegedy et al. 2016)
    loss = alpha soft + beta hard,   dloss/ds = alpha T (p - q) + beta (p1 - y)

s, t [N, K], label [N], T^2, alpha and beta as they stand: sums over the batch, divided by nothing. A mean over the
items is had by dividing alpha and beta by N, which costs nothing. Student and teacher may have different dtypes; all
arithmetic is in fp32.

Memory-bound: s and t are read once and ds is written once (K <= 4096); twice and once above, where a row's sums come
online in a first sweep (Milakov & Gimelshein 2018, arXiv 1805.02867). The kernels are in `distill_loss_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from kernels import early_gradient
from kernels.arguments import DTYPES, rows_of
from kernels.distill_loss_kernels import PARTS, TUNABLES, builds, launch
from kernels.runtime import runs_triton

__all__ = ["IGNORED", "TUNABLES", "DistillLoss", "builds", "distill_loss", "reference"]

IGNORED = -100  # in the place of a label, as in torch's cross_entropy


class Counts(NamedTuple):
    """The parts of a loss in plain numbers, as the properties of `DistillLoss` say."""

    soft: float
    hard: float
    student_right: int
    teacher_right: int
    agreed: int
    labelled: int


class DistillLoss(NamedTuple):
    """`loss` [] can be differentiated; `parts` [8] are what the properties name, on the device, without a wait.

    A GPU is not waited for to look at what it is given. So `counted` is where bad labels and logits become an error.
    """

    loss: torch.Tensor
    parts: torch.Tensor
    classes: int
    ignored: int

    @property
    def soft(self) -> torch.Tensor:
        """T^2 * sum of KL(teacher || student), without alpha."""
        return self.parts[0]

    @property
    def hard(self) -> torch.Tensor:
        """The sum of the cross-entropy, without beta."""
        return self.parts[1]

    @property
    def student_right(self) -> torch.Tensor:
        """How many labelled items the student's highest logit has right; of equal ones the first counts."""
        return self.parts[2]

    @property
    def teacher_right(self) -> torch.Tensor:
        """The same of the teacher."""
        return self.parts[3]

    @property
    def agreed(self) -> torch.Tensor:
        """For how many items, labelled or not, both have their highest logit in the same place."""
        return self.parts[4]

    @property
    def labelled(self) -> torch.Tensor:
        """How many items have a label."""
        return self.parts[5]

    @property
    def strange(self) -> torch.Tensor:
        """How many of these labels are no class, which makes the loss NaN."""
        return self.parts[6]

    @property
    def broken(self) -> torch.Tensor:
        """How many rows of student or teacher have no probabilities, which makes the loss NaN."""
        return self.parts[7]

    def counted(self) -> Counts:
        """All parts at once in plain numbers: here the host waits for the device.

        Raises ValueError where labels are out of range, and where rows of logits have NaN, inf or nothing but -inf.
        """
        soft, hard, *counts = self.parts.tolist()
        *counted, strange, broken = map(int, counts)
        if strange:
            raise ValueError(_out_of_range(f"{strange} of {counted[-1]} labels are", self.classes, self.ignored))
        if broken:
            raise ValueError(
                f"distill_loss: {broken} rows of the logits of student or teacher have no probabilities: expected "
                "finite logits, or -inf for classes that cannot be, but not for all; look at what made NaN or inf"
            )
        return Counts(soft, hard, *counted)


def distill_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 1.0,
    label_smoothing: float = 0.0,
    ignored: int = IGNORED,
) -> DistillLoss:
    """alpha * soft + beta * hard of logits [N, K] and labels int64 [N]: fp32 (fp64 where a tensor is).

    Items whose label is `ignored`, or all without `labels`, have no hard part. Only `student` gets a gradient. A row
    with NaN, inf or nothing but -inf makes the loss NaN. A class that the teacher rules out adds nothing; one that the
    student alone rules out makes the loss infinite, as the divergence is.

    Raises ValueError for shapes, dtypes, devices or settings that do not fit, and on a CPU for a label outside
    [0, K). On a GPU, where looking would mean waiting, such a label reads no memory and makes the loss NaN, and
    `counted` raises that error, without another wait than its own.
    """
    _check(student, teacher, labels, temperature, label_smoothing, ignored)
    wants_gradient = early_gradient.wanted(student)
    settings = temperature, alpha, beta, label_smoothing, ignored
    loss, parts, _ = _forward(student, teacher.detach(), labels, *settings, wants_gradient)
    return DistillLoss(loss, parts, student.shape[1], ignored)


def reference(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 1.0,
    label_smoothing: float = 0.0,
    ignored: int = IGNORED,
) -> DistillLoss:
    """The same in plain PyTorch, for autograd."""
    wide = _wide(student, teacher)
    s, t = student.to(wide), teacher.detach().to(wide)
    log_p, log_q = F.log_softmax(s / temperature, dim=1), F.log_softmax(t / temperature, dim=1)
    q = log_q.exp()
    soft = temperature**2 * torch.where(q == 0, 0, q * (log_q - log_p)).sum()
    counted = labels if labels is not None else s.new_full((len(s),), ignored, dtype=torch.long)
    # torch refuses a label out of range on a CPU, and asserts on a GPU, after which nothing runs there any more
    inside = (counted >= 0) & (counted < s.shape[1]) | (counted == ignored)
    safe = torch.where(inside, counted, 0)
    each = F.cross_entropy(s, safe, ignore_index=ignored, label_smoothing=label_smoothing, reduction="none")
    hard = torch.where(inside, each, torch.nan).sum()
    with torch.no_grad():
        labelled, top, their_top = counted != ignored, _top(s), _top(t)
        right = [(each == counted) & labelled & inside for each in (top, their_top)]
        others = (top == their_top) & (top >= 0), labelled, ~inside, (top < 0) | (their_top < 0)
        parts = torch.stack([soft.detach(), hard.detach(), *(each.sum().to(wide) for each in (*right, *others))])
    return DistillLoss(alpha * soft + beta * hard, parts, s.shape[1], ignored)


@torch.library.custom_op("limbeck::distill_loss", mutates_args=())
def _forward(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    alpha: float,
    beta: float,
    label_smoothing: float,
    ignored: int,
    wants_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """loss [], parts [8] and the gradient [N, K], [0] where it is not wanted."""
    _check_range(labels, student.shape[1], ignored)
    settings = temperature, alpha, beta, label_smoothing, ignored
    if _wide(student, teacher) == torch.float64 or not runs_triton(student):
        loss, parts, *_ = reference(student, teacher, labels, *settings)
        gradient = early_gradient.kept(student, wants_gradient)
        if wants_gradient:
            gradient.copy_(_reference_gradient(student, teacher, labels, *settings))
        return loss, parts, gradient
    loss, parts = (torch.empty(shape, dtype=torch.float32, device=student.device) for shape in ((), (PARTS,)))
    gradient = early_gradient.kept(student, wants_gradient)
    kept_labels = None if labels is None else labels.contiguous()
    launch(rows_of(student), rows_of(teacher), kept_labels, loss, parts, gradient, *settings)
    return loss, parts, gradient


@_forward.register_fake
def _(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    alpha: float,
    beta: float,
    label_smoothing: float,
    ignored: int,
    wants_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = _wide(student, teacher)
    loss, parts = (torch.empty(shape, dtype=wide, device=student.device) for shape in ((), (PARTS,)))
    return loss, parts, early_gradient.kept(student, wants_gradient)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    early_gradient.save(ctx, inputs[0], *output)


def _differentiate(ctx: Any, factor: torch.Tensor | None, *unused: None) -> tuple[torch.Tensor | None, ...]:
    return early_gradient.scaled(ctx, factor), *[None] * 8


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _reference_gradient(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    alpha: float,
    beta: float,
    label_smoothing: float,
    ignored: int,
) -> torch.Tensor:
    """[N, K] by the formula: inside an operator there is no autograd."""
    wide = _wide(student, teacher)
    s, t = student.to(wide), teacher.to(wide)
    gradient = alpha * temperature * (F.softmax(s / temperature, dim=1) - F.softmax(t / temperature, dim=1))
    if labels is None:
        return gradient
    classes = s.shape[1]
    y = (1 - label_smoothing) * (torch.arange(classes, device=s.device) == labels[:, None]) + label_smoothing / classes
    hard = torch.where((labels == ignored)[:, None], 0, F.softmax(s, dim=1) - y)
    strange = (labels != ignored) & ((labels < 0) | (labels >= classes))
    return gradient + beta * hard.masked_fill(strange[:, None], torch.nan)


def _check(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    temperature: float,
    label_smoothing: float,
    ignored: int,
) -> None:
    if student.ndim != 2 or student.shape != teacher.shape or student.shape[1] == 0:
        raise ValueError(
            f"distill_loss: student is {tuple(student.shape)} and teacher {tuple(teacher.shape)}: expected two times "
            "[N, K], with K > 0"
        )
    for name, logits in (("student", student), ("teacher", teacher)):
        if logits.dtype not in DTYPES:
            raise ValueError(f"distill_loss: {name} is {logits.dtype}: expected one of {', '.join(map(str, DTYPES))}")
    if labels is not None and (labels.shape != student.shape[:1] or labels.dtype != torch.int64):
        raise ValueError(
            f"distill_loss: labels are {labels.dtype} {tuple(labels.shape)}: expected torch.int64 ({len(student)},)"
        )
    if len({each.device for each in (student, teacher, labels) if each is not None}) > 1:
        raise ValueError("distill_loss: student, teacher and labels are on different devices: expected one")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"distill_loss: temperature is {temperature}: expected a number above 0")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"distill_loss: label_smoothing is {label_smoothing}: expected 0 to 1")
    if 0 <= ignored < student.shape[1]:
        raise ValueError(f"distill_loss: ignored is {ignored}, a class of {student.shape[1]}: expected none of them")


def _check_range(labels: torch.Tensor | None, classes: int, ignored: int) -> None:
    if labels is None or labels.device.type != "cpu":
        return
    strange = labels[(labels != ignored) & ((labels < 0) | (labels >= classes))]
    if len(strange):
        raise ValueError(_out_of_range(f"label {int(strange[0])} is", classes, ignored))


def _out_of_range(which: str, classes: int, ignored: int) -> str:
    return (
        f"distill_loss: {which} out of range: expected 0 to {classes - 1}, or {ignored} for none; labels count from 0, "
        "and `ignored` says which number stands for none"
    )


def _top(logits: torch.Tensor) -> torch.Tensor:
    """int64 [N]: where the highest logit is; -1 in a row with NaN, inf or nothing but -inf, which has no softmax."""
    top, at = logits.max(dim=1)  # NaN is the highest there is
    return torch.where(top.isfinite(), at, -1)


def _wide(student: torch.Tensor, teacher: torch.Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
