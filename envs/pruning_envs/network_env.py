"""Pruning a whole network as a constrained Markov decision process: how much goes, layer by layer?

An episode is one network; a step is one layer. Source: Malik et al., "Neural Network Pruning
Through Constrained Reinforcement Learning", ICPR 2022, in the coarse form of its released code.

| part | what |
|---|---|
| observation | float32 in [0, 1]: what is known of the layer, each number over its greatest among all layers; then the shares removed so far, summed, over the number of layers |
| action | share of the layer to remove, in [0, ``most_removed``] |
| reward | 0 until the last layer; then the pruned network's accuracy in percent |
| end | at the last layer |
| info | ``cost``: K costs, 0 until the last layer; then those of the pruned network over the whole network's, so that an episode's sum is the fraction that is left; at the end also ``accuracy`` and ``removed``, the T shares |

A constraint is no part of the reward: an algorithm for constrained processes reads the costs and
knows their budgets. An episode replays bit for bit from a seed, save for costs that are measured.

Dimensions: T layers, F numbers known of each, K costs.
"""  # noqa: E501

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from pruning_envs.protocols import LayerwiseNetwork, NetworkCost

Observation = NDArray[np.float32]


class NetworkPruningEnv(gym.Env[Observation, NDArray[np.float32]]):  # type: ignore[misc]
    """One network, pruned from its first layer to its last.

    Args:
        network: what is pruned, or a function that returns it.
        costs: functions of the pruned network, by name.
        most_removed: greatest share of a layer that may go, in (0, 1].
        finetune_steps: gradient steps that a pruned network learns for before it is judged.

    Attributes:
        cost_names: of the costs, in the order of ``info["cost"]``.
        whole: what the unpruned network costs, in the order of the names.
        finetune_steps: see above; may be set between episodes.

    Raises:
        ValueError: a setting out of range, no layers, or a whole network that costs nothing.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        *,
        network: LayerwiseNetwork | Callable[[], LayerwiseNetwork],
        costs: Mapping[str, NetworkCost],
        most_removed: float = 0.9,
        finetune_steps: int = 0,
    ) -> None:
        if not 0 < most_removed <= 1:
            raise ValueError(f"`0 < most_removed <= 1` must hold, but got {most_removed}.")
        if finetune_steps < 0:
            raise ValueError(f"`finetune_steps >= 0` must hold, but got {finetune_steps}.")
        self.network = network if isinstance(network, LayerwiseNetwork) else network()
        self.finetune_steps = finetune_steps
        self.cost_names = tuple(costs)
        self._costs = tuple(costs.values())
        self._layers_TF = _scaled(self.network.layers_TF)
        layers, known = self._layers_TF.shape
        self.observation_space = Box(0.0, 1.0, (known + 1,), np.float32)
        self.action_space = Box(0.0, most_removed, (1,), np.float32)
        self.whole = self._spent(self.network.prune(np.zeros(layers)))
        if not (self.whole > 0).all() or not np.isfinite(self.whole).all():
            spent = dict(zip(self.cost_names, self.whole.tolist(), strict=True))
            raise ValueError(f"The whole network's costs must be above 0, but got {spent}.")
        self._removed_T = np.zeros(layers)
        self._layer = layers

    @property
    def num_layers(self) -> int:
        """T, the steps of an episode."""
        return len(self._layers_TF)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with the whole network, before its first layer."""
        super().reset(seed=seed)
        self._removed_T[:] = 0
        self._layer = 0
        return self._observe(), {"cost": np.zeros(len(self._costs), np.float32)}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Remove a share of the layer; after the last layer, judge what is left.

        Args:
            action: one number in [0, ``most_removed``].

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was started.
            gymnasium.error.InvalidAction: an action outside that range.
        """
        if self._layer == self.num_layers:
            raise gym.error.ResetNeeded("No episode is under way: call reset().")
        self._removed_T[self._layer] = self._checked(action)
        self._layer += 1
        if self._layer < self.num_layers:
            nothing = np.zeros(len(self._costs), np.float32)
            return self._observe(), 0.0, False, False, {"cost": nothing}
        accuracy, cost_K = self._judge()
        info = {"cost": cost_K, "accuracy": accuracy, "removed": self._removed_T.copy()}
        return self._observe(), 100.0 * accuracy, True, False, info

    def _checked(self, action: ArrayLike) -> float:
        """Return the share that an action removes."""
        shares = np.asarray(action, np.float64)
        most = float(self.action_space.high[0])
        if shares.shape != (1,) or not 0 <= shares[0] <= most:
            raise gym.error.InvalidAction(
                f"An action must be one number in [0, {most:g}], but got {action!r}."
            )
        return float(shares[0])

    def _judge(self) -> tuple[float, NDArray[np.float32]]:
        """Return the accuracy of what is left, and its K costs as fractions of the whole's."""
        pruned = self.network.prune(self._removed_T.copy())
        cost_K = (self._spent(pruned) / self.whole).astype(np.float32)
        seed = int(self.np_random.integers(2**31))
        steps = self.finetune_steps
        return float(self.network.accuracy(pruned, finetune_steps=steps, seed=seed)), cost_K

    def _spent(self, pruned: Any) -> NDArray[np.float64]:
        """Return ``cost_K`` in the costs' own units."""
        return np.array([cost(pruned) for cost in self._costs], np.float64)

    def _observe(self) -> Observation:
        """Return what is known of the layer at hand; once all are decided, of the last one."""
        layer = min(self._layer, self.num_layers - 1)
        so_far = self._removed_T.sum() / self.num_layers
        return np.append(self._layers_TF[layer], so_far).astype(np.float32)


def _scaled(layers_TF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is known of layers with the greatest of each number at 1."""
    known = np.asarray(layers_TF, np.float64)
    if known.ndim != 2 or not known.size:
        raise ValueError(f"A network must have layers, but got an array of shape {known.shape}.")
    if known.min() < 0 or not np.isfinite(known).all():
        raise ValueError("What is known of layers must be finite and at least 0.")
    scaled_TF: NDArray[np.float64] = known / np.maximum(known.max(axis=0), 1e-12)
    return scaled_TF
