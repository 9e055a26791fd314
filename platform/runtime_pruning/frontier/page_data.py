"""What the interactive page holds: a summary and what is known beside it, as plain JSON.

Points are columns, so that ten thousand of them stay small; cards hold what only some points have.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from runtime_pruning.frontier import style
from runtime_pruning.frontier.choosing import Candidate
from runtime_pruning.frontier.details import Details
from runtime_pruning.frontier.dominance import Doubles, pareto_mask
from runtime_pruning.frontier.points import OperatingPoint, canonical_json
from runtime_pruning.frontier.proof import CONTROLS
from runtime_pruning.frontier.showing import Extra, Extras, Setting, candidates_of, latency_ms
from runtime_pruning.frontier.summary import DENSE, FrontierSummary

DETAILED = 300  # points whose cards show what their records hold; the front's come first

_NO_EXTRA = Extra()


def page_data(summary: FrontierSummary, extras: Extras, setting: Setting) -> dict[str, Any]:
    """Return all that the page shows; its ``version`` changes with anything that is shown."""
    points, first = summary.points, summary.points[0]
    own = [extras.get(point.point_id, _NO_EXTRA) for point in points]
    milliseconds = {
        point.point_id: {
            **latency_ms(summary.timings.get(point.point_id, ())),
            **extra.predicted_ms,
        }
        for point, extra in zip(points, own, strict=True)
    }
    details = {p.point_id: e.details for p, e in zip(points, own, strict=True) if e.details}
    pool = candidates_of(points, details, milliseconds)
    backbones = sorted({point.backbone for point in points})
    common = _common([point.config for point in points])
    dense = None if summary.dense is None else details.get(summary.dense.point_id)
    facts: dict[str, Any] = {
        "title": f"{', '.join(backbones)} on {first.dataset}: accuracy against cost",
        "subtitle": _subtitle(summary),
        "footer": f"Made by runtime-pruning {first.code_version}.",
        "split": first.split,
        "level": summary.level,
        "dense_macs": first.dense_macs,
        "dataset": first.dataset,
        "sweeps": sorted({point.sweep_id for point in points}),
        "backbones": backbones,
        "methods": list(style.looks(summary)),
        "looks": _looks(summary),
        "classes": list(setting.classes),
        "dense_class_accuracy": None if dense is None else list(dense.class_accuracy),
        "axes": _axes(summary, pool),
        "timed": _timed(pool),
        "points": _columns(summary, pool, own),
        "common": common,
        "cards": _cards(summary, own, common),
        "images": {str(id_): address for id_, address in setting.images.items()},
        "server": setting.server,
        "server_hint": setting.server_hint,
        "live": setting.live is not None and not setting.live.ended,
        "beside": None if setting.live is None else setting.live.beside,
        "every_s": None if setting.live is None else setting.live.every_s,
    }
    version = hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
    return {**facts, "version": version, "generated": time.strftime("%H:%M:%S")}


def _subtitle(summary: FrontierSummary) -> str:
    """Return on what the points were measured, and which they are."""
    first, points = summary.points[0], summary.points
    sweeps = ", ".join(sorted({point.sweep_id for point in points}))
    seeds = ", ".join(str(seed) for seed in sorted({point.seed for point in points}))
    return (
        f"{len(points):,} operating points of {sweeps}; {first.split} split, "
        f"{first.figures.images:,} images; seed{'s' if ',' in seeds else ''} {seeds}"
    )


def _looks(summary: FrontierSummary) -> dict[str, dict[str, str]]:
    """Return colour and shape of each method; ``ink`` is the theme's."""
    return {
        method: {"colour": "ink" if look.colour == style.INK else look.colour, "shape": look.shape}
        for method, look in style.looks(summary).items()
    }


def _timed(pool: Sequence[Candidate]) -> list[tuple[str, int]]:
    """Return each device and batch that points were timed on."""
    keys = {tuple(key.rsplit(".", 2)[:2]) for each in pool for key in each.latency_ms}
    return sorted((device, int(batch)) for device, batch in keys)


def _axes(summary: FrontierSummary, pool: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the axes of cost, MACs first, each with its own front, cheapest first."""
    costs_P = np.array([point.executed_macs_per_image for point in summary.points])
    label = "executed MACs per image (policy included)"
    axes = [{"key": "macs", "label": label, "short": "MACs per image", **_front(summary, costs_P)}]
    axes[0]["front"] = np.flatnonzero(summary.on_front_P).tolist()
    axes[0] |= _band(summary, axes[0]["front"])
    if summary.points[0].split == "test":
        return axes  # a front is chosen on validation, and that of milliseconds is not known here
    dense = None if summary.dense is None else summary.points.index(summary.dense)
    for key in sorted({key for each in pool for key in each.latency_ms}):
        device, batch, quantile = key.rsplit(".", 2)
        if quantile not in ("mean", "p50", "p95"):
            continue
        costs_P = np.array([each.latency_ms.get(key, np.nan) for each in pool])
        axes.append(
            {
                "key": key,
                "label": f"{quantile} in ms per call of {batch}, {device}",
                "short": f"{quantile} in ms, batch {batch}",
                "dense": None if dense is None else pool[dense].latency_ms.get(key),
                **_front(summary, costs_P),
            }
        )
    return axes


def _front(summary: FrontierSummary, costs_P: Doubles) -> dict[str, Any]:
    """Return who is on the front of accuracy against a cost; NaN is a cost that is not known."""
    errors_P = np.array([1 - point.accuracy for point in summary.points])
    on_P = np.flatnonzero(pareto_mask(np.stack([errors_P, costs_P], axis=1)))
    front = on_P[np.argsort(costs_P[on_P], kind="stable")].tolist()
    return {"front": front, **_band(summary, front)}


def _band(summary: FrontierSummary, front: list[int]) -> dict[str, Any]:
    """Return the interval of what a budget buys: the best of the points that it affords."""
    ends = {"low": summary.accuracy.low_P, "high": summary.accuracy.high_P}
    return {name: np.maximum.accumulate(end_P[front]).tolist() for name, end_P in ends.items()}


def _columns(
    summary: FrontierSummary, pool: Sequence[Candidate], own: Sequence[Extra]
) -> dict[str, Any]:
    """Return a column for each thing that is known of every point, None where it is not."""
    points = summary.points
    methods, backbones = (list(style.looks(summary)), sorted({p.backbone for p in points}))
    sweeps = sorted({point.sweep_id for point in points})
    figures = [None if extra.tested is None else extra.tested.figures for extra in own]
    keys = sorted({key for each in pool for key in each.latency_ms})
    proofs = [summary.proof_of(point) for point in points]
    plain = ("point_id", "accuracy", "macs_fraction", "class_loss")
    named = ("groups", "penalty", "seed", "epochs", "env_steps", "train_seconds", "code_version")
    return {
        **{name: [getattr(each, name) for each in pool] for name in plain},
        **{name: [getattr(point, name) for point in points] for name in named},
        "method": [methods.index(point.method) for point in points],
        "backbone": [backbones.index(point.backbone) for point in points],
        "sweep": [sweeps.index(point.sweep_id) for point in points],
        "dense": [point == summary.dense for point in points],
        "low": _rounded(summary.accuracy.low_P),
        "high": _rounded(summary.accuracy.high_P),
        "probability": _rounded(summary.probability_P),
        "macs": [point.executed_macs_per_image for point in points],
        **{
            f"p{share}": [getattr(p.figures, f"executed_macs_p{share}") for p in points]
            for share in (50, 90, 99)
        },
        "run": [extra.run_path for extra in own],
        "verdict": [None if proof is None else proof.verdict for proof in proofs],
        "test_accuracy": [None if f is None else f.accuracy for f in figures],
        "test_macs": [None if f is None else f.executed_macs_per_image for f in figures],
        "test_low": [None if extra.tested is None else extra.tested.low for extra in own],
        "test_high": [None if extra.tested is None else extra.tested.high for extra in own],
        "latency_ms": {key: [each.latency_ms.get(key) for each in pool] for key in keys},
    }


def _rounded(values_P: Doubles) -> list[float]:
    return [round(float(value), 6) for value in values_P]


def _common(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that all configurations share."""
    first, *rest = configs
    return {k: v for k, v in first.items() if all(other.get(k, other) == v for other in rest)}


def _cards(
    summary: FrontierSummary, own: Sequence[Extra], common: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return, by point id, what its card shows beside the columns."""
    chosen = detailed(summary)
    return {
        point.point_id: _card(summary, point, own[p], common, detailed=p in chosen)
        for p, point in enumerate(summary.points)
    }


def detailed(summary: FrontierSummary) -> set[int]:
    """Return which points' cards show details: the front, proved, dense, then an even choice."""
    first = [
        p
        for p, point in enumerate(summary.points)
        if summary.on_front_P[p] or summary.proof_of(point) or point.method == DENSE
    ]
    rest = [p for p in range(len(summary.points)) if p not in set(first)]
    room = max(0, DETAILED - len(first))
    even = np.linspace(0, len(rest) - 1, min(room, len(rest))).round().astype(int).tolist()
    return {*first[:DETAILED], *(rest[place] for place in even)}


def _card(
    summary: FrontierSummary,
    point: OperatingPoint,
    extra: Extra,
    common: dict[str, Any],
    *,
    detailed: bool,
) -> dict[str, Any]:
    """Return one card."""
    card: dict[str, Any] = {}
    if own := {name: value for name, value in point.config.items() if name not in common}:
        card["config"] = own
    if (proof := summary.proof_of(point)) is not None:
        gains = {name: getattr(proof, name, None) for name in CONTROLS}
        known = {name: asdict(gain) for name, gain in gains.items() if gain is not None}
        card["gains"] = {"verdict": proof.verdict, "level": proof.level, "controls": known}
    if timings := summary.timings.get(point.point_id):
        kept = ("device", "batch", "verdict", "speedup", "latency_ms")
        card["timings"] = [{name: getattr(each, name) for name in kept} for each in timings]
    if extra.details is not None and detailed:
        card |= _counts(extra.details)
    return card


def _counts(details: Details) -> dict[str, Any]:
    """Return what a record shows, as a card shows it."""
    return {
        "costs": details.costs._asdict(),
        "sites": [{str(width): n for width, n in site.items()} for site in details.sites],
        "class_accuracy": [
            None if value is None else round(value, 6) for value in details.class_accuracy
        ],
        "least": [list(spent) for spent in details.least],
        "most": [list(spent) for spent in details.most],
    }
