"""Cascades of the published CIFAR-10 ResNets, found and judged from their records alone.

Run:     python tests/benchmarks/published_cascade.py --records DIR [--timing] [--dqn]
         [--data-dir D] [--weights-dir W]
Expect:  docs/lab/published-cascades.md. Records are made in DIR where it lacks them, in two minutes
         of one core; with --dqn two agents are trained, in some minutes each.

The published weights have learnt all 50,000 training images, those of the policy and validation
splits too: their answers there are right and sure, as on no image that they have not seen. What is
fitted and chosen there is shown as *seen*. As *halves*, everything is fitted on the even test
images and judged on the odd ones, and the other way round: no image is judged by what it taught.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from pruning_envs import CascadeTable
from runtime_pruning import backbones, datasets
from runtime_pruning.agents.cascade_dqn import CascadeDQNSettings, train_cascade_dqn
from runtime_pruning.cascades import (
    Answers,
    CascadeExecutor,
    CascadeMember,
    Chooser,
    Outcome,
    Rule,
    align,
    best_of,
    fit_combination,
    fit_regression,
    judge,
    search_thresholds,
)
from runtime_pruning.cascades.q_chooser import QChooser
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import ImageDataset, Split
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.frontier.records import AnswerKind, Judged, Record, read_record, write_record
from runtime_pruning.methods.evaluation import answer
from runtime_pruning.network import PrunableNetwork, trace

MEMBERS = ("resnet20-cifar", "resnet32-cifar", "resnet56-cifar")
SPLITS: tuple[Judged, ...] = ("policy", "validation", "test")
BATCH = 64


def dense_record(
    network: PrunableNetwork, run: DeployedNetwork, split: Split, name: Judged, content: str
) -> Record:
    """Return the record of a dense network on a split, by the compiled executor."""
    parts = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(split), BATCH), unit="batch", disable=None):
            images_BCHW = datasets.to_float(split.images_NCHW[start : start + BATCH])
            parts.append(run.dense(images_BCHW).clone())
    logits_NK, labels_N = torch.cat(parts), torch.tensor(split.labels_N)
    log_NA, classes_NA = answer(logits_NK)
    channels_L = network.channels(torch.tensor([network.uniform(network.groups)]))
    return Record.from_arrays(
        split=name,
        image_ids_N=split.ids_N,
        labels_N=labels_N,
        predictions_N=logits_NK.argmax(1),
        losses_N=torch.nn.functional.cross_entropy(logits_NK, labels_N, reduction="none"),
        channels_NL=channels_L.expand(len(split), -1),
        executed_macs_N=np.full(len(split), dense_macs(network)),
        answers=AnswerKind(num_classes=logits_NK.shape[1], content=content),
        log_probabilities_NA=log_NA,
        answer_classes_NA=classes_NA,
    )


def published(member: str, data: ImageDataset, weights_dir: Path | None) -> PrunableNetwork:
    """Return a member with its published weights."""
    backbone = backbones.create(
        member,
        num_classes=len(data.info.classes),
        image_shape=data.info.image_shape,
        weights_dir=weights_dir,
        pretrained=True,
    )
    network: PrunableNetwork = trace(backbone.eval(), data.info.image_shape, groups=4).eval()
    return network


def make_records(folder: Path, data: ImageDataset, weights_dir: Path | None) -> None:
    """Write the records that a folder lacks: one per member and split."""
    for member in MEMBERS:
        missing = [name for name in SPLITS if not record_path(folder, member, name).exists()]
        if not missing:
            continue
        network = published(member, data, weights_dir)
        run = deploy(network)
        for name in missing:
            record = dense_record(network, run, getattr(data, name), name, data.content_hash())
            write_record(record, record_path(folder, member, name))


def record_path(folder: Path, member: str, split: Judged) -> Path:
    """Return where a member's record of a split lies."""
    return folder / member / f"{split}.parquet"


# Shares of ResNet-56's MACs: a curve's best point at no greater cost on the images that it was
# fitted on is judged on the others.
TARGETS = (0.33, 0.35, 0.38, 0.405, 0.43, 0.465, 0.505, 0.56, 0.65)
PENALTIES = np.geomspace(0.01, 1, 25)


@dataclass(frozen=True)
class Half:
    """Images to fit on and others to judge on."""

    fitted: Answers
    judged: Answers


def halves(answers: Answers) -> tuple[Half, Half]:
    """Return even images to fit on with odd ones to judge, and the other way round."""
    even, odd = (_part(answers, answers.image_ids_N % 2 == rest) for rest in (0, 1))
    return Half(even, odd), Half(odd, even)


def _part(answers: Answers, chosen_N: npt.NDArray[np.bool_]) -> Answers:
    return replace(
        answers,
        image_ids_N=answers.image_ids_N[chosen_N],
        labels_N=answers.labels_N[chosen_N],
        log_probabilities_NMK=answers.log_probabilities_NMK[chosen_N],
        macs_NM=answers.macs_NM[chosen_N],
    )


def curve(kind: str, table: CascadeTable, settings: CascadeDQNSettings | None) -> list[Chooser]:
    """Return choosers of one kind, learned on a table, for a range of costs."""
    if kind == "threshold":
        return list(search_thresholds(table, points=64))
    if kind == "regression":
        return [fit_regression(table, float(penalty)) for penalty in PENALTIES]
    assert settings is not None
    network = train_cascade_dqn(table, settings)
    return [QChooser(network, float(penalty)) for penalty in PENALTIES]


def judged(
    kind: str, rule: Rule, parts: Sequence[Half], settings: CascadeDQNSettings | None = None
) -> list[tuple[object, ...]]:
    """Return a row per target: cost and accuracy where judged, paired gain over the last member."""
    per_target: dict[float, list[tuple[Outcome, npt.NDArray[np.bool_]]]] = {}
    for part in parts:
        made = fit_combination(part.fitted, rule)
        reference = float(part.fitted.macs_NM[:, -1].mean())
        fitted, shown = made.table(part.fitted, reference), made.table(part.judged, reference)
        choosers = curve(kind, fitted, settings)
        known = [judge(fitted, chooser) for chooser in choosers]
        last_N = part.judged.log_probabilities_NMK[:, -1].argmax(axis=1) == part.judged.labels_N
        for target in TARGETS:
            within = [at for at, outcome in enumerate(known) if outcome.cost <= target]
            if within:
                best = max(within, key=lambda at: known[at].accuracy)
                per_target.setdefault(target, []).append((judge(shown, choosers[best]), last_N))
    rows: list[tuple[object, ...]] = []
    for target, found in per_target.items():
        if len(found) < len(parts):
            continue
        right_N = np.concatenate([outcome.correct_N for outcome, _ in found]).astype(float)
        cost = float(np.concatenate([outcome.costs_N for outcome, _ in found]).mean())
        gain_N = 100 * (right_N - np.concatenate([last_N for _, last_N in found]))
        error = 1.96 * gain_N.std() / np.sqrt(len(gain_N))
        row = (kind, rule, target, cost, 100 * right_N.mean(), gain_N.mean(), error)
        rows.append(tuple(round(x, 3) if isinstance(x, float) else x for x in map(_plain, row)))
    return rows


def _plain(value: object) -> object:
    return float(value) if isinstance(value, np.floating) else value


def by_seen_images(answers: dict[Judged, Answers], rule: Rule) -> list[tuple[object, ...]]:
    """Return what thresholds chosen on seen images amount to there and on test."""
    made = fit_combination(answers["policy"], rule)
    reference = float(answers["test"].macs_NM[:, -1].mean())
    tables = {name: made.table(each, reference) for name, each in answers.items()}
    found = best_of(search_thresholds(tables["policy"]), tables["validation"])
    rows: list[tuple[object, ...]] = []
    for chooser, accuracy, cost in found:
        test = judge(tables["test"], chooser)
        row = (rule, cost, 100 * accuracy, test.cost, 100 * test.accuracy)
        rows.append(tuple(round(x, 3) if isinstance(x, float) else x for x in row))
    return rows


def half_precision_moves(answers: Answers) -> int:
    """Return on how many images the combined answer changes where answers are kept in float16."""
    made = fit_combination(answers)
    stored = answers.log_probabilities_NMK.astype(np.float16).astype(np.float32)
    rows_N, all_N = np.arange(len(answers.labels_N)), np.full(len(answers.labels_N), 7)
    said = [
        made.table(each, 1.0).combined(rows_N, all_N).argmax(axis=1)
        for each in (answers, replace(answers, log_probabilities_NMK=stored))
    ]
    return int((said[0] != said[1]).sum())


def speeds(
    answers: Answers, data: ImageDataset, weights_dir: Path | None
) -> list[tuple[object, ...]]:
    """Return a row per cascade and batch: MACs, speed-up over ResNet-56 in CPU time, realisation.

    Dense and cascade take turns in one process on one thread; the median of six ratios. Thresholds
    are found on the test images themselves: their speed is measured here, not their accuracy.
    """
    torch.set_num_threads(1)
    reference = float(answers.macs_NM[:, -1].mean())
    made = fit_combination(answers, "sum")
    table = made.table(answers, reference)
    networks = [published(member, data, weights_dir) for member in MEMBERS]
    deployed = [deploy(network) for network in networks]
    members = [
        CascadeMember.static(run.dense, dense_macs(network))
        for run, network in zip(deployed, networks, strict=True)
    ]
    images_NCHW = datasets.to_float(data.test.images_NCHW[:512])
    rows: list[tuple[object, ...]] = []
    for target in (0.405, 0.47):
        within = [c for c in search_thresholds(table) if judge(table, c).cost <= target]
        run = CascadeExecutor(members, made, within[-1], num_classes=len(data.info.classes))
        for batch in (64, 1):
            parts = torch.split(images_NCHW[: 512 if batch > 1 else 256], batch)
            ratios = []
            for _ in range(7):
                dense, _ = _cpu_seconds(deployed[-1].dense, parts)
                spent, found = _cpu_seconds(run, parts)
                ratios.append(dense / spent)
            macs = float(np.concatenate([each.executed_macs_B for each in found]).mean())
            speedup = float(np.median(ratios[1:]))
            share = macs / reference
            rows.append((target, batch, *(round(x, 3) for x in (share, speedup, speedup * share))))
    return rows


def _cpu_seconds(run: Callable[[Tensor], Any], parts: Sequence[Tensor]) -> tuple[float, list[Any]]:
    start = time.process_time()
    found = [run(part) for part in parts]
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="folder of the records")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--dqn", action="store_true", help="train the agents, too")
    parser.add_argument("--timing", action="store_true", help="time cascades, too")
    parser.add_argument("--env-steps", type=int, default=60_000, help="of each agent")
    options = parser.parse_args()
    data = datasets.load("cifar10", options.data_dir)
    make_records(options.records, data, options.weights_dir)
    answers: dict[Judged, Answers] = {
        name: align([read_record(record_path(options.records, each, name)) for each in MEMBERS])
        for name in SPLITS
    }
    for name, each in answers.items():
        right_NM = each.log_probabilities_NMK.argmax(axis=2) == each.labels_N[:, None]
        print(
            name, dict(zip(MEMBERS, (100 * right_NM.mean(axis=0)).round(2).tolist(), strict=True))
        )
    print("float16 changes the answers to", half_precision_moves(answers["test"]), "test images")
    rules: tuple[Rule, ...] = get_args(Rule)
    show("seen images: rule, cost there, accuracy there, cost and accuracy on test")
    for rule in rules:
        show(*by_seen_images(answers, rule))
    parts = halves(answers["test"])
    show("halves of test: chooser, rule, target, cost, accuracy, gain over ResNet-56, +-")
    for rule in rules:
        show(*judged("threshold", rule, parts))
    show(*judged("regression", "sum", parts))
    if options.timing:
        show("speed: target, batch, MACs, speed-up in CPU time, realisation")
        show(*speeds(answers["test"], data, options.weights_dir))
    if options.dqn:
        show(*judged("dqn", "sum", parts, CascadeDQNSettings(env_steps=options.env_steps)))


def show(*rows: object) -> None:
    """Print rows as JSON, as docs/results holds them."""
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
