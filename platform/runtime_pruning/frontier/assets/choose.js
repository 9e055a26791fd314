// The chooser: the rule of `choosing.py`, operation by operation, so that both give one answer.
"use strict";

const BARRED = 3, CLOSE_BEHIND = 2;

/** The best of candidates under constraints, runners-up with what they break, the nearest miss. */
function choose(candidates, asked) {
  const key = costKey(asked);
  const judged = candidates
    .map((candidate) => ({ candidate, rank: rankOf(candidate, asked, key) }))
    .sort((a, b) => compareRanks(a.rank, b.rank))
    .map(({ candidate }) => judge(candidate, asked));
  const feasible = judged.flatMap((each, p) => (each.failures.length ? [] : [p]));
  if (!feasible.length) {
    const missed = byMiss(judged).filter((each) => Number.isFinite(each.miss[0]));
    return { best: null, runnersUp: missed.slice(1, 1 + BARRED), nearest: missed[0] ?? null, feasible: 0 };
  }
  const first = feasible[0];
  const close = feasible.slice(1, 1 + CLOSE_BEHIND).map((p) => judged[p]);
  return {
    best: judged[first].candidate,
    runnersUp: [...byMiss(judged.slice(0, first)).slice(0, BARRED), ...close],
    nearest: null,
    feasible: feasible.length,
  };
}

function preference(asked) {
  const bounds = [asked.max_macs_fraction, asked.max_p50_ms, asked.max_p95_ms];
  return asked.prefer ?? (bounds.some((bound) => bound != null) ? "accuracy" : "cost");
}

function costKey(asked) {
  if (asked.device == null) return null;
  return `${asked.device}.${asked.batch ?? 1}.${asked.max_p95_ms == null ? "p50" : "p95"}`;
}

function rankOf(candidate, asked, key) {
  const cost = key === null ? candidate.macs_fraction : (candidate.latency_ms[key] ?? Infinity);
  const pair = [-candidate.accuracy, cost];
  if (preference(asked) === "cost") pair.reverse();
  return [...pair, candidate.point_id];
}

function compareRanks(a, b) {
  for (let i = 0; i < a.length; i++) {
    if (a[i] < b[i]) return -1;
    if (a[i] > b[i]) return 1;
  }
  return 0;
}

/** Smallest largest miss first, then the smallest sum; the sort is stable, so ranks break ties. */
function byMiss(judged) {
  return [...judged].sort((a, b) => compareRanks(a.miss, b.miss));
}

function judge(candidate, asked) {
  const failures = failuresOf(candidate, asked);
  const misses = failures.map((failure) => failure.miss);
  return { candidate, failures, miss: [Math.max(0, ...misses), misses.reduce((a, b) => a + b, 0)] };
}

function failuresOf(candidate, asked) {
  const found = [];
  const low = asked.min_accuracy;
  if (low != null && candidate.accuracy < low) {
    const miss = (low - candidate.accuracy) / low;
    found.push({ constraint: "min_accuracy", value: candidate.accuracy, limit: low, miss });
  }
  const timed = (quantile) => candidate.latency_ms[`${asked.device}.${asked.batch ?? 1}.${quantile}`];
  const above = {
    max_macs_fraction: candidate.macs_fraction,
    max_class_loss: candidate.class_loss,
    max_p50_ms: timed("p50"),
    max_p95_ms: timed("p95"),
  };
  for (const [constraint, value] of Object.entries(above)) {
    const limit = asked[constraint];
    if (limit == null || (value != null && value <= limit)) continue;
    const scale = constraint === "max_class_loss" ? 1 : limit;
    const miss = value == null ? Infinity : (value - limit) / scale;
    found.push({ constraint, value: value ?? null, limit, miss });
  }
  for (const constraint of ["method", "backbone"]) {
    const limit = asked[constraint], value = candidate[constraint];
    if (limit != null && value !== limit) found.push({ constraint, value, limit, miss: Infinity });
  }
  return found;
}

const UNITS = {
  min_accuracy: ["accuracy", 100, " %", "<"],
  max_macs_fraction: ["MACs of dense", 100, " %", ">"],
  max_class_loss: ["worst class's loss", 100, " points", ">"],
  max_p50_ms: ["p50", 1, " ms", ">"],
  max_p95_ms: ["p95", 1, " ms", ">"],
};

/** Why a constraint is broken, in words. */
function reason(failure) {
  if (!(failure.constraint in UNITS)) {
    return `${failure.constraint} is ${failure.value}, not ${failure.limit}`;
  }
  const [name, scale, unit, sign] = UNITS[failure.constraint];
  if (failure.value === null) return `${name} was not measured`;
  const four = (value) => Number((value * scale).toPrecision(4));
  return `${name} ${four(failure.value)}${unit} ${sign} ${four(failure.limit)}${unit}`;
}
