"""The kernels of `distill_loss`: rows that fit into registers, rows that do not, and the sum over the programs."""

from __future__ import annotations

import torch

from kernels.ahead import Build
from kernels.runtime import jit, tl, triton
from kernels.tuning import Sizes, Tunable

PARTS = 8  # soft, hard, student right, teacher right, agreed, labelled, labels out of range, rows without numbers
WIDTH = tl.constexpr(PARTS) if tl else PARTS  # floats of a program's row of partial sums
IN_REGISTERS = 4096  # the most columns
MOST_PROGRAMS = 1056  # 8 for each of an H100's 132 multiprocessors; each goes on with further tiles


def launch(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None,
    loss: torch.Tensor,
    parts: torch.Tensor,
    gradient: torch.Tensor,
    temperature: float,
    alpha: float,
    beta: float,
    label_smoothing: float,
    ignored: int,
) -> None:
    """Fill loss [], parts [8] and gradient [N, K], or [0] for none, from rows [N, K] with adjacent columns."""
    count, columns = student.shape
    tunable, kernel = (IN_SWEEPS, _sweeps_kernel) if columns > IN_REGISTERS else (IN_ROWS, _rows_kernel)
    sizes = tunable.sizes(student, C=columns, ALIGN=_alignment(columns, student.stride(0), teacher.stride(0)))
    programs = min(triton.cdiv(count, sizes["ROWS"]), MOST_PROGRAMS)
    partial = torch.empty(programs, WIDTH, dtype=torch.float32, device=student.device)
    if programs:
        kernel[(programs,)](
            student, teacher, student if labels is None else labels, gradient, partial, count,
            temperature, alpha, beta, label_smoothing, ignored,
            C=columns, S_STRIDE=student.stride(0), T_STRIDE=teacher.stride(0), LABELS=labels is not None,
            GRADIENT=gradient.numel() > 0, **sizes,
        )  # fmt: skip
    _sum_kernel[(1,)](partial, loss, parts, programs, alpha, beta, BLOCK=128)


def builds() -> list[Build]:
    """Classes of CIFAR-10, ImageNet-1k (each dtype, and mixed), the widest rows in registers, and vocabularies."""
    asked = [(10, "fp32", "fp32"), (4096, "bf16", "bf16"), (4096, "fp32", "fp32"), (32768, "bf16", "bf16")]
    asked += [(1000, *pair) for pair in (("bf16", "bf16"), ("fp16", "fp16"), ("fp32", "fp32"), ("bf16", "fp32"))]
    asked += [(65536, "bf16", "bf16"), (50257, "fp32", "fp32"), (2, "fp32", "fp32"), (197, "bf16", "bf16")]
    return [*(build for each in asked for build in _builds(*each)), _sum_build()]


def _row_sizes(C: int, ALIGN: int) -> Sizes:
    """Chosen by arithmetic, measured on no GPU: no spilled register, and of aligned bf16 rows of 1000 at least 20 KB of

    loads in flight on each multiprocessor of an H100. Rows that begin anywhere take smaller loads and more registers.
    """
    block = 1 << (C - 1).bit_length()
    rows = max(1, min((1024 if ALIGN == 8 else 512) // block, 32))
    if ALIGN == 8:
        warps = max(4, block // 256)
    else:
        warps = 4 if block <= 512 else min(block // 128, 16)
    return {"ROWS": rows, "BLOCK": block, "STAGES": 2, "num_warps": warps}


def _sweep_sizes(C: int, ALIGN: int) -> Sizes:
    return {"ROWS": 1, "BLOCK": 4096 if ALIGN == 8 else 1024, "STAGES": 2, "num_warps": 8}


def _rows_tried(C: int, ALIGN: int) -> list[Sizes]:
    block = 1 << (C - 1).bit_length()
    return [
        {"ROWS": max(1, elements // block), "BLOCK": block, "STAGES": stages, "num_warps": warps}
        for elements in sorted({max(512, block), max(1024, block), max(2048, block)})
        for stages in (1, 2, 3, 4)
        for warps in (4, 8, 16)
        if 4 <= max(elements, block) // (32 * warps) <= 16
    ]


def _sweeps_tried(C: int, ALIGN: int) -> list[Sizes]:
    return [
        {"ROWS": 1, "BLOCK": block, "STAGES": stages, "num_warps": warps}
        for block in (1024, 2048, 4096, 8192)
        for stages in (1, 2, 3)
        for warps in (4, 8, 16)
        if 4 <= block // (32 * warps) <= 16
    ]


IN_ROWS = Tunable("distill_loss rows", _row_sizes, _rows_tried)
IN_SWEEPS = Tunable("distill_loss sweeps", _sweep_sizes, _sweeps_tried)
TUNABLES = (IN_ROWS, IN_SWEEPS)


def _alignment(*strides: int) -> int:
    """How many elements may be loaded at once, 8 or 1, where rows begin at multiples of these."""
    return 8 if all(stride % 8 == 0 for stride in strides) else 1


@jit
def _rows_kernel(
    student_ptr, teacher_ptr, labels_ptr, gradient_ptr, partial_ptr, count,
    temperature, alpha, beta, smoothing, ignored,
    C: tl.constexpr, S_STRIDE: tl.constexpr, T_STRIDE: tl.constexpr, LABELS: tl.constexpr, GRADIENT: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    cool = 1.0 / temperature  # a division of each element would cost as much as an exponential
    soft, hard, mine, theirs, agreed, labelled, strange, broken = _zeros(ROWS)
    for tile in tl.range(program, tl.cdiv(count, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = tl.arange(0, ROWS).to(tl.int64) + tile * ROWS  # int64: N * K may pass 2^31
        real = row < count
        inside = real[:, None] & (column < C)[None, :]
        at_student = student_ptr + row[:, None] * S_STRIDE
        s = tl.load(at_student + column[None, :], mask=inside, other=float("-inf")).to(tl.float32)
        t = tl.load(teacher_ptr + row[:, None] * T_STRIDE + column[None, :], mask=inside, other=float("-inf"))
        t = t.to(tl.float32)
        label, has, known, at_label = _labels(labels_ptr, student_ptr, row, real, ignored, C, S_STRIDE, LABELS)

        # 1. what softmax needs of a row; rows past the end are of zeros, so that no NaN comes out of them
        s, t = tl.where(real[:, None], s, 0.0), tl.where(real[:, None], t, 0.0)
        s_top, t_top = tl.max(s, axis=1), tl.max(t, axis=1)
        s_soft, t_soft = (s - s_top[:, None]) * cool, (t - t_top[:, None]) * cool
        p, q, p1 = tl.exp(s_soft), tl.exp(t_soft), tl.exp(s - s_top[:, None])
        p_sum, q_sum, p1_sum = tl.sum(p, axis=1), tl.sum(q, axis=1), tl.sum(p1, axis=1)

        # 2. the parts of the loss
        q = q * (1.0 / q_sum)[:, None]
        apart = (t_soft - s_soft) + tl.log(p_sum / q_sum)[:, None]  # log q - log p
        divergence = tl.sum(tl.where(q == 0.0, 0.0, q * apart), axis=1)
        mean = tl.sum(tl.where(inside, s, 0.0), axis=1) / C
        entropy = tl.log(p1_sum) + s_top - (1.0 - smoothing) * at_label
        entropy = tl.where(smoothing > 0.0, entropy - smoothing * mean, entropy)  # -inf * 0 would be NaN
        soft += tl.where(real, temperature * temperature * divergence, 0.0)
        hard += tl.where(has, tl.where(known, entropy, float("nan")), 0.0)

        # 3. counters
        s_at = tl.min(tl.where(s == s_top[:, None], column[None, :], C), axis=1)
        t_at = tl.min(tl.where(t == t_top[:, None], column[None, :], C), axis=1)
        # a sum is NaN where a logit is NaN or inf, and NaN or 0 of nothing but -inf: of such a row nothing is right
        s_sound, t_sound = p_sum > 0.0, q_sum > 0.0
        s_at, t_at = tl.where(s_sound, s_at, -1), tl.where(t_sound, t_at, -2)
        mine += tl.where(has & known & (s_at == label), 1.0, 0.0)
        theirs += tl.where(has & known & (t_at == label), 1.0, 0.0)
        agreed += tl.where(real & (s_at == t_at), 1.0, 0.0)
        labelled += tl.where(has, 1.0, 0.0)
        strange += tl.where(has & (known == 0), 1.0, 0.0)
        broken += tl.where(real & ((s_sound & t_sound) == 0), 1.0, 0.0)

        # 4. the gradient
        if GRADIENT:
            g = alpha * temperature * (p * (1.0 / p_sum)[:, None] - q)
            if LABELS:
                y = tl.where(column[None, :] == label[:, None], 1.0 - smoothing, 0.0) + smoothing / C
                g_hard = tl.where(known[:, None], beta * (p1 * (1.0 / p1_sum)[:, None] - y), float("nan"))
                g += tl.where(has[:, None], g_hard, 0.0)
            tl.store(gradient_ptr + row[:, None] * C + column[None, :], g, mask=inside)
    _store(partial_ptr, program, soft, hard, mine, theirs, agreed, labelled, strange, broken)


# Over 60 lines: both sweeps keep their sums in the registers of one program, and a helper would take and give back
# a dozen.
@jit
def _sweeps_kernel(
    student_ptr, teacher_ptr, labels_ptr, gradient_ptr, partial_ptr, count,
    temperature, alpha, beta, smoothing, ignored,
    C: tl.constexpr, S_STRIDE: tl.constexpr, T_STRIDE: tl.constexpr, LABELS: tl.constexpr, GRADIENT: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    cool = 1.0 / temperature  # a division of each element would cost as much as an exponential
    soft, hard = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    part = tl.arange(0, WIDTH)
    counts = tl.zeros([WIDTH], tl.float32)  # one register of a thread, where six would spill
    for tile in range(program, tl.cdiv(count, ROWS), tl.num_programs(0)):
        row = tl.arange(0, ROWS).to(tl.int64) + tile * ROWS
        real = row < count
        label, has, known, at_label = _labels(labels_ptr, student_ptr, row, real, ignored, C, S_STRIDE, LABELS)
        at_student, at_teacher = student_ptr + row[:, None] * S_STRIDE, teacher_ptr + row[:, None] * T_STRIDE

        # 1. the sums of the softmaxes, each relative to the highest logit so far
        s_top, t_top = tl.full([ROWS], float("-inf"), tl.float32), tl.full([ROWS], float("-inf"), tl.float32)
        p_sum, q_sum, p1_sum, mean, _, _, _, _ = _zeros(ROWS)
        s_at, t_at = tl.zeros([ROWS], tl.int32), tl.zeros([ROWS], tl.int32)
        for start in tl.range(0, C, BLOCK, num_stages=STAGES):
            column = tl.arange(0, BLOCK) + start
            inside = real[:, None] & (column < C)[None, :]
            s = tl.load(at_student + column[None, :], mask=inside, other=float("-inf")).to(tl.float32)
            t = tl.load(at_teacher + column[None, :], mask=inside, other=float("-inf")).to(tl.float32)
            s_high, t_high = tl.max(s, axis=1), tl.max(t, axis=1)
            s_here = tl.min(tl.where(s == s_high[:, None], column[None, :], C), axis=1)
            t_here = tl.min(tl.where(t == t_high[:, None], column[None, :], C), axis=1)
            s_at, t_at = tl.where(s_high > s_top, s_here, s_at), tl.where(t_high > t_top, t_here, t_at)
            s_high, t_high = tl.maximum(s_high, s_top), tl.maximum(t_high, t_top)
            # before the first finite logit all is -inf, and -inf - -inf would be NaN
            s_from = tl.where(s_high == float("-inf"), 0.0, s_high)
            t_from = tl.where(t_high == float("-inf"), 0.0, t_high)
            p_sum *= tl.exp((s_top - s_from) * cool)
            q_sum *= tl.exp((t_top - t_from) * cool)
            p1_sum *= tl.exp(s_top - s_from)
            p_sum += tl.sum(tl.exp((s - s_from[:, None]) * cool), axis=1)
            q_sum += tl.sum(tl.exp((t - t_from[:, None]) * cool), axis=1)
            p1_sum += tl.sum(tl.exp(s - s_from[:, None]), axis=1)
            mean += tl.sum(tl.where(inside, s, 0.0), axis=1)
            s_top, t_top = s_high, t_high

        # 2. what needs the whole sums: the hard part and the counters
        entropy = tl.log(p1_sum) + s_top - (1.0 - smoothing) * at_label
        entropy = tl.where(smoothing > 0.0, entropy - smoothing * mean / C, entropy)
        hard += tl.where(has, tl.where(known, entropy, float("nan")), 0.0)
        s_sound, t_sound = p_sum > 0.0, q_sum > 0.0
        s_at, t_at = tl.where(s_sound, s_at, -1), tl.where(t_sound, t_at, -2)
        counts += tl.where(part == 2, _number(has & known & (s_at == label)), 0.0)
        counts += tl.where(part == 3, _number(has & known & (t_at == label)), 0.0)
        counts += tl.where(part == 4, _number(real & (s_at == t_at)), 0.0)
        counts += tl.where(part == 5, _number(has), 0.0)
        counts += tl.where(part == 6, _number(has & (known == 0)), 0.0)
        counts += tl.where(part == 7, _number(real & ((s_sound & t_sound) == 0)), 0.0)

        # 3. the soft part, where both logarithms are exact, and the gradient
        between = tl.log(p_sum / q_sum)
        p_share, q_share, p1_share = 1.0 / p_sum, 1.0 / q_sum, 1.0 / p1_sum
        divergence = tl.zeros([ROWS], tl.float32)
        for start in tl.range(0, C, BLOCK, num_stages=STAGES):
            column = tl.arange(0, BLOCK) + start
            inside = real[:, None] & (column < C)[None, :]
            s = tl.load(at_student + column[None, :], mask=inside, other=float("-inf")).to(tl.float32) - s_top[:, None]
            t = tl.load(at_teacher + column[None, :], mask=inside, other=float("-inf")).to(tl.float32) - t_top[:, None]
            s_soft, t_soft = s * cool, t * cool
            q = tl.exp(t_soft) * q_share[:, None]
            divergence += tl.sum(tl.where(q == 0.0, 0.0, q * (t_soft - s_soft + between[:, None])), axis=1)
            if GRADIENT:
                g = alpha * temperature * (tl.exp(s_soft) * p_share[:, None] - q)
                if LABELS:
                    y = tl.where(column[None, :] == label[:, None], 1.0 - smoothing, 0.0) + smoothing / C
                    g_hard = tl.where(known[:, None], beta * (tl.exp(s) * p1_share[:, None] - y), float("nan"))
                    g += tl.where(has[:, None], g_hard, 0.0)
                tl.store(gradient_ptr + row[:, None] * C + column[None, :], g, mask=inside)
        soft += tl.where(real, temperature * temperature * divergence, 0.0)
    both = tl.where(part == 0, tl.sum(soft, axis=0), 0.0) + tl.where(part == 1, tl.sum(hard, axis=0), 0.0)
    tl.store(partial_ptr + program * WIDTH + part, both + counts)


@jit
def _number(flags):
    return tl.sum(tl.where(flags, 1.0, 0.0), axis=0)


@jit
def _zeros(ROWS: tl.constexpr):
    zero = tl.zeros([ROWS], dtype=tl.float32)
    return zero, zero, zero, zero, zero, zero, zero, zero


@jit
def _labels(labels_ptr, student_ptr, row, real, ignored, C: tl.constexpr, STRIDE: tl.constexpr, LABELS: tl.constexpr):
    """The label of each row, whether it has one, whether that is a class, and the student's logit there."""
    if LABELS:
        label = tl.load(labels_ptr + row, mask=real, other=0)
        has = real & (label != ignored)
        known = (label >= 0) & (label < C)
        at_label = tl.load(student_ptr + row * STRIDE + label, mask=has & known, other=0.0).to(tl.float32)
    else:
        label = row * 0
        has = row < 0
        known = has
        at_label = label.to(tl.float32)
    return label, has, known, at_label


@jit
def _store(partial_ptr, program, soft, hard, mine, theirs, agreed, labelled, strange, broken):
    """One row of partial sums of a program, written by nobody else."""
    at = partial_ptr + program * WIDTH
    tl.store(at, tl.sum(soft, axis=0))
    tl.store(at + 1, tl.sum(hard, axis=0))
    tl.store(at + 2, tl.sum(mine, axis=0))
    tl.store(at + 3, tl.sum(theirs, axis=0))
    tl.store(at + 4, tl.sum(agreed, axis=0))
    tl.store(at + 5, tl.sum(labelled, axis=0))
    tl.store(at + 6, tl.sum(strange, axis=0))
    tl.store(at + 7, tl.sum(broken, axis=0))


@jit
def _sum_kernel(partial_ptr, loss_ptr, parts_ptr, programs, alpha, beta, BLOCK: tl.constexpr):
    """The rows of partial sums in a fixed order, so that the loss is the same each time."""
    part = tl.arange(0, WIDTH)
    total = tl.zeros([WIDTH], dtype=tl.float32)
    for start in range(0, programs, BLOCK):
        program = tl.arange(0, BLOCK) + start
        at = partial_ptr + program[:, None] * WIDTH + part[None, :]
        total += tl.sum(tl.load(at, mask=(program < programs)[:, None], other=0.0), axis=0)
    soft = tl.sum(tl.where(part == 0, total, 0.0), axis=0)
    hard = tl.sum(tl.where(part == 1, total, 0.0), axis=0)
    tl.store(loss_ptr, alpha * soft + beta * hard)
    tl.store(parts_ptr + part, total)


def _builds(columns: int, student: str, teacher: str) -> list[Build]:
    tunable, kernel = (IN_SWEEPS, _sweeps_kernel) if columns > IN_REGISTERS else (IN_ROWS, _rows_kernel)
    pointers = {"student_ptr": f"*{student}", "teacher_ptr": f"*{teacher}", "labels_ptr": "*i64"}
    kept = "fp32" if student == "fp16" else student
    pointers |= {"gradient_ptr": f"*{kept}", "partial_ptr": "*fp32", "count": "i32"}
    settings = dict.fromkeys(("temperature", "alpha", "beta", "smoothing"), "fp32") | {"ignored": "i32"}
    shape = {"C": columns, "S_STRIDE": columns, "T_STRIDE": columns, "LABELS": True, "GRADIENT": True}
    align = _alignment(columns)
    name = f"{tunable.op} {student if student == teacher else f'{student} from {teacher}'} K={columns}"
    return [
        Build.sized(name, kernel, pointers | settings, shape, sizes, vector_loads=align == 8)
        for sizes in tunable.committed(student, C=columns, ALIGN=align)
    ]


def _sum_build() -> Build:
    signature = dict.fromkeys(("partial_ptr", "loss_ptr", "parts_ptr"), "*fp32") | {"programs": "i32"}
    return Build(
        "distill_loss sum",
        _sum_kernel,
        signature | {"alpha": "fp32", "beta": "fp32"},
        {"BLOCK": 128},
        vector_loads=False,
    )
