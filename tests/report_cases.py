"""Reports for every awkward case that the page, the Markdown and the card must bear, hostile names among them."""

from __future__ import annotations

import math
from collections.abc import Callable

from report_factory import make_report, make_report_with_target

from compress.report.schema import Origin, Report

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b||c",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31mred\u202egnp.exe",
    "line\nbreak\r\n# heading",
    "*bold* _em_ `code` [link](https://example.org) ~~gone~~ @everyone",
    "--- </style></title><!-- ]]>",
    "long " * 100,
    "漢字カナ" * 20,
    "",
]


def edited(change: Callable[[Report], None], make: Callable[..., Report] = make_report, **options: object) -> Report:
    report = make(**options)
    change(report)
    return report


def without_latency(report: Report) -> None:
    for variant in report.variants:
        variant.latency_ms = []


def without_parity(report: Report) -> None:
    for variant in report.variants:
        variant.parity, variant.graph = None, {}


def not_finite(report: Report) -> None:
    for variant in report.variants[1:]:
        variant.accuracy = variant.ece = variant.mcnemar_p = variant.speedup = math.nan
        variant.accuracy_ci95 = variant.metric_drop_points_ci95 = (math.nan, math.inf)
        variant.accuracy_drop_points, variant.peak_rss_mb = math.inf, math.nan
        variant.latency_ms[0].total_p50 = math.nan
        variant.latency_ms[0].quantiles = [math.nan] * 11
        variant.graph["share"] = math.nan
    for epoch in report.training["teacher"]:
        epoch.loss = math.nan
    report.run.stages["export"] = math.nan


def without_data(report: Report) -> None:
    report.examples = []


def collapsed(report: Report) -> None:
    worst = report.variants[-1]
    worst.accuracy, worst.accuracy_ci95 = 0.1, (0.09, 0.11)
    worst.metric_drop_points, worst.metric_drop_points_ci95 = 81.0, (79.0, 83.0)


def hostile(report: Report) -> None:
    report.run.name = report.run.command = report.data.source = HOSTILE[0]
    report.verdict, report.choice.reason, report.teacher_licence = HOSTILE[1], HOSTILE[7], HOSTILE[6]
    report.advice = list(HOSTILE)
    report.card = dict(zip(("use", "not_for", "contact", "licence", "data_licence"), HOSTILE[::2], strict=False))
    report.origins = {"teacher": Origin(model=HOSTILE[0], fresh=False, licence=HOSTILE[6])}
    report.data.notes = list(HOSTILE)
    report.run.hardware = {HOSTILE[0]: HOSTILE[1]}
    for example, text in zip(report.examples, HOSTILE, strict=False):
        example.label = example.baseline = example.choice = example.origin = text
        example.text = text
    report.training = dict.fromkeys(HOSTILE, report.training["teacher"])
    for variant, text in zip(report.variants, HOSTILE, strict=False):
        variant.reasons, variant.graph = [text], {text: [text]}
        if variant.id not in (report.baseline, report.choice.id):
            variant.id = f"{text} {variant.id}"


CASES = {
    "accepted": make_report(),
    "choice failed": make_report(accepted=False),
    "none could be chosen": edited(lambda report: setattr(report.choice, "id", "nobody"), accepted=False),
    "no control": make_report(controls=False),
    "no examples": edited(without_data),
    "no student": make_report(students=(), controls=False),
    "two classes": make_report(labels=["negative", "positive"]),
    "many classes": make_report(labels=[f"class {at}" for at in range(200)], n=800),
    "empty class": make_report(empty_class=3),
    "no latency": edited(without_latency),
    "no parity": edited(without_parity),
    "not finite": edited(not_finite),
    "collapsed": edited(collapsed),
    "one epoch": edited(lambda report: report.training.update({"teacher": report.training["teacher"][:1], "none": []})),
    "target": make_report_with_target(),
    "target, failed": make_report_with_target(95.0, accepted=False),
    "target, none could be chosen": edited(
        lambda report: setattr(report.choice, "id", "nobody"), make_report_with_target, accepted=False
    ),
    "target, not finite": edited(not_finite, make_report_with_target),
    "hostile": edited(hostile, labels=HOSTILE),
    "hostile, failed": edited(hostile, labels=HOSTILE, accepted=False),
    "bare": edited(
        lambda report: [
            part.clear() for part in (report.training, report.advice, report.run.stages, report.choice.ranking)
        ]
    ),
}
