"""Every name that is written to MLflow, with unit and direction: code and plots import it.

Metrics of a point measured on the test split bear the same name behind ``test_``.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number that is tracked.

    Attributes:
        name: as MLflow knows it.
        unit: as an axis shows it.
        better: which way is good; ``neither`` for counts.
        meaning: one sentence.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    meaning: str


ACCURACY = Metric("accuracy", "0 to 1", "higher", "Share of held-out images classified rightly.")
LOSS = Metric("loss", "nats", "lower", "Mean cross-entropy on held-out images.")
MACS = Metric("macs_per_image", "MACs per image", "lower", "Computed from the plans.")
EXECUTED_MACS = Metric(
    "executed_macs_per_image", "MACs per image", "lower", "Counted while running, policy included."
)
MACS_FRACTION = Metric(
    "macs_fraction", "of dense MACs", "lower", "Executed MACs over the dense backbone's."
)
EXECUTED_MACS_P50 = Metric("executed_macs_p50", "MACs", "lower", "Half of the images cost less.")
EXECUTED_MACS_P90 = Metric("executed_macs_p90", "MACs", "lower", "90 % of the images cost less.")
EXECUTED_MACS_P99 = Metric("executed_macs_p99", "MACs", "lower", "99 % of the images cost less.")
IMAGES = Metric("images", "images", "neither", "How many images the figures rest on.")
TOP5 = Metric("top5", "0 to 1", "higher", "Share whose label is among the five likeliest classes.")
FIGURES = (
    ACCURACY,
    TOP5,
    LOSS,
    MACS,
    EXECUTED_MACS,
    MACS_FRACTION,
    EXECUTED_MACS_P50,
    EXECUTED_MACS_P90,
    EXECUTED_MACS_P99,
    IMAGES,
)

_CONTROLS = {
    "fixed": "the best fixed widths at equal executed MACs",
    "shuffled": "the point's own plans, shuffled between images",
    "random": "random plans with the same histogram at each site",
    "threshold": "the fixed widths one after the other by a threshold, at equal executed MACs",
}
_ENDS = {"": "", "_low": " Lower end of the 95 % interval.", "_high": " Upper end of it."}
ADVANTAGES = tuple(
    Metric(f"advantage_{control}{end}", "of accuracy", "higher", f"Gain over {what}.{meaning}")
    for control, what in _CONTROLS.items()
    for end, meaning in _ENDS.items()
)
ORACLE_ACCURACY = Metric(
    "oracle_accuracy", "0 to 1", "higher", "Of the cheapest right plans found, on a sample."
)
ORACLE_MACS_FRACTION = Metric(
    "oracle_macs_fraction", "of dense MACs", "lower", "Of the cheapest right plans found."
)
ORACLE_POLICY_ACCURACY = Metric(
    "oracle_policy_accuracy", "0 to 1", "higher", "Of the policy, on the oracle's sample."
)
ORACLE_POLICY_MACS_FRACTION = Metric(
    "oracle_policy_macs_fraction", "of dense MACs", "lower", "Of the policy, on that sample."
)
UPPER_BOUND = (
    ORACLE_ACCURACY,
    ORACLE_MACS_FRACTION,
    ORACLE_POLICY_ACCURACY,
    ORACLE_POLICY_MACS_FRACTION,
)
DISTINCT_PLANS = Metric("distinct_plans", "plans", "neither", "1: the policy has collapsed.")
COMMONEST_PLAN_SHARE = Metric(
    "commonest_plan_share", "of images", "neither", "That get the most frequent plan."
)
PLAN_ENTROPY = Metric("plan_entropy", "bits", "neither", "How much plans vary between images.")
INFORMATION = tuple(
    Metric(f"{what}_{of}_information", "bits", "neither", f"Of the {of}, told by the {what}.")
    for what in ("plan", "cost")
    for of in ("class", "difficulty")
)
DYNAMICS_METRICS = (
    *ADVANTAGES,
    *UPPER_BOUND,
    DISTINCT_PLANS,
    COMMONEST_PLAN_SHARE,
    PLAN_ENTROPY,
    *INFORMATION,
)

DENSE_MACS = Metric("dense_macs", "MACs per image", "neither", "Of the unpruned backbone.")
ENV_STEPS = Metric("env_steps", "steps", "lower", "Decisions that the agent learned from.")
TRAIN_SECONDS = Metric("train_seconds", "s", "lower", "Wall time of training up to the point.")
EPOCHS = Metric("epochs", "epochs", "lower", "Passes over the training split up to the point.")
EFFORT = (ENV_STEPS, TRAIN_SECONDS, EPOCHS)

HYPERVOLUME = Metric(
    "hypervolume", "area", "higher", "What the front dominates, up to the declared corner."
)
POINTS_DONE = Metric("points_done", "points", "higher", "Operating points measured so far.")
FRONT_SIZE = Metric("front_size", "points", "neither", "Operating points on the front.")
SWEEP_METRICS = (HYPERVOLUME, POINTS_DONE, FRONT_SIZE)

# Learning curves of a trial, and of the preparation on the sweep's run.
AGENT_RETURN = Metric(
    "agent.return", "reward", "higher", "Mean return of the episodes of an iteration, by env steps."
)
AGENT_LOSS = Metric("agent.loss", "loss", "lower", "Of the learner in an iteration, by env steps.")
AGENT_EPSILON = Metric("agent.epsilon", "0 to 1", "neither", "Share of random decisions.")
FINETUNE_LOSS = Metric("finetune.loss", "nats", "lower", "Of an epoch under the agent's plans.")
FINETUNE_ACCURACY = Metric(
    "finetune.accuracy", "0 to 1", "higher", "On training images as they went by, by epoch."
)
CURVE_METRICS = (AGENT_RETURN, AGENT_LOSS, AGENT_EPSILON, FINETUNE_LOSS, FINETUNE_ACCURACY)

ALL_METRICS = (*FIGURES, *DYNAMICS_METRICS, DENSE_MACS, *EFFORT, *SWEEP_METRICS, *CURVE_METRICS)


Quantile = Literal["p50", "p90", "p95", "p99"]
QUANTILES: dict[Quantile, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def latency(device: str, batch: int, quantile: Quantile) -> Metric:
    """Return the metric of a measured latency, ``latency_ms.<device>.<batch>.<quantile>``."""
    name = f"latency_ms.{device}.{batch}.{quantile}"
    return Metric(name, "ms", "lower", f"Wall time per batch of {batch} on {device}, {quantile}.")


def speedup(device: str, batch: int, end: Literal["", "_low", "_high"] = "") -> Metric:
    """Return the metric of a measured speed-up, ``speedup.<device>.<batch>``, or an end of it."""
    name = f"speedup.{device}.{batch}{end}"
    return Metric(
        name, "times", "higher", f"Dense time over the point's, batch {batch} on {device}."
    )


# Tags.
KIND = "frontier.kind"  # sweep, trial or point
KEY = "frontier.key"  # what a run is; found before one is created
SWEEP_ID = "frontier.sweep_id"
TRIAL_KEY = "frontier.trial_key"
POINT_ID = "frontier.point_id"
INFEASIBLE = "frontier.infeasible"  # of a trial: why points that were asked for do not exist
ON_FRONT = "frontier.on_front"  # "true" or "false"
IN_VIEW = "frontier.in_view"  # "true" for those that the saved view shows
METHOD = "frontier.method"
TEST_READINGS = "frontier.test_readings"  # of a sweep: how often its test split was read
TESTED = "frontier.tested"  # "true" once the test split was read
VERDICT = "frontier.verdict"  # "dynamic", "static" and the like, on validation
TEST_VERDICT = "frontier.test_verdict"
TIMED = "frontier.timed"  # keys of the devices, with a space between
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
RUN_COLOUR = "mlflow.runColor"

# Parameters of a point, apart from its trial's configuration (``config.<name>``).
POINT_PARAMS = (
    "method",
    "backbone",
    "dataset",
    "seed",
    "groups",
    "penalty",
    "index",
    "split",
    "code_version",
)
# Parameters of a sweep that the tracker reads back.
REFERENCE_ACCURACY = "reference_accuracy"
REFERENCE_MACS_FRACTION = "reference_macs_fraction"

# Artifacts of a point.
RECORD = "record.parquet"
POLICY_RECORD = "record-policy.parquet"
TEST_RECORD = "record-test.parquet"
POINT = "point.json"
TEST_POINT = "point-test.json"
TIMINGS = "timings.json"  # in a folder of the device's name, of those in the next
TIMINGS_FOLDER = "timings"
ERROR = "error.txt"  # of a trial: why it failed
BUNDLE = "bundle"
DYNAMICS = "dynamics"  # a folder: what shows whether decisions depend on the image
TEST_DYNAMICS = "dynamics-test"
# Files of that folder, beside the records of the controls.
CONTROLS_FILE = "controls.json"
ORACLE = "oracle.parquet"
DYNAMICS_FILE = "dynamics.json"
DECISIONS = "decisions.png"
GALLERY = "gallery.png"
# Artifacts of a sweep.
SWEEP = "sweep.json"  # its configuration, and what its preparation has cost
CURVES = "curves.json"  # what training read of itself before the point
PAGE = "frontier.html"
PICTURE = "frontier.png"
TABLE = "frontier.md"
