"""The chooser over finished sweeps: candidates read from MLflow, and the answer in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.choosing import (
    Candidate,
    Choice,
    Constraints,
    Failure,
    Judged,
    choose,
)
from runtime_pruning.frontier.showing import candidates_of, latency_ms
from runtime_pruning.tracking.boards import read_board

_UNITS = {
    "min_accuracy": ("accuracy", 100.0, " %", "<"),
    "max_macs_fraction": ("MACs of dense", 100.0, " %", ">"),
    "max_class_loss": ("worst class's loss", 100.0, " points", ">"),
    "max_p50_ms": ("p50", 1.0, " ms", ">"),
    "max_p95_ms": ("p95", 1.0, " ms", ">"),
}


def candidates(uri: str, sweep_ids: Sequence[str]) -> list[Candidate]:
    """Return what a choice among the points of sweeps rests on.

    Args:
        uri: the store.
        sweep_ids: on the same images.

    Raises:
        DataError: a sweep without points, or sweeps of different datasets.
    """
    board = read_board(uri, sweep_ids)
    milliseconds = {id_: latency_ms(timings) for id_, timings in board.timings.items()}
    details = {id_: extra.details for id_, extra in board.extras.items() if extra.details}
    return candidates_of(board.points, details, milliseconds)


def pick_point(uri: str, sweep_ids: Sequence[str], asked: Mapping[str, Any]) -> Choice:
    """Return the best point of sweeps under constraints.

    Args:
        uri: the store.
        sweep_ids: on the same images.
        asked: fields of :class:`~runtime_pruning.frontier.choosing.Constraints`.

    Raises:
        ConfigError: a constraint out of its range, or a name that no point bears.
        DataError: a sweep without points, or sweeps of different datasets.
    """
    pool = candidates(uri, sweep_ids)
    for name in ("method", "backbone"):
        known = sorted({getattr(each, name) for each in pool})
        if asked.get(name) is not None and asked[name] not in known:
            raise ConfigError(f"`{name}` must be one of {known}, but got {asked[name]!r}.")
    return choose(pool, with_device(asked, pool))


def with_device(constraints: Mapping[str, Any], pool: Sequence[Candidate]) -> Constraints:
    """Return constraints; milliseconds without a device are of the one that points were timed on.

    Raises:
        ConfigError: no point was timed, or on several devices, or not on the one that is named.
    """
    asked = dict(constraints)
    timed = sorted({tuple(key.rsplit(".", 2)[:2]) for c in pool for key in c.latency_ms})
    devices = sorted({device for device, _ in timed})
    wants_ms = asked.get("max_p50_ms") is not None or asked.get("max_p95_ms") is not None
    if asked.get("device") is None and not wants_ms:
        return Constraints(**asked)
    if asked.get("device") is None and len(devices) == 1:
        asked["device"] = devices[0]
    batch = str(asked.get("batch", 1))
    if (asked.get("device"), batch) not in timed:
        told = ", ".join(f"{device} (batch {of})" for device, of in timed) or "none"
        raise ConfigError(
            f"Milliseconds of device {asked.get('device')!r} at batch {batch} are asked for, but "
            f"points were timed on: {told}. Name one with --device and --batch."
        )
    return Constraints(**asked)


def ship_command(point_id: str) -> str:
    """Return the command that makes a bundle of a point."""
    return f"runtime-pruning export {point_id} --out {point_id}"


def plain(choice: Choice) -> dict[str, Any]:
    """Return the answer as plain JSON: `null` for what was not asked for or measured."""
    best = choice.best
    return {
        "constraints": asdict(choice.constraints),
        "preference": choice.constraints.preference,
        "feasible": choice.feasible,
        "point": None if best is None else asdict(best),
        "command": None if best is None else ship_command(best.point_id),
        "runners_up": [_plain(each) for each in choice.runners_up],
        "nearest_miss": None if choice.nearest_miss is None else _plain(choice.nearest_miss),
    }


def _plain(judged: Judged) -> dict[str, Any]:
    failures = [failure._asdict() for failure in judged.failures]
    for failure in failures:
        failure["miss"] = None if failure["value"] is None else failure["miss"]
    return {"point": asdict(judged.candidate), "failures": failures}


def told(choice: Choice) -> str:
    """Return the answer for a reader."""
    if choice.best is not None:
        lines = [
            f"{_line(choice.best, choice.constraints)}",
            f"best of {choice.feasible} feasible point(s): "
            + (
                "the most accurate"
                if choice.constraints.preference == "accuracy"
                else "the cheapest"
            ),
            f"ship it: {ship_command(choice.best.point_id)}",
        ]
    elif (near := choice.nearest_miss) is not None:
        lines = ["No point is feasible. The nearest miss:", _judged(near, choice.constraints)]
    else:
        lines = ["No point is feasible, and none is near: none was measured as asked for."]
    if choice.runners_up:
        lines += ["Runners-up:"]
        lines += [f"  {_judged(each, choice.constraints)}" for each in choice.runners_up]
    return "\n".join(lines)


def _judged(judged: Judged, asked: Constraints) -> str:
    reasons = "; ".join(reason(failure) for failure in judged.failures) or "feasible, ranks behind"
    return f"{_line(judged.candidate, asked)}: {reasons}"


def reason(failure: Failure) -> str:
    """Return why a constraint is broken."""
    if failure.constraint not in _UNITS:
        return f"{failure.constraint} is {failure.value}, not {failure.limit}"
    name, scale, unit, sign = _UNITS[failure.constraint]
    if failure.value is None:
        return f"{name} was not measured"
    value, limit = float(failure.value) * scale, float(failure.limit) * scale
    return f"{name} {value:.4g}{unit} {sign} {limit:.4g}{unit}"


def _line(candidate: Candidate, asked: Constraints) -> str:
    """Return a point in one line."""
    ms = (
        f", {quantile} {candidate.latency_ms[key]:.3g} ms"
        for quantile in ("p50", "p95")
        if (key := f"{asked.device}.{asked.batch}.{quantile}") in candidate.latency_ms
    )
    return (
        f"{candidate.point_id}  {candidate.accuracy:.2%} at {candidate.macs_fraction:.1%} of dense "
        f"MACs{''.join(ms)}  {candidate.method}, {candidate.backbone}"
    )
