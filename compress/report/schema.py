"""The shape of report.json: what a run is worth, for people and programs. All rates are 0..1."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SplitInfo(_Part):
    size: int
    fingerprint: str  # sha256 over the split's items and labels


class DataInfo(_Part):
    source: str
    labels: list[str]
    splits: dict[str, SplitInfo]  # train, calibration, validation, test
    fingerprint: str
    notes: list[str] = []  # what was left out of the source, and why


class Constraints(_Part):
    """The recipe's [accept] table."""

    metric: str
    max_drop_points: float
    target_percent: float | None = None  # of the metric; None: the drop is from the baseline
    max_group_drop_points: float | None = None  # of accuracy, in each group that can be judged
    max_p95_ms: float | None
    max_size_mb: float | None
    prefer: Literal["latency", "size"]
    threads: int = 1  # at which max_p95_ms is judged


class ClassScore(_Part):
    label: str
    n: int  # test items of this class
    precision: float
    recall: float
    f1: float


class Flips(_Part):
    lost: int  # right with the baseline, wrong here
    gained: int  # wrong with the baseline, right here


P99_SAMPLES = 1000  # below this a 99th percentile is an anecdote
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


class Latency(_Part):
    """Milliseconds for one call; `total` is from request bytes to labels, `compute` the model alone."""

    batch: int
    threads: int
    total_p50: float
    total_p95: float
    total_p99: float | None  # None below P99_SAMPLES
    compute_p50: float
    # `total` as processor time; None with several threads, where a GPU may compute, and in reports from before.
    processor_p50: float | None = None
    n: int
    # `total` at the shares QUANTILES of the calls; None in reports from before they were kept.
    quantiles: list[float] | None = None


class Parity(_Part):
    """How far the scores of an exported or quantized graph are from those it was made from."""

    against: str
    split: str
    n: int
    max_abs: float
    disagreements: int


class Tried(_Part):
    """One graph that the search behind int8-mixed tried, against fp32 on the calibration items."""

    given_back: list[str]  # nodes in floating point
    divergence: float  # mean Kullback-Leibler divergence from fp32, in nats
    flips: int  # items with another label
    slowdown: float  # its time over that of int8-static
    size_bytes: int
    kept: bool


class Abstention(_Part):
    """A promise of precision, learned on validation, and what became of it on test."""

    precision: float  # promised: the share of right answers among those given
    confidence: float
    below: float | None  # predictions with a lower score are marked; None: no score can promise it
    n: int  # validation items
    answered: int
    wrong: int
    test_answered: int = 0
    test_wrong: int = 0
    coverage: float | None = None  # share of test items that are answered; None without a threshold
    coverage_ci95: tuple[float, float] | None = None
    test_precision: float | None = None
    test_precision_ci95: tuple[float, float] | None = None


class ClassChange(_Part):
    """What became of one class against the baseline. Interval and p are corrected for the number of classes."""

    label: str
    n: int  # test items of this class
    lost: int
    gained: int
    drop_points: float  # of recall; positive is a loss
    drop_points_ci95: tuple[float, float]  # for all classes together (Bonferroni)
    p: float  # McNemar's, corrected by Holm's method


class GroupChange(_Part):
    """What became of one group of the test items against the baseline."""

    group: str
    n: int
    accuracy: float
    baseline_accuracy: float
    lost: int
    gained: int
    drop_points: float
    drop_points_ci95: tuple[float, float]
    judged: bool  # False where there are too few items to say anything


class ReliabilityBin(_Part):
    """Test items whose best score lies in one fifteenth of 0..1."""

    n: int
    score: float  # the mean of their best scores
    accuracy: float


class Audit(_Part):
    """What an accuracy hides of what was lost on test."""

    parent: str | None  # the variant that this one was made from
    parent_flips: Flips | None  # against that one
    classes: list[ClassChange]
    ece_change: float  # this less the baseline's
    ece_change_ci95: tuple[float, float]  # paired bootstrap
    reliability: list[ReliabilityBin]
    groups: list[GroupChange] = []  # by [data] group, the greatest drop first


class Exemplar(_Part):
    """A test item that many variants answer otherwise than the baseline."""

    item: int  # its place in the test split, from 0
    origin: str  # where it came from
    label: str
    baseline: str  # what the baseline answers
    variants: str  # what most of the variants answer that differ
    flipped: int  # how many variants differ
    of: int  # how many there are; controls are not counted


class Example(_Part):
    """A test item that the choice answers otherwise than the baseline, with its text or its picture."""

    item: int  # its place in the test split, from 0
    origin: str  # where it came from
    kind: Literal["lost", "gained"]
    label: str
    baseline: str  # what the baseline answers
    baseline_score: float
    choice: str  # what the choice answers
    choice_score: float
    text: str | None  # the beginning of it
    # A small picture. Nothing else may stand here: a page would fetch it.
    image: str | None = Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$")


class Variant(_Part):
    id: str
    name: str  # the model's name in the recipe
    role: Literal["teacher", "student", "control"]
    runtime: Literal["torch", "onnxruntime"]
    provider: str
    precision: str
    package_id: str | None  # the id that the server answers with
    parents: list[str]
    params: int
    size_bytes: int
    macs: int
    n: int  # test items
    errors: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    macro_f1: float
    macro_precision: float
    macro_recall: float
    per_class: list[ClassScore]
    confusion: list[list[int]]  # [true][predicted], counts
    ece: float  # expected calibration error, 15 bins
    temperature: float = 1.0  # fitted on validation, in the package
    ece_uncalibrated: float | None = None  # at temperature 1; None where that is the temperature
    abstention: Abstention | None = None  # where the recipe asks for a promise
    audit: Audit | None = None  # None for the baseline, and in reports from before there were audits
    agreement: float  # share of test items with the baseline's label
    flips: Flips
    accuracy_drop_points: float  # baseline - this, in points; positive is a loss
    accuracy_drop_points_ci95: tuple[float, float]
    # What is judged, of the recipe's own metric: baseline - this, or target - this where the recipe states a target.
    metric_drop_points: float
    metric_drop_points_ci95: tuple[float, float]
    # Exact one-sided p-value of "the true drop is the margin or more"; None for the baseline and for macro F1.
    margin_p: float | None = None
    mcnemar_p: float
    latency_ms: list[Latency]
    speedup: float  # processor_p50 of the baseline / own (total_p50 where it is not known), batch 1, 1 thread
    speedup_compute: float
    peak_rss_mb: float
    parity: Parity | None
    batch_invariant: bool
    graph: dict[str, Any]  # what the export or the quantizer did, counted in the graph itself
    notes: list[str] = []  # how it was quantized, where that was not the recipe's to say
    tried: list[Tried] = []  # by the search of int8-mixed
    verdict: Literal["accepted", "rejected"]
    reasons: list[str]  # why it was rejected; empty when accepted


class Candidate(_Part):
    """One row of the ranking on validation."""

    id: str
    eligible: bool
    drop_points: float
    drop_points_upper: float  # upper 97.5 % limit, projected to the size of the test split
    total_p50_ms: float
    total_p95_ms: float
    size_bytes: int
    why: str


class Choice(_Part):
    """The choice as frozen on validation, before the test split was looked at."""

    id: str
    reason: str
    ranking: list[Candidate]
    # Whether this folder's test split had been scored before: a choice remade after a look at test proves less.
    after_test: bool = False


class RunInfo(_Part):
    name: str
    created: str  # ISO 8601, UTC
    seed: int
    limbeck: str
    git_commit: str | None
    versions: dict[str, str]
    hardware: dict[str, Any]  # cpu, cores, memory_gb, cpu_flags (those that matter), gpu
    stages: dict[str, float]  # seconds of each stage, when it was done
    command: str | None = None  # the command line that made the run


class Epoch(_Part):
    epoch: int
    loss: float  # mean training loss
    accuracy: float  # on validation
    seconds: float


class Refit(_Part):
    """A second training on more items; its weights are what ships, and what validation was scored with came before."""

    epochs: int  # as many as were best on validation in the first training
    items: int  # of train, validation and calibration
    items_before: int  # of train


class Origin(_Part):
    """What a model of the recipe began as."""

    model: str  # as the recipe names it
    fresh: bool  # from random weights, so of nobody else's making
    licence: str | None = None  # as its source states it; None where it states none


class Report(_Part):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")  # `schema` is taken in pydantic
    run: RunInfo
    task: str
    data: DataInfo
    constraints: Constraints
    baseline: str  # variant id: the teacher as users run it, torch eager fp32
    choice: Choice
    selected: str | None  # the choice, if it held on test
    verdict: str  # one sentence
    advice: list[str]  # measured advice, a sentence each
    training: dict[str, list[Epoch]]  # model name -> its epochs
    training_notes: dict[str, list[str]] = {}  # model name -> what else is to know of how it was trained
    refits: dict[str, Refit] = {}  # model name -> its refit, where the recipe asks for one
    variants: list[Variant]
    examples: list[Example] = []  # flips of the choice, those lost first; as many as [report] examples allows
    exemplars: list[Exemplar] = []  # those that most variants flipped, worst first
    preprocessing: dict[str, Any] | None = None  # as in the manifest of the choice; what a request's bytes meet
    teacher_licence: str | None = None  # as its source states it; None where it states none
    origins: dict[str, Origin] = {}  # model name -> what it began as; empty in reports from before this was kept
    card: dict[str, str] = {}  # the recipe's [card]: what only people know

    def variant(self, variant_id: str) -> Variant:
        """The variant called `variant_id`; KeyError if there is none."""
        for variant in self.variants:
            if variant.id == variant_id:
                return variant
        raise KeyError(variant_id)
