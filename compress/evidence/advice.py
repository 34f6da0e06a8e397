"""Advice that the measurements of this run support, a sentence each. Nothing here is general wisdom."""

from __future__ import annotations

from compress.measure.latency import reference_point
from compress.report.schema import Variant


def advise(variants: list[Variant]) -> list[str]:
    """What a reader of these variants would want to be told."""
    by_id = {variant.id: variant for variant in variants}
    advice = [sentence for variant in variants for sentence in _precision(variant, by_id)]
    advice += _batches(variants)
    return advice + [sentence for variant in variants for sentence in _control(variant, by_id)]


def _precision(variant: Variant, by_id: dict[str, Variant]) -> list[str]:
    """Did this precision pay, against fp32 of the same model?"""
    fp32 = by_id.get(f"{variant.name}-fp32")
    if fp32 is None or variant is fp32 or variant.runtime != "onnxruntime":
        return []
    own, other = reference_point(variant.latency_ms), reference_point(fp32.latency_ms)
    ratio = other.compute_p50 / own.compute_p50
    figures = f"{own.compute_p50:.3g} ms against {other.compute_p50:.3g} ms in fp32, the model alone"
    sentences = []
    if ratio < 1:
        why = "; this model is so small that converting between float and int8 costs more than it saves"
        cause = why if variant.precision.startswith("int8") and 0 < variant.macs < 5_000_000 else ""
        sentences.append(f"{variant.precision} does not pay in time for {variant.name}: {figures}{cause}.")
    elif ratio >= 1.1:
        sentences.append(f"{variant.precision} makes {variant.name} {ratio:.1f}x faster: {figures}.")
    if variant.size_bytes >= fp32.size_bytes:
        sentences.append(
            f"{variant.precision} makes {variant.name} no smaller ({variant.size_bytes:,} bytes against "
            f"{fp32.size_bytes:,}): what the quantizer adds outweighs the weights."
        )
    return sentences


def _batches(variants: list[Variant]) -> list[str]:
    """Which packages cannot be batched: one sentence for all of them."""
    names = [variant.id for variant in variants if variant.runtime == "onnxruntime" and not variant.batch_invariant]
    if not names:
        return []
    alone = "it is" if len(names) == 1 else "they are"
    *first, last = names
    listed = f"{', '.join(first)} and {last}" if first else last
    return [f"The scores of {listed} depend on the other items of a batch, so {alone} run one item at a time."]


def _control(variant: Variant, by_id: dict[str, Variant]) -> list[str]:
    """What did distillation earn, against the same student trained alone?"""
    control = by_id.get(f"{variant.name}-alone-{variant.precision}")
    if control is None or variant.role != "student":
        return []
    gain = control.errors - variant.errors
    outcome = "earned nothing measurable" if gain == 0 else f"{'earned' if gain > 0 else 'cost'} {_errors(abs(gain))}"
    return [f"Distillation {outcome} for {variant.name}: {_errors(variant.errors)} against {control.errors} alone."]


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"
