"""A cascade at work: members run one after the other on the images that are still open.

Dimensions: B images of a batch, R images that are open, M members, C H W of an image, K classes, L
sites of all members.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pruning_envs.cascade_table import combine, features, log_softmax
from runtime_pruning.cascades.choosing import STOP, Chooser, Ints
from runtime_pruning.cascades.combining import Combination
from runtime_pruning.cascades.thresholds import ThresholdChooser
from runtime_pruning.errors import ConfigError


class MemberAnswer(NamedTuple):
    """What a member answers to a batch.

    Attributes:
        logits_RK: class scores.
        macs: that it has executed, per image; a number where all images cost alike.
        channels_RL: that ran at each of its sites; None where nobody asks.
    """

    logits_RK: Tensor
    macs: int | Ints
    channels_RL: Ints | None = None


@dataclass(frozen=True, kw_only=True)
class CascadeMember:
    """What answers as one step of a cascade.

    Attributes:
        run: answers a batch of images.
        sites: where its channels may be left out; 0 where it does not tell which ran.
    """

    run: Callable[[Tensor], MemberAnswer]
    sites: int = 0

    @classmethod
    def static(cls, run: Callable[[Tensor], Tensor], macs_per_image: int) -> "CascadeMember":
        """Return a member that costs the same for every image: a network's ``dense``, a module."""
        return cls(run=lambda images_RCHW: MemberAnswer(run(images_RCHW), macs_per_image))


@dataclass(frozen=True, kw_only=True)
class CascadeExecution:
    """What came of a batch; it is recorded as a network's `Execution` is.

    Attributes:
        log_probabilities_BK: combined answers, nats.
        sets_B: members that ran, member m as bit m.
        executed_macs_B: of members and decisions.
        ran_BL: channels that ran at the sites of all members in their order, 0 where a member did
            not run; no columns where members do not tell.
    """

    log_probabilities_BK: npt.NDArray[np.float32]
    sets_B: Ints
    executed_macs_B: Ints
    ran_BL: Ints

    @property
    def logits_BK(self) -> Tensor:
        """The log-probabilities: they are class scores, too."""
        return torch.from_numpy(np.asarray(self.log_probabilities_BK, np.float32))

    @property
    def channels_BL(self) -> Tensor:
        """See ``ran_BL``."""
        return torch.from_numpy(self.ran_BL)

    @property
    def total_macs_B(self) -> Tensor:
        """Executed MACs of members and decisions, int64."""
        return torch.from_numpy(self.executed_macs_B)


class CascadeExecutor:
    """Runs a cascade's members and decisions in one call.

    Args:
        members: in the order that the combination knows them in.
        combination: fitted on records of these members.
        chooser: who decides.
        num_classes: K.

    Raises:
        ConfigError: another number of members than the combination knows.
    """

    def __init__(
        self,
        members: Sequence[CascadeMember],
        combination: Combination,
        chooser: Chooser,
        *,
        num_classes: int,
    ) -> None:
        if len(members) != len(combination.temperatures_M):
            raise ConfigError(
                f"The combination is of {len(combination.temperatures_M)} members, but got "
                f"{len(members)}."
            )
        self.members = tuple(members)
        self.combination = combination
        self.chooser = chooser
        self.num_classes = num_classes
        self._weights_SM = combination.weights_SM.astype(np.float32)
        ends = np.cumsum([0, *(member.sites for member in members)]).tolist()
        self._columns = [slice(low, high) for low, high in pairwise(ends)]
        # The first decision sees nothing, and is always the same.
        nothing_1 = np.zeros(1, np.int64)
        self._first = int(
            chooser.actions(self._features(self._silence(1), nothing_1), nothing_1)[0]
        )

    @torch.inference_mode()
    def __call__(self, images_BCHW: Tensor) -> CascadeExecution:
        """Run a batch; members run on compacted batches of the images that chose them."""
        if len(images_BCHW) == 1:
            return self._one(images_BCHW)
        count, members = len(images_BCHW), len(self.members)
        log_BMK = self._silence(count)
        sets_B, macs_B = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ran_BL = self._none_ran(count)
        open_R, actions_R = np.arange(count), np.full(count, self._first)
        while len(open_R):
            macs_B[open_R] += self.chooser.macs_per_image
            bits_R = np.where(actions_R > STOP, 1 << np.maximum(actions_R - 1, 0), 0)
            goes_R = (bits_R > 0) & (sets_B[open_R] & bits_R == 0)
            open_R, chosen_R = open_R[goes_R], actions_R[goes_R] - 1
            for member in np.unique(chosen_R).tolist():
                rows = open_R[chosen_R == member]
                whole = len(rows) == count
                own_RCHW = images_BCHW if whole else images_BCHW[torch.from_numpy(rows)]
                found = self.members[member].run(own_RCHW)
                log_BMK[rows, member] = self._cooled(member, found.logits_RK)
                macs_B[rows] += found.macs
                if found.channels_RL is not None:
                    ran_BL[rows, self._columns[member]] = found.channels_RL
            sets_B[open_R] |= 1 << chosen_R
            open_R = open_R[sets_B[open_R] < 2**members - 1]
            if len(open_R):
                sets_R = sets_B[open_R]
                actions_R = self.chooser.actions(self._features(log_BMK[open_R], sets_R), sets_R)
        weights_BM = self.combination.weights_SM[sets_B]
        return CascadeExecution(
            log_probabilities_BK=combine(log_BMK, weights_BM, self.combination.pool),
            sets_B=sets_B,
            executed_macs_B=macs_B,
            ran_BL=ran_BL,
        )

    def _one(self, image_1CHW: Tensor) -> CascadeExecution:
        """Run one image: the same, without arrays where a number does."""
        full = 2 ** len(self.members) - 1
        log_1MK, ran_1L = self._silence(1), self._none_ran(1)
        number, macs_1, action = 0, np.zeros(1, np.int64), self._first
        answer_1K = np.full((1, self.num_classes), -math.log(self.num_classes), np.float32)
        while True:
            macs_1 += self.chooser.macs_per_image
            if action == STOP or number >> (action - 1) & 1:
                break
            found = self.members[action - 1].run(image_1CHW)
            log_1MK[0, action - 1] = self._cooled(action - 1, found.logits_RK)[0]
            macs_1 += found.macs
            if found.channels_RL is not None:
                ran_1L[:, self._columns[action - 1]] = found.channels_RL
            number |= 1 << (action - 1)
            answer_1K = self._joined(log_1MK, number)
            if number == full:
                break
            if isinstance(self.chooser, ThresholdChooser):
                action = self.chooser.after(number, math.exp(answer_1K.max()))
            else:
                sets_1 = np.array([number])
                action = int(self.chooser.actions(self._features(log_1MK, sets_1), sets_1)[0])
        return CascadeExecution(
            log_probabilities_BK=answer_1K,
            sets_B=np.array([number]),
            executed_macs_B=macs_1,
            ran_BL=ran_1L,
        )

    def _joined(self, log_1MK: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float32]:
        """Return the combined answer of one image."""
        if self.combination.pool == "linear":
            answer_1K = combine(log_1MK, self.combination.weights_SM[[number]], "linear")
        else:
            answer_1K = log_softmax(self._weights_SM[number] @ log_1MK)
        joined_1K: npt.NDArray[np.float32] = answer_1K
        return joined_1K

    def _silence(self, count: int) -> npt.NDArray[np.float32]:
        """Return ``log_probabilities_BMK`` of members that have not run."""
        return np.zeros((count, len(self.members), self.num_classes), np.float32)

    def _features(self, log_RMK: npt.NDArray[np.float32], sets_R: Ints) -> npt.NDArray[np.float32]:
        """Return ``features_RF`` of the answers so far."""
        made = self.combination
        seen_RF: npt.NDArray[np.float32] = features(log_RMK, sets_R, made.weights_SM, made.pool)
        return seen_RF

    def _none_ran(self, count: int) -> Ints:
        """Return ``ran_BL`` of members that have not run."""
        return np.zeros((count, sum(member.sites for member in self.members)), np.int64)

    def _cooled(self, member: int, logits_RK: Tensor) -> npt.NDArray[np.float32]:
        """Return ``log_probabilities_RK`` at a member's temperature."""
        cooled_RK: npt.NDArray[np.float32] = log_softmax(
            logits_RK.float().cpu().numpy()
            * np.float32(1 / self.combination.temperatures_M[member])
        )
        return cooled_RK
