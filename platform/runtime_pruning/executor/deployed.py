"""A prunable network made fast for inference: fused, packed, and run in the mode that pays.

A batch is run in parts of as many images as is fastest when dense; so is the dense baseline. Every
mode means what `PrunableNetwork` means; they differ in how a part with unlike plans is cut:

* ``image``: one image at a time; nothing is gathered.
* ``prefix``: the batch is split where plans part, and never joined again until the logits.
* ``ragged``: layer by layer, one call in which each image has widths of its own (`native`).
* ``dense``: everything is computed and absent channels are set to zero: executed MACs are dense.
* ``auto``: the fastest of these for the batch and the MACs that are expected, by measurement.
* ``full``, of policies alone: nobody is asked, all images run at full width. ``auto`` does so where
  a policy was measured and no mode is faster than dense: what deciding takes cannot be left out.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.autotuning import check_batch, plans_near, run_parts
from runtime_pruning.executor.batching.gathering import gathered
from runtime_pruning.executor.batching.masked import run_dense
from runtime_pruning.executor.batching.plans import Outcome, PlanDecider, PolicyDecider, joined
from runtime_pruning.executor.batching.prefix import run_planned_prefix, run_prefix
from runtime_pruning.executor.batching.ragged import Ragged, runs_ragged
from runtime_pruning.executor.batching.uniform import run_alone, run_uniform
from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.executor.kernels.onednn import fused_calls_exist
from runtime_pruning.executor.mode_table import ModeTable
from runtime_pruning.executor.native import memory
from runtime_pruning.executor.program.binder import reads_planes
from runtime_pruning.executor.program.stage_programs import MOST_CHAINS, StagePrograms
from runtime_pruning.network.policies import Chooser, Deployable, PlannedChooser, Policy
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.staged_run import Execution, IntArrayLike, certainty
from runtime_pruning.timing.turns import compared, fastest_part

_Settled: TypeAlias = Literal["image", "prefix", "ragged", "dense"]
DeployedMode: TypeAlias = Literal["auto", "image", "prefix", "ragged", "dense"]
DEPLOYED_MODES: tuple[DeployedMode, ...] = get_args(DeployedMode)
PolicyMode: TypeAlias = DeployedMode | Literal["full"]
SAMPLED = 16  # plans of a batch that are looked at to choose its mode
_BASELINE = "baseline"


def deploy(
    network: PrunableNetwork,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    fused: bool | None = None,
    part: int | None = None,
) -> "DeployedNetwork":
    """Return a copy of the network for inference only.

    On a CPU, glibc is told to keep freed memory; see `native.keep_memory`.

    Args:
        network: its weights are copied, batch norm is folded into them.
        dtype: of weights and features; logits and pooled features are float32.
        device: where it runs.
        channels_last: memory layout of feature maps.
        fused: use oneDNN's fused calls, and our own; None: where they exist.
        part: images of a batch that run together; None: as many as is fastest, by measurement.

    Raises:
        ConfigError: fused calls are asked for where there are none, or a part below one image.
    """
    if part is not None and part < 1:
        raise ConfigError(f"`part >= 1` must hold, but got {part}.")
    on_cpu = torch.device(device).type == "cpu"
    possible = on_cpu and fused_calls_exist()
    if fused and not possible:
        raise ConfigError(f"`fused=True` needs a CPU and PyTorch with oneDNN, but got {device!r}.")
    if on_cpu:
        memory.keep_memory()
    own = copy.deepcopy(network).eval().to(device)
    use = possible if fused is None else fused
    return DeployedNetwork(own, dtype=dtype, channels_last=channels_last, fused=use, part=part)


class DeployedNetwork:
    """Runs plans and policies at inference; built by `deploy`.

    Args:
        network: in evaluation mode; it must not change any more.
        dtype: of weights and features.
        channels_last: memory layout of feature maps.
        fused: whether to use fused calls.
        part: images of a batch that run together; None: to be measured.

    Attributes:
        network: see above.
        break_even: which mode pays, if it was measured.
        dense_macs: of one pass of the backbone at full width, per image.
    """

    def __init__(
        self,
        network: PrunableNetwork,
        *,
        dtype: torch.dtype,
        channels_last: bool,
        fused: bool,
        part: int | None,
    ) -> None:
        self.network = network
        self.dtype = dtype
        self.channels_last = channels_last
        self.fused = fused
        self.break_even: ModeTable | None = None
        self._groups = network.groups
        self._bounds_LG = network.bounds_LG
        self._looks_twice = network.second_look
        self._full = network.uniform(self._groups)
        self.dense_macs = self._macs(self._full)
        plain = network.plain
        self._passed = len(plain.sites)  # decisions of a pass; a second look comes after it
        self._device = next(network.parameters()).device
        bounds = [site.bounds for site in plain.sites]
        with torch.inference_mode():
            lowered = lower(plain, fused=fused)
            # Calls are chosen on the first input: those for one image are others than for many.
            self._alone, self._many = (
                StagePrograms(lowered, bounds, dtype=dtype, fused=fused) for _ in range(2)
            )
            able = fused and channels_last and runs_ragged(lowered, dtype)
            channels = network.image_shape[0]
            self._planes = not channels_last or (fused and reads_planes(lowered, dtype, channels))
            self._ragged = Ragged(self._many, dtype) if able else None
        self._part = part
        self._parts: dict[tuple[int, int, bool], int] = {}
        self._apart = {True: False, False: False}  # whether a compiled call takes batches apart
        self._fractions: dict[tuple[int, ...], float] = {}
        self._spent: dict[str, IntArrayLike] = {}  # MACs of a policy's last batch, by image
        self._policies: WeakKeyDictionary[Policy, Policy] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[Policy, ModeTable] = WeakKeyDictionary()

    @property
    def modes(self) -> tuple[_Settled, ...]:
        """The modes that a batch can run in here."""
        every: tuple[_Settled, ...] = get_args(_Settled)
        return tuple(mode for mode in every if mode != "ragged" or self._ragged is not None)

    def programs(self, batch: int) -> StagePrograms:
        """Return the stages of the network, bound for batches of this size."""
        return self._alone if batch == 1 else self._many

    def part(self, batch: int, *, ragged: bool = False) -> int:
        """Return how many images of a batch run together; measured when it is first asked for.

        Args:
            batch: images.
            ragged: each at widths of its own; else alike.
        """
        if self._part is not None:
            return min(self._part, batch)
        if batch == 1 or self._apart[ragged] or self._device.type != "cpu":
            return batch
        key = (batch, torch.get_num_threads(), ragged)
        if key not in self._parts:
            self._parts[key] = self._measured_part(batch, ragged=ragged)
        return self._parts[key]

    @torch.inference_mode()
    def _measured_part(self, batch: int, *, ragged: bool) -> int:
        """Return how many images of a batch are best run together; see `part`."""
        images_BCHW = self.enter(torch.rand(batch, *self.network.image_shape))
        plans = [self._full] * batch
        if ragged:
            plans = self.plans(0.5, batch, torch.Generator().manual_seed(0))
        given = PlanDecider(torch.tensor(plans), self._groups)
        mode: _Settled = "ragged" if ragged else "prefix"

        def run(size: int) -> None:
            self._run_once(images_BCHW[:size], given.part(0, size, self._passed), mode)

        run(2)
        ours = self._ragged if ragged else None
        full = self._full[: self._passed]
        self._apart[ragged] = self._many.splits_batch(full) if ours is None else ours.splits_batch
        return batch if self._apart[ragged] else fastest_part(run, batch)

    def _part_in(self, mode: _Settled, batch: int) -> int:
        """Return how many images of a batch run together in a mode."""
        if batch == 1 or mode == "image":
            return 1
        return self.part(batch, ragged=mode == "ragged")

    @torch.inference_mode()
    def dense(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK``, float32, of the backbone at full width: the baseline."""
        return self._uniform(images_BCHW, self._full)

    def static(self, groups_L: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Return a network pruned to one plan for good: the limit of what slicing can gain."""
        plan = self._read(torch.tensor([list(groups_L)]), 1).first
        return torch.inference_mode()(lambda images_BCHW: self._uniform(images_BCHW, plan))

    def run(
        self, images_BCHW: Tensor, groups_BL: Tensor, *, mode: DeployedMode = "auto"
    ) -> Execution:
        """Run a plan that is known beforehand.

        Raises:
            ConfigError: shapes that do not fit, group counts out of range, or an unknown mode.
        """
        return self._planned(images_BCHW, groups_BL, mode, 0)

    @torch.inference_mode()
    def execute(
        self,
        images_BCHW: Tensor,
        policy: Policy,
        *,
        mode: PolicyMode = "auto",
        expected_fraction: float | None = None,
    ) -> Execution:
        """Run what a policy chooses, site by site; its own MACs are counted with it.

        Args:
            images_BCHW: float, in [0, 1].
            policy: what chooses; it must not change after its first run here.
            mode: how the batch is cut; see the module.
            expected_fraction: of the dense MACs, for the choice of a mode where the policy was not
                measured; None: as its last batches had.

        Raises:
            ConfigError: images of another shape, counts out of range, or an unknown mode.
        """
        size = images_BCHW.shape[0]
        table = self._tables.get(policy) if mode == "auto" else None
        if table is not None and table.threads == torch.get_num_threads():
            mode = cast(PolicyMode, table.choose(size, 1.0, steady="full"))
        if mode == "full":
            logits_BK = self._uniform(images_BCHW, self._full)
            return self._execution(Outcome.alike(logits_BK, self._full, self.dense_macs), mode, 0)
        policy = self._fast(policy)
        chooser = policy.start(size)
        if isinstance(chooser, PlannedChooser):
            return self._planned(images_BCHW, chooser.groups_BL, mode, policy.macs_per_image)
        asking = PolicyDecider(chooser, size, self._groups)
        if (size, mode) == (1, "auto") and self._ragged is not None and asking.compiled is not None:
            mode = "ragged"  # a compiled call or a few, where `image` has one for each stage
        fraction = partial(self._expected_of, policy, expected_fraction)
        chosen = self._mode(mode, size, fraction)
        if chosen != "image" and self._settled(asking):
            chosen = "prefix"  # it runs as one
        images_BCHW = self.enter(images_BCHW)
        part = self._part_in(chosen, size)
        if part >= size:
            outcome = self._asked(images_BCHW, chooser, chosen)
        else:
            outcome = joined(
                self._asked(images_BCHW[i : i + part], policy.start(min(part, size - i)), chosen)
                for i in range(0, size, part)
            )
        self._spent[policy.name] = outcome.macs
        return self._execution(outcome, chosen, policy.macs_per_image)

    def _expected_of(self, policy: Policy, told: float | None) -> float:
        """Return what is told, or the share of the dense MACs that a policy's last batch had."""
        spent = self._spent.get(policy.name)
        if told is not None or spent is None:
            return 0.5 if told is None else told
        return float(np.asarray(spent).mean()) / self.dense_macs

    def _fast(self, policy: Policy) -> Policy:
        """Return the form of a policy that is made for deployed networks, if it has one."""
        if not hasattr(policy, "deploy"):
            return policy
        found = self._policies.get(policy)
        if found is None:
            assert isinstance(policy, Deployable)  # slow: it looks at every member
            found = self._policies[policy] = policy.deploy()
        return found

    def fraction(self, plan: tuple[int, ...]) -> float:
        """Return a plan's share of the dense MACs, by formula."""
        found = self._fractions.get(plan)
        if found is None:
            if len(self._fractions) >= MOST_CHAINS:
                self._fractions.clear()
            found = self._fractions[plan] = self._macs(plan) / self.dense_macs
        return found

    def _macs(self, plan: tuple[int, ...]) -> int:
        channels_1L = self.network.channels(torch.tensor([plan]))
        return sum(int(unit.macs(channels_1L)[0]) for unit in self.network.priced_units)

    def measure_break_even(
        self,
        batches: Sequence[int] = (1, 4, 16, 64),
        fractions: Sequence[float] = (0.95, 0.75, 0.5, 0.25),
        *,
        rounds: int = 5,
        least_seconds: float = 0.02,
        seed: int = 0,
    ) -> ModeTable:
        """Time each mode against dense at random plans; ``auto`` goes by it from here on.

        Args:
            batches: sizes to measure at.
            fractions: of the dense MACs; those below the smallest plan count as that plan. At 1 all
                images share a plan.
            rounds: readings per mode, interleaved; more of those that may be the fastest.
            least_seconds: per reading.
            seed: of images and plans.
        """
        generator = torch.Generator().manual_seed(seed)
        ratios = {}
        for batch in batches:
            shape = (batch, *self.network.image_shape)
            images_BCHW = torch.rand(shape, generator=generator).to(self._device)
            for fraction in fractions:
                plans_BL = torch.tensor(self.plans(fraction, batch, generator))
                calls: dict[str, Callable[[], object]] = {
                    mode: partial(self.run, images_BCHW, plans_BL, mode=mode)
                    for mode in (("image", "dense") if batch == 1 else self.modes)
                }
                calls[_BASELINE] = partial(self.dense, images_BCHW)
                found = compared(
                    calls, _BASELINE, rounds=rounds, least_seconds=least_seconds, wait=self._wait
                )
                del found[_BASELINE]
                ratios[batch, fraction] = found
        self.break_even = ModeTable(torch.get_num_threads(), ratios)
        return self.break_even

    def measure_policy(
        self,
        images_NCHW: Tensor,
        policy: Policy,
        batches: Sequence[int],
        *,
        rounds: int = 5,
        least_seconds: float = 0.02,
    ) -> ModeTable:
        """Time a policy, its decisions included, in each mode against dense.

        ``auto`` goes by it from here on wherever this policy is executed.

        Args:
            images_NCHW: float, in [0, 1], of the kind that the policy is to serve: what it spends
                depends on them.
            policy: as it will be passed to `execute`.
            batches: sizes to measure at, each at most N.
            rounds: readings per mode, interleaved; more of those that may be the fastest.
            least_seconds: per reading.

        Raises:
            ConfigError: a batch below one image or above N.
        """
        count, threads = len(images_NCHW), torch.get_num_threads()
        known = self._tables.get(policy)
        ratios = dict(known.ratios) if known is not None and known.threads == threads else {}
        for batch in batches:
            check_batch(batch, count)
            parts = torch.split(images_NCHW, batch)
            modes = self.modes
            if batch == 1:
                modes = ("image",) if self._ragged is None else ("image", "ragged")
            calls: dict[str, Callable[[], object]] = {
                mode: partial(run_parts, partial(self.execute, policy=policy, mode=mode), parts)
                for mode in modes
            }
            calls["full"] = partial(run_parts, self.dense, parts)
            ratios[batch, 1.0] = compared(
                calls, "full", rounds=rounds, least_seconds=least_seconds, wait=self._wait
            )
        table = self._tables[policy] = ModeTable(threads, ratios)
        return table

    def plans(
        self, fraction: float, batch: int, generator: torch.Generator
    ) -> list[tuple[int, ...]]:
        """Return random plans, one per image, whose MACs are about a fraction of the dense ones.

        They look once.
        """
        once = (1,) * (len(self.network.sites) - self._passed)
        found = plans_near(
            lambda plan: self.fraction((*plan, *once)),
            sites=self._passed,
            groups=self._groups,
            fraction=fraction,
            batch=batch,
            generator=generator,
        )
        return [(*plan, *once) for plan in found]

    # Inside

    @property
    def _wait(self) -> Callable[[], None] | None:
        """What waits for the device; None on a CPU, where calls return when they are done."""
        cuda = self._device.type == "cuda"
        return partial(torch.cuda.synchronize, self._device) if cuda else None

    def enter(self, images_BCHW: Tensor) -> Tensor:
        """Return images on the device, in the type and layout that the calls were bound to."""
        if images_BCHW.ndim != 4 or tuple(images_BCHW.shape[1:]) != self.network.image_shape:
            raise ConfigError(
                f"Images of shape (B, {', '.join(map(str, self.network.image_shape))}) are "
                f"needed, but got {tuple(images_BCHW.shape)}."
            )
        layout = torch.contiguous_format if self._planes else torch.channels_last
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return images_BCHW.to(self._device, dtype).contiguous(memory_format=layout)

    def _uniform(self, images_BCHW: Tensor, plan: tuple[int, ...]) -> Tensor:
        images_BCHW = self.enter(images_BCHW)
        size = images_BCHW.shape[0]
        part = self.part(size)
        if part >= size:
            return self._run_uniform(images_BCHW, plan).float()
        parts = [self._run_uniform(images_BCHW[i : i + part], plan) for i in range(0, size, part)]
        return torch.cat(parts).float()

    def _run_uniform(self, images_BCHW: Tensor, plan: tuple[int, ...]) -> Tensor:
        programs = self.programs(images_BCHW.shape[0])
        logits_BK = run_uniform(programs, images_BCHW, plan[: self._passed])[0]
        again = plan[self._passed :]
        return self._pass(images_BCHW, again[0])[0] if again and again[0] > 1 else logits_BK

    def _pass(self, images_BCHW: Tensor, groups: int) -> tuple[Tensor, int]:
        """Return ``logits_BK`` of a pass with so many groups at each site, and its MACs."""
        plan = (groups,) * self._passed
        return run_uniform(self.programs(images_BCHW.shape[0]), images_BCHW, plan)

    def _again(self, outcome: Outcome, images_BCHW: Tensor, counts: Sequence[int]) -> Outcome:
        """Return what comes of a part whose images look again where their count is above one."""
        logits_BK, macs_B = outcome.logits_BK, np.array(outcome.macs)
        for groups in sorted({*counts} - {1}):
            rows = [row for row, count in enumerate(counts) if count == groups]
            rows_N = torch.tensor(rows, device=images_BCHW.device)
            alone = len(rows) == len(counts)
            wide_NK, spent = self._pass(
                images_BCHW if alone else gathered(images_BCHW, rows_N), groups
            )
            logits_BK = wide_NK if alone else logits_BK.index_copy(0, rows_N, wide_NK)
            macs_B[rows] += spent
        groups_BL = np.concatenate([np.asarray(outcome.plans), np.array(counts)[:, None]], 1)
        return Outcome(logits_BK, groups_BL, macs_B)

    def _read(self, groups_BL: Tensor, size: int) -> PlanDecider:
        """Return plans of so many images.

        Raises:
            ConfigError: another shape, or a count out of range.
        """
        if not groups_BL.is_cpu or groups_BL.dtype != torch.int64:
            groups_BL = groups_BL.to("cpu", torch.int64)
        if groups_BL.shape != (size, len(self._full)):
            raise ConfigError(
                f"A plan of shape {(size, len(self._full))} is needed, "
                f"but got {tuple(groups_BL.shape)}."
            )
        return PlanDecider(groups_BL, self._groups)

    def _mode(self, mode: DeployedMode, size: int, fraction: Callable[[], float]) -> _Settled:
        """Return the mode to run in."""
        if mode not in DEPLOYED_MODES:
            raise ConfigError(f"`mode` must be one of {DEPLOYED_MODES}, but got {mode!r}.")
        if mode == "ragged" and self._ragged is None:
            raise ConfigError(f"`mode={mode!r}` cannot run this network here; see `modes`.")
        if mode != "auto":
            return mode
        if size == 1:
            return "image"
        known = self.break_even
        if known is None or known.threads != torch.get_num_threads():
            return "prefix" if self._ragged is None else "ragged"
        steady = "ragged"  # it takes as long whatever plans meet in a batch
        found: Any = known.always(size, steady) or known.choose(size, fraction(), steady)
        return found

    @torch.inference_mode()
    def _planned(
        self, images_BCHW: Tensor, groups_BL: Tensor, mode: DeployedMode, policy_macs: int
    ) -> Execution:
        """Run plans that are known."""
        images_BCHW = self.enter(images_BCHW)
        size = images_BCHW.shape[0]
        plans = self._read(groups_BL, size)
        chosen: _Settled = "prefix"
        if mode != "auto" or not plans.alike:
            chosen = self._mode(mode, size, partial(self._fraction_of, plans))
        part = self._part_in(chosen, size)
        if part >= size and not self._looks_twice:
            outcome = self._run_once(images_BCHW, plans, chosen)
        else:
            outcome = joined(
                self._run_part(images_BCHW, plans, first, min(first + part, size), chosen)
                for first in range(0, size, part)
            )
        return self._execution(outcome, chosen, policy_macs)

    def _fraction_of(self, plans: PlanDecider) -> float:
        """Return the mean share of the dense MACs of plans, or of some where they are many."""
        some = plans.rows[:: max(1, plans.size // SAMPLED)]
        return sum(map(self.fraction, some)) / len(some)

    def _run_part(
        self, images_BCHW: Tensor, plans: PlanDecider, first: int, last: int, mode: _Settled
    ) -> Outcome:
        """Run images ``[first, last)`` together."""
        images_BCHW = images_BCHW[first:last]
        once = self._run_once(images_BCHW, plans.part(first, last, self._passed), mode)
        if not self._looks_twice:
            return once
        return self._again(once, images_BCHW, [row[-1] for row in plans.rows[first:last]])

    def _run_once(self, images_BCHW: Tensor, plans: PlanDecider, mode: _Settled) -> Outcome:
        """Run images together, one pass."""
        programs, sites = self.programs(plans.size), self._passed
        if mode == "dense" and not (plans.alike and plans.first == self._full[:sites]):
            return run_dense(programs, images_BCHW, plans, sites)
        if plans.alike:
            plan = plans.first
            logits_BK, macs = run_uniform(programs, images_BCHW, plan)
            return Outcome.alike(logits_BK, plan, macs)
        if mode == "ragged" and self._ragged is not None:
            return self._ragged.run(images_BCHW, plans)
        return run_planned_prefix(programs, images_BCHW, plans.rows)

    def _asked(self, images_BCHW: Tensor, chooser: Chooser, mode: _Settled) -> Outcome:
        """Run what a chooser says, the whole batch going from site to site."""
        decide = PolicyDecider(chooser, images_BCHW.shape[0], self._groups)
        once = self._asked_once(images_BCHW, decide, mode)
        if not self._looks_twice:
            return once
        counts = decide(self._passed, lambda: certainty(once.logits_BK))
        return self._again(once, images_BCHW, counts)

    def _settled(self, decide: PolicyDecider) -> bool:
        """Whether all decisions of the first pass are known before it."""
        return decide.settled >= self._passed

    def _asked_once(self, images_BCHW: Tensor, decide: PolicyDecider, mode: _Settled) -> Outcome:
        """Run what a chooser says, one pass."""
        if self._settled(decide):
            logits_BK, macs = self._pass(images_BCHW, 1)
            return Outcome.alike(logits_BK, (1,) * self._passed, macs)
        if mode == "ragged" and self._ragged is not None:
            return self._ragged.run(images_BCHW, decide)
        ways = {"dense": run_dense, "prefix": run_prefix, "image": run_alone}
        return ways[mode](self.programs(decide.size), images_BCHW, decide, self._passed)

    def _execution(self, outcome: Outcome, mode: str, policy_macs: int) -> Execution:
        return Execution(
            logits_BK=outcome.logits_BK.float(),
            plans=outcome.plans,
            macs=outcome.macs,
            policy_macs=policy_macs,
            bounds_LG=self._bounds_LG,
            mode=mode,
        )
