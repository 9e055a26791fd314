"""A cascade as a Markov decision process: which member runs next, or is the answer good enough?

An episode is one image; a step runs one more member, or stops.

| part | what |
|---|---|
| observation | float32: the features of the combined answer (`cascade_table.features`), then the natural logarithm of the penalty |
| action | 0: stop; m + 1: run member m |
| reward | ``-penalty * cost`` of the member that runs; and ``-alpha * loss`` of the combined answer at the end (``reward="final"``), or what the member has spared of that loss (``reward="gain"``) |
| end | at a stop; when all members have run; at an action that runs a member again, which runs nothing and stops |
| info | ``image``, ``cost`` of the step; at the end also ``loss``, ``correct``, ``members`` that ran |

Both rewards make the same return, but for a constant: the loss of a guess. By gains a stop is worth
nothing, and what running a member is worth shows at once (potential-based shaping: Ng, Harada,
Russell, ICML 1999).

A member that has run has nothing new to say, so that running it again means to stop: no mask is
needed, and no episode is longer than there are members. A stop before any member has run answers
with a guess.

No network runs: members' answers are a table. Dimensions: B images, M members, F features.
"""  # noqa: E501

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from pruning_envs.cascade_table import CascadeTable, loss_of, num_features
from pruning_envs.protocols import AnswerLoss
from pruning_envs.sampling import PenaltyRange
from pruning_envs.single_env import OneImageEnv

FEATURE_LIMIT = 1e3
# What an observation shows of penalties at and below.
LEAST_PENALTY = 1e-6

Observation = NDArray[np.float32]
Reward: TypeAlias = Literal["final", "gain"]
StepResult = tuple[
    Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


def observe(features_BF: NDArray[Any], penalty_B: NDArray[Any]) -> Observation:
    """Return what a chooser sees: features and, last, the logarithm of the penalty."""
    log_B = np.log(np.maximum(penalty_B, LEAST_PENALTY))
    return np.concatenate([features_BF, log_B[:, None]], axis=1).astype(np.float32)


class CascadeVectorEnv(VectorEnv):  # type: ignore[misc]
    """B images, each in an episode of its own; autoreset is ``AutoresetMode.NEXT_STEP``.

    Args:
        table: all answers, or a function that returns it.
        penalty: reward lost per unit of cost, above 0; a pair (low, high) is drawn from
            log-uniformly, per episode.
        num_envs: images at a time.
        alpha: weight of the answer's loss.
        loss: of the answer: expected error, or cross-entropy.
        reward: when the loss is paid for: at the end, or by gains on the way.
        seed: of images and penalties until `reset` is given one.

    Raises:
        ValueError: a setting out of range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        *,
        table: CascadeTable | Callable[[], CascadeTable],
        penalty: float | Sequence[float] | PenaltyRange,
        num_envs: int = 1,
        alpha: float = 1.0,
        loss: AnswerLoss = "error",
        reward: Reward = "final",
        seed: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"`num_envs >= 1` must hold, but got {num_envs}.")
        if not 0 <= alpha < np.inf:
            raise ValueError(f"`0 <= alpha < inf` must hold, but got {alpha}.")
        if reward not in get_args(Reward):
            raise ValueError(f"`reward` must be one of {get_args(Reward)}, but got {reward!r}.")
        self.table = table if isinstance(table, CascadeTable) else table()
        self.num_envs = num_envs
        self.alpha = alpha
        self._loss: AnswerLoss = loss
        loss_of(np.zeros(1), loss)  # refuses others
        self._loss_NS = self.table.losses(loss) if reward == "gain" else None
        self.penalties = PenaltyRange.of(penalty)
        members = self.table.num_members
        width = num_features(members, self.table.num_classes) + 1
        self.single_observation_space = Box(-FEATURE_LIMIT, FEATURE_LIMIT, (width,), np.float32)
        self.single_action_space = Discrete(members + 1)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._started = False
        self._image_B = np.zeros(num_envs, np.int64)
        self._set_B = np.zeros(num_envs, np.int64)
        self._penalty_B = np.zeros(num_envs, np.float32)
        self._over_B = np.zeros(num_envs, np.bool_)
        self._seed_draws(seed)

    def _seed_draws(self, seed: int | None) -> None:
        """Restart the draws of images and penalties."""
        chosen = int(np.random.default_rng().integers(2**63)) if seed is None else seed
        self._np_random_seed = chosen
        self._np_random = np.random.default_rng(chosen)
        self._pending = np.empty(0, np.int64)

    def _draw(self, count: int) -> NDArray[np.int64]:
        """Return the next images: each once in a new order, then again."""
        while len(self._pending) < count:
            again = self._np_random.permutation(len(self.table))
            self._pending = np.concatenate([self._pending, again])
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _begin(self, which_B: NDArray[np.bool_]) -> None:
        """Start new episodes in some places."""
        count = int(which_B.sum())
        self._image_B[which_B] = self._draw(count)
        self._penalty_B[which_B] = self.penalties.draw(count, self._np_random)
        self._set_B[which_B] = 0
        self._over_B[which_B] = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode for each of the B images, or for those in ``options["reset_mask"]``."""
        if seed is not None:
            self._seed_draws(seed)
        everywhere_B = np.ones(self.num_envs, np.bool_)
        mask_B = (options or {}).get("reset_mask", everywhere_B)
        self._begin(np.asarray(mask_B, np.bool_) | (not self._started))
        self._started = True
        return self._observe(), self._told({"image": self._image_B.copy()}, everywhere_B)

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Run a member or stop, each image for itself; where an episode is over, start the next.

        Args:
            actions: B integers in [0, M]: 0 stops, ``m + 1`` runs member m.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.InvalidAction: an action outside that range.
        """
        if not self._started:
            raise gym.error.ResetNeeded("Call reset() before the first step().")
        actions_B = self._checked(actions)
        fresh_B = self._over_B.copy()
        self._begin(fresh_B)
        bit_B = np.where(actions_B > 0, 1 << np.maximum(actions_B - 1, 0), 0)
        runs_B = ~fresh_B & (bit_B > 0) & (self._set_B & bit_B == 0)
        cost_B = np.zeros(self.num_envs, np.float32)
        cost_B[runs_B] = self.table.costs_NM[self._image_B[runs_B], actions_B[runs_B] - 1]
        before_B = self._set_B.copy()
        self._set_B[runs_B] |= bit_B[runs_B]
        full = 2**self.table.num_members - 1
        self._over_B = ~fresh_B & (~runs_B | (self._set_B == full))
        loss_B, correct_B = self._judged()
        reward_B = -self._penalty_B * cost_B
        if self._loss_NS is None:
            reward_B -= self.alpha * loss_B * self._over_B
        else:
            own_BS = self._loss_NS[self._image_B]
            rows_B = np.arange(self.num_envs)
            reward_B += self.alpha * (own_BS[rows_B, before_B] - own_BS[rows_B, self._set_B])
        ended = {"loss": loss_B, "correct": correct_B, "members": self._set_B.copy()}
        everywhere_B = np.ones(self.num_envs, np.bool_)
        info = self._told({"image": self._image_B.copy(), "cost": cost_B}, everywhere_B)
        info |= self._told(ended, self._over_B.copy())
        never_B = np.zeros(self.num_envs, np.bool_)
        return self._observe(), reward_B.astype(np.float32), self._over_B.copy(), never_B, info

    def _checked(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the actions as int64, one per image."""
        actions_B = np.asarray(actions, dtype=np.int64)
        last = self.table.num_members
        if actions_B.shape != (self.num_envs,):
            raise gym.error.InvalidAction(
                f"There must be {self.num_envs} actions, but got shape {actions_B.shape}."
            )
        if actions_B.min() < 0 or actions_B.max() > last:
            raise gym.error.InvalidAction(f"Actions must lie in [0, {last}], but got {actions_B}.")
        return actions_B

    def _judged(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return ``loss_B`` and ``correct_B`` of the answers as they are now."""
        answer_BK = self.table.combined(self._image_B, self._set_B)
        label_B = self.table.labels_N[self._image_B]
        right_B = np.take_along_axis(answer_BK, label_B[:, None], axis=1)[:, 0]
        loss_B = loss_of(right_B, self._loss).astype(np.float32)
        return loss_B, answer_BK.argmax(axis=1) == label_B

    @staticmethod
    def _told(facts: dict[str, Any], where_B: NDArray[np.bool_]) -> dict[str, Any]:
        """Return facts with gymnasium's masks of where they hold."""
        return facts | {f"_{name}": where_B for name in facts}

    def _observe(self) -> Observation:
        """Return what the next decisions may look at."""
        return observe(self.table.features(self._image_B, self._set_B), self._penalty_B)


class CascadeEnv(OneImageEnv):
    """One image at a time: member ``action - 1`` runs, or the cascade stops.

    Args:
        settings: those of `CascadeVectorEnv`, ``num_envs`` left out.
    """

    vector_type = CascadeVectorEnv
