"""RLlib's PPO learner under constraints: a critic of costs, and a loss that weighs them.

Source: Malik et al. 2022, as in the released code. With multipliers nu of K costs and the ratio
rho of new to old probabilities,

    loss = (-mean[min(A_r rho, A_r clip(rho))] + sum_k nu_k mean[A_k rho]) / (1 + sum_k nu_k)

The reward's advantages are standardised, the costs' are centred, or standardised too; the ratio
is clipped for the reward alone. A batch whose policy has moved too far teaches the critics only.

Dimensions: B steps, K costs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets
from torch import Tensor

COST_ADVANTAGES, COST_TARGETS = "cost_advantages", "cost_value_targets"
COST = "cost"  # of an environment's info: K numbers per step


def step_costs(episode: Any, num_costs: int) -> NDArray[np.float32]:
    """Return ``cost_TK`` of an episode's steps; a step without any costs nothing."""
    nothing = np.zeros(num_costs, np.float32)
    infos = episode.get_infos()[1:]
    return np.stack([np.asarray(info.get(COST, nothing), np.float32) for info in infos])


class ConstrainedAdvantages(GeneralAdvantageEstimation):  # type: ignore[misc]
    """RLlib's advantages of the reward, and the same of each cost beside them.

    Args:
        settings: `PPOLagrangianSettings`.
        budgets: of the K costs: they are counted in budgets.
    """

    def __init__(
        self, input_observation_space: Any = None, input_action_space: Any = None, *,
        settings: Any, budgets: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__(
            input_observation_space,
            input_action_space,
            gamma=settings.gamma,
            lambda_=settings.lambda_reward,
        )
        self._settings = settings
        self._budgets = np.array(budgets, np.float32)

    def __call__(
        self, *, rl_module: Any, episodes: list[Any], batch: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Add the columns of advantages and targets to the batch."""
        own = batch[DEFAULT_MODULE_ID]
        own[Columns.REWARDS] = own[Columns.REWARDS] * self._settings.reward_scale
        batch = super().__call__(rl_module=rl_module, episodes=episodes, batch=batch, **kwargs)
        own = batch[DEFAULT_MODULE_ID]
        advantage_BK, target_BK = self._of_costs(rl_module[DEFAULT_MODULE_ID], episodes, own)
        like = own[Postprocessing.ADVANTAGES]
        own[COST_ADVANTAGES] = torch.from_numpy(advantage_BK).to(like.device)
        own[COST_TARGETS] = torch.from_numpy(target_BK).to(like.device)
        return batch

    def _of_costs(
        self, module: Any, episodes: list[Any], batch: dict[str, Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``advantage_BK`` and ``target_BK``; costs are counted in budgets."""
        with torch.no_grad():
            value_BK = convert_to_numpy(module.unwrapped().compute_cost_values(batch))
        cost_BK = np.concatenate([self._costs(episode) for episode in episodes])
        flags = [convert_to_numpy(batch[c]) for c in (Columns.TERMINATEDS, Columns.TRUNCATEDS)]
        target_BK = np.stack(
            [
                compute_value_targets(
                    value_BK[:, k], cost_BK[:, k], *flags,
                    self._settings.gamma, self._settings.lambda_cost,
                )
                for k in range(len(self._budgets))
            ],
            axis=1,
        )  # fmt: skip
        advantage_BK = target_BK - value_BK
        counted_B = convert_to_numpy(batch[Columns.LOSS_MASK])
        advantage_BK = advantage_BK - advantage_BK[counted_B].mean(axis=0)
        if self._settings.cost_advantages == "standardised":
            advantage_BK = advantage_BK / np.maximum(advantage_BK[counted_B].std(axis=0), 1e-4)
        return advantage_BK.astype(np.float32), target_BK

    def _costs(self, episode: Any) -> NDArray[np.float32]:
        """Return ``cost_TK`` in budgets, the artificial last step free."""
        cost_TK = step_costs(episode, len(self._budgets)) / self._budgets
        cost_TK[-1] = 0
        return cost_TK


class LagrangianLearner(PPOTorchLearner):  # type: ignore[misc]
    """PPO's learner with the loss above.

    Attributes:
        multipliers: the K weights of the costs, as the algorithm sets them.
    """

    multipliers: tuple[float, ...]

    def build(self) -> None:
        """Build RLlib's learner; its advantages give way to ours."""
        super().build()
        settings, budgets = self.config.settings, self.config.budgets
        self.multipliers = (0.0,) * len(budgets)
        if self._learner_connector is not None:
            self._learner_connector.remove("GeneralAdvantageEstimation")
            self._learner_connector.append(
                ConstrainedAdvantages(settings=settings, budgets=budgets)
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Return the loss of one minibatch."""
        module, settings = self.module[module_id].unwrapped(), config.settings
        mask_B = batch[Columns.LOSS_MASK]
        distribution = module.get_train_action_dist_cls().from_logits(
            fwd_out[Columns.ACTION_DIST_INPUTS]
        )
        log_ratio_B = distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        ratio_B = log_ratio_B.exp()[mask_B]
        divergence = (ratio_B - 1 - log_ratio_B[mask_B]).mean()
        policy = lagrangian_loss(
            ratio_B,
            batch[Postprocessing.ADVANTAGES][mask_B],
            batch[COST_ADVANTAGES][mask_B],
            self.multipliers,
            clip=settings.clip,
        )
        moved_on = divergence.detach() > 1.5 * settings.target_kl
        reward_error_B = module.compute_values(batch) - batch[Postprocessing.VALUE_TARGETS]
        cost_error_BK = module.compute_cost_values(batch) - batch[COST_TARGETS]
        critics = reward_error_B[mask_B].square().mean() + cost_error_BK[mask_B].square().mean()
        entropy = distribution.entropy()[mask_B].mean()
        self.metrics.log_dict(
            {
                "policy_loss": policy.detach(),
                "critic_loss": critics.detach(),
                "entropy": entropy.detach(),
                "kl": divergence.detach(),
            },
            key=module_id,
            window=1,
        )
        acting = policy - settings.entropy_coefficient * entropy
        loss: Tensor = 0.5 * critics + acting * (~moved_on).float()
        return loss


def lagrangian_loss(
    ratio_B: Tensor,
    reward_advantage_B: Tensor,
    cost_advantage_BK: Tensor,
    multipliers: Sequence[float],
    *,
    clip: float,
) -> Tensor:
    """Return the policy's loss, see above.

    Args:
        ratio_B: new probability of each action over the old one.
        reward_advantage_B: how much better than expected each action was.
        cost_advantage_BK: how much dearer.
        multipliers: K weights, at least 0.
        clip: how far the ratio may leave 1 to be worth more.
    """
    clipped_B = ratio_B.clamp(1 - clip, 1 + clip)
    gain = torch.minimum(reward_advantage_B * ratio_B, reward_advantage_B * clipped_B).mean()
    weight_K = cost_advantage_BK.new_tensor(multipliers)
    dearness = ((cost_advantage_BK * ratio_B[:, None]).mean(0) * weight_K).sum()
    return (dearness - gain) / (1 + weight_K.sum())
