"""Runtime pruning as a Markov decision process, many images in lockstep.

An episode is one image; a step is one site of the network, the same for all images of a batch.

| part | what |
|---|---|
| observation | ``features`` (pooled input of the site's convolution, zero-padded to the widest site), ``site`` (0 to L; L when the episode is over), ``penalty``, ``previous_groups`` (0 before the first decision) |
| action | a: run the first ``a + 1`` channel groups of the site |
| reward | ``-penalty * cost(decision)``; the last step adds ``-alpha * loss of the answer`` |
| end | after the last site: terminated, features zero |
| info | ``cost`` of the decision, unweighted; with the last also ``loss`` of the answer, ``correct``, ``executed_macs``, ``image`` |

Source: Lin, Rao, Lu, Zhou, "Runtime Neural Pruning", NeurIPS 2017, section 3.2.
Dimensions: B images, C channels, H W pixels, L sites, F features, K classes, N images in all.
"""  # noqa: E501

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from pruning_envs.protocols import (
    AnswerLoss,
    ExecutionMode,
    GroupCost,
    Images,
    StagedNetwork,
    StagedRun,
    StepCost,
    answer_loss,
)
from pruning_envs.sampling import ImageQueue, PenaltyRange, Shard

# Finite, as the checkers ask, and such that high - low does not overflow float32.
FEATURE_LIMIT = 1e30
PENALTY_LIMIT = 1e6

Observation = dict[str, NDArray[Any]]
StepResult = tuple[
    Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


def observation_space(feature_width: int, sites: int, groups: int) -> Dict:
    """Return the space of one image's observation."""
    return Dict(
        {
            "features": Box(-FEATURE_LIMIT, FEATURE_LIMIT, (feature_width,), np.float32),
            "site": Discrete(sites + 1),
            "penalty": Box(0.0, PENALTY_LIMIT, (1,), np.float32),
            "previous_groups": Discrete(groups + 1),
        }
    )


class RuntimePruningVectorEnv(VectorEnv):  # type: ignore[misc]
    """B images that pass through one network together, one site per step.

    All images finish at the same step; the step after that ignores its actions and returns the
    first observation of the next images (``AutoresetMode.NEXT_STEP``).
    The environment works on its own copy of the network: others reach it by `set_backbone` only.

    Args:
        network: a network that runs stage by stage, or a function that returns one.
        images: uint8 of shape (N, C, H, W); shared, never copied; read batch by batch.
        labels: N class indices.
        penalty: reward lost per unit of cost, at least 0; a pair (low, high) is drawn from
            log-uniformly, per episode.
        num_envs: images per batch.
        alpha: weight of the answer's loss in the last reward; scale it so that the mean of
            ``alpha * loss`` is about 1.
        loss: of the answer; the paper's is cross-entropy.
        step_cost: what a decision costs; None is the paper's `GroupCost`.
        seed: of image order and penalties until `reset` is given one.
        mode: how the network executes plans. The rewards are the same.
        shard: which part of the images this environment draws from.
        device: where the network runs; observations are always on the CPU.

    Raises:
        ValueError: images, labels, penalty or shard are not of that form.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        *,
        network: StagedNetwork | Callable[[], StagedNetwork],
        images: Images,
        labels: NDArray[np.int64],
        penalty: float | Sequence[float] | PenaltyRange,
        num_envs: int = 1,
        alpha: float = 1.0,
        loss: AnswerLoss = "cross-entropy",
        step_cost: StepCost | None = None,
        seed: int | None = None,
        mode: ExecutionMode = "masked",
        shard: tuple[int, int] = (0, 1),
        device: str = "cpu",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"`num_envs >= 1` must hold, but got {num_envs}.")
        if not 0 <= alpha < np.inf:
            raise ValueError(f"`0 <= alpha < inf` must hold, but got {alpha}.")
        self.num_envs = num_envs
        self.alpha = alpha
        self._loss = loss
        answer_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), loss)  # refuses others
        self.penalties = PenaltyRange.of(penalty)
        self.network = _own_copy(network, device)
        self._device = device
        self._mode = mode
        self._step_cost = step_cost if step_cost is not None else GroupCost()
        self._queue = ImageQueue(images, labels, shard=Shard(*shard))
        self._set_spaces()
        self._run: StagedRun | None = None
        self.backbone_version = 0
        self._pending_backbone: tuple[Mapping[str, Any], int] | None = None
        self._seed_draws(seed)

    def _set_spaces(self) -> None:
        """Derive the spaces from the network."""
        widths = self.network.feature_widths
        self.sites = len(widths)
        self.groups = int(self.network.groups)
        self._feature_width = max(widths)
        self.single_observation_space = observation_space(
            self._feature_width, self.sites, self.groups
        )
        self.single_action_space = Discrete(self.groups)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _seed_draws(self, seed: int | None) -> None:
        """Restart the draws; shards of one seed draw from independent streams."""
        chosen = int(np.random.default_rng().integers(2**63)) if seed is None else seed
        self._np_random_seed = chosen
        stream = [chosen, self._queue.shard.index]
        self._np_random = np.random.default_rng(stream)
        self._queue.restart()

    # -- what the driver may change ---------------------------------------------------------

    def set_backbone(self, state_dict: Mapping[str, Any], version: int) -> int:
        """Take other network weights, from the next episode on.

        Returns:
            The version that the next episode runs with.
        """
        self._pending_backbone = (state_dict, version)
        if self._run is None or self._run.finished:
            self._load_pending_backbone()
        return version

    def _load_pending_backbone(self) -> None:
        """Load weights that waited for the end of an episode."""
        if self._pending_backbone is not None:
            state_dict, self.backbone_version = self._pending_backbone
            self.network.load_state_dict(state_dict)
            self._pending_backbone = None

    def set_images(
        self, images: Images, labels: NDArray[np.int64], *, shuffle: bool = True
    ) -> None:
        """Draw the next episodes from other images, in their own order if not shuffled."""
        shard = self._queue.shard
        self._queue = ImageQueue(images, labels, shard=shard, shuffle=shuffle)

    def set_shard(self, index: int, count: int) -> None:
        """Draw the next episodes from one part of the images; the draws start again."""
        self._queue = ImageQueue(
            self._queue.images_NCHW,
            self._queue.labels_N,
            shard=Shard(index, count),
            shuffle=self._queue.shuffle,
        )
        self._seed_draws(self.np_random_seed)

    def set_penalty(self, penalty: float | Sequence[float] | PenaltyRange) -> None:
        """Run the next episodes under other penalties."""
        self.penalties = PenaltyRange.of(penalty)

    # -- gymnasium's interface --------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode for each of the B images.

        Args:
            seed: restarts the draws of images and penalties.
            options: none are known. A ``reset_mask`` must be all true: images move in lockstep.

        Raises:
            ValueError: a reset mask that spares some images.
        """
        mask_B = (options or {}).get("reset_mask")
        if mask_B is not None and not np.all(mask_B):
            raise ValueError(f"Images move in lockstep: reset all or none, but got mask {mask_B}.")
        if seed is not None:
            self._seed_draws(seed)
        self._load_pending_backbone()
        self._start_episode()
        return self._observe(), {"image": self._image_B.copy()}

    def _start_episode(self) -> None:
        """Draw images and penalties and run the network up to its first site."""
        self._image_B = self._queue.take(self.num_envs, self._np_random)
        self._penalty_B = self.penalties.draw(self.num_envs, self._np_random)
        self._groups_BL = torch.zeros(self.num_envs, self.sites, dtype=torch.int64)
        self._label_B = torch.as_tensor(self._queue.labels_N[self._image_B], dtype=torch.int64)
        images_BCHW = torch.from_numpy(self._queue.images_NCHW[self._image_B])
        with torch.inference_mode():
            self._run = self.network.start(
                images_BCHW.to(self._device).float() / 255, mode=self._mode
            )

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Run one site of all images, or start the next episodes if these are over.

        Args:
            actions: B integers in [0, groups): run ``action + 1`` groups.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.InvalidAction: an action outside that range.
        """
        if self._run is None:
            raise gym.error.ResetNeeded("Call reset() before the first step().")
        never_B = np.zeros(self.num_envs, np.bool_)
        if self._run.finished:
            observation, info = self.reset()
            return observation, np.zeros(self.num_envs, np.float32), never_B, never_B.copy(), info
        cost_B = self._advance(self._run, self._checked(actions))
        reward_B = -torch.from_numpy(self._penalty_B) * cost_B
        over = self._run.finished
        facts = {"cost": cost_B.numpy()}
        if over:
            loss_B, outcome = self._classified(self._run)
            reward_B = reward_B - self.alpha * loss_B
            facts |= outcome
        present_B = np.ones(self.num_envs, np.bool_)
        info = facts | {f"_{name}": present_B for name in facts}
        over_B = np.full(self.num_envs, over, np.bool_)
        return self._observe(), reward_B.numpy(), over_B, never_B, info

    def _checked(self, actions: NDArray[np.int64]) -> Tensor:
        """Return the actions as ``groups_B``."""
        groups_B = torch.as_tensor(np.asarray(actions), dtype=torch.int64) + 1
        if groups_B.shape != (self.num_envs,):
            raise gym.error.InvalidAction(
                f"There must be {self.num_envs} actions, but got shape {tuple(groups_B.shape)}."
            )
        if groups_B.min() < 1 or groups_B.max() > self.groups:
            raise gym.error.InvalidAction(
                f"Actions must lie in [0, {self.groups}), but got {np.asarray(actions)}."
            )
        return groups_B

    def _advance(self, run: StagedRun, groups_B: Tensor) -> Tensor:
        """Run the site with ``groups_B`` and return the price of that as ``reward_B``."""
        site = run.site
        self._groups_BL[:, site] = groups_B
        with torch.inference_mode():
            run.advance(groups_B.to(self._device))
        cost_B = self._step_cost(site, self._groups_BL[:, : site + 1])
        return cost_B.float().cpu()

    def _classified(self, run: StagedRun) -> tuple[Tensor, dict[str, Any]]:
        """Return ``loss_B`` of finished images, and the facts of their episodes."""
        with torch.inference_mode():
            logits_BK = run.logits_BK.float().cpu()
        loss_B = answer_loss(logits_BK, self._label_B, self._loss)
        facts = {
            "image": self._image_B.copy(),
            "loss": loss_B.numpy(),
            "correct": (logits_BK.argmax(1) == self._label_B).numpy(),
            "executed_macs": run.executed_macs_B.cpu().numpy(),
        }
        return loss_B, facts

    def _observe(self) -> Observation:
        """Return what the images' next decisions may look at."""
        assert self._run is not None
        site = self.sites if self._run.finished else self._run.site
        features_BF = np.zeros((self.num_envs, self._feature_width), np.float32)
        if not self._run.finished:
            with torch.inference_mode():
                seen_BF = self._run.features_BF.float().cpu().numpy()
            features_BF[:, : seen_BF.shape[1]] = seen_BF
        previous_B = self._groups_BL[:, site - 1] if site else torch.zeros_like(self._label_B)
        return {
            "features": features_BF,
            "site": np.full(self.num_envs, site, np.int64),
            "penalty": self._penalty_B[:, None].copy(),
            "previous_groups": previous_B.numpy().copy(),
        }


def _own_copy(network: StagedNetwork | Callable[[], StagedNetwork], device: str) -> StagedNetwork:
    """Return a copy for inference that nobody else can change."""
    made = copy.deepcopy(network) if hasattr(network, "start") else network()
    own = cast(StagedNetwork, made)
    own.eval()
    own.to(device)
    return own
