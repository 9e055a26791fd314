"""How agents learn: every choice that the papers leave open, with a name and a range."""

from dataclasses import field
from typing import ClassVar, Literal

from runtime_pruning.agents.base import AgentSettings
from runtime_pruning.agents.decision_network import Cell
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.config import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    SomeShare,
    config_class,
)


@config_class
class DQNSettings(AgentSettings):
    """Settings of `PruningDQN`.

    Attributes:
        encoder, hidden, cell, dueling: shape of the decision network, see `DecisionConfig`.
        standardise: give features mean 0 and deviation 1, as measured once, after the warm-up.
        gamma: discount per site. Episodes are short and finite, so 1 is exact.
        n_step: decisions whose rewards a target sums before it bootstraps; as many as there are
            sites, or more, is the episode's whole return. With more than 1, what it sums was
            decided under the exploration, and with ``relabel`` under the penalty, of its time.
        greedy_returns: sum rewards for as long as an episode decided as the network would now, for
            the penalty that it is learned under, and bootstrap where it did not (Watkins's
            Q(lambda) at lambda 1): whole returns that no exploration biases. ``n_step`` must be 1.
        lr: Adam's learning rate.
        grad_clip: greatest global norm of a gradient.
        loss: of the temporal difference. ``mse`` learns expected returns, at the dearest of a range
            of penalties above all; ``huber`` weighs penalties more alike, and leans to the median.
        double_q: choose the next action by the network that acts (van Hasselt et al., 2016).
        tau: share of the target network that an update replaces; 1 is a hard update.
        target_update_steps: sampled steps between updates of the target network; 0 updates it
            after each gradient step.
        epsilon: exploration.
        batch_episodes: whole episodes per gradient step.
        replay_ratio: episodes trained on per episode sampled, however many env runners there are.
        replay_episodes: capacity of the replay.
        relabel: draw an episode's penalty anew, from the range that episodes run under, each time
            it is learned from: every episode teaches all penalties.
        warmup_episodes: at least so many episodes are sampled before the first gradient step.
        store_replay: keep the replay in checkpoints.
        images_per_runner: images that an env runner moves in lockstep.
        sample_timeout_s: how long all env runners have for one lockstep batch each; a training of
            which none answers in time ends with an error.
        driver_threads: torch's threads in the driver while it trains the agent; None leaves them.
            More than one is slower for networks as small as these.

    How many env runners and learners there are, and what each asks for, `Resources` says.
    """

    __moved__: ClassVar[dict[str, str]] = {
        "seed": "seed",
        "env_runners": "resources.env_runner.workers",
        "cpus_per_env_runner": "resources.env_runner.cpus",
        "env_device": "resources.env_runner.gpus",
        "learner_gpus": "resources.learner.gpus",
    }
    algorithm: ClassVar[str] = "dqn"

    encoder: Count = 64
    hidden: Count = 64
    cell: Cell = "gru"
    dueling: bool = False
    standardise: bool = True
    gamma: SomeShare = 1.0
    n_step: Count = 1
    greedy_returns: bool = False
    lr: Positive = 1e-3
    grad_clip: Positive = 10.0
    loss: Literal["huber", "mse"] = "huber"
    double_q: bool = True
    tau: SomeShare = 0.02
    target_update_steps: CountOrNone = 0
    epsilon: EpsilonSchedule = field(default_factory=EpsilonSchedule)
    batch_episodes: Count = 64
    replay_ratio: Positive = 4.0
    replay_episodes: Count = 8192
    relabel: bool = True
    warmup_episodes: CountOrNone = 256
    store_replay: bool = False
    images_per_runner: Count = 64
    sample_timeout_s: Positive = 600.0
    driver_threads: Count | None = 1

    def __post_init__(self) -> None:
        if self.greedy_returns and self.n_step != 1:
            raise ValueError(f"`n_step == 1 with greedy_returns` must hold, but got {self.n_step}.")


@config_class
class PPOLagrangianSettings(AgentSettings):
    """Settings of `PPOLagrangian`.

    Malik et al.'s code has a deviation of 1 at first (``log_std`` 0), a learning rate of 3e-4, a
    discount of 0.99, costs centred only, multipliers' learning rate 1 and no damping: on the
    problem whose optimum is known, it swings between half and twice the budget. Ours hold it.

    Attributes:
        hidden: widths of the hidden layers of the policy and of each critic.
        log_std: logarithm of the policy's deviation at first; actions fill [-1, 1].
        most_removed: greatest share of a layer that may go.
        batch_episodes: whole episodes between updates.
        minibatch: layers per gradient step.
        epochs: passes over the episodes of an update.
        lr: Adam's learning rate.
        clip: how far a ratio of probabilities may leave 1 to be worth more.
        target_kl: a policy that has moved by 1.5 of these waits for the next episodes.
        entropy_coefficient: worth of a wide policy.
        grad_clip: greatest global norm of a gradient.
        gamma: discount per layer, of reward and costs.
        lambda_reward, lambda_cost: of the generalised advantage estimation.
        reward_scale: of the reward, which is a percentage, as the critic sees it.
        cost_advantages: centred, or standardised, too.
        multiplier: what a budget's excess is worth at first.
        multiplier_lr: Adam's learning rate of that.
        least_multiplier: that it does not fall below.
        damping: what a rollout's excess, counted in budgets, adds to that for the next update.
        sample_timeout_s: how long env runners have for a batch of episodes.
    """

    algorithm: ClassVar[str] = "ppo-lagrangian"

    hidden: tuple[Count, ...] = (32, 32)
    log_std: float = -0.5
    most_removed: SomeShare = 0.9
    batch_episodes: Count = 32
    minibatch: Count = 64
    epochs: Count = 10
    lr: Positive = 2e-3
    clip: SomeShare = 0.2
    target_kl: Positive = 0.1
    entropy_coefficient: NotNegative = 0.0
    grad_clip: Positive = 0.5
    gamma: SomeShare = 1.0
    lambda_reward: SomeShare = 0.95
    lambda_cost: SomeShare = 1.0
    reward_scale: Positive = 0.01
    cost_advantages: Literal["centred", "standardised"] = "standardised"
    multiplier: Positive = 1.0
    multiplier_lr: Positive = 0.05
    least_multiplier: NotNegative = 0.0
    damping: NotNegative = 2.0
    sample_timeout_s: Positive = 3600.0
