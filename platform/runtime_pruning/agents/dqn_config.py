"""RLlib's configuration of an agent that learns to prune, from a problem and settings."""

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.decision_network import DecisionConfig
from runtime_pruning.agents.dqn import PruningDQNConfig, WholeEpisodeLearner
from runtime_pruning.agents.env_runner import BatchedEnvRunner
from runtime_pruning.agents.rl_module import RNPModule
from runtime_pruning.agents.rllib_env import ENV_ID, env_config, register_environments
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.resources import AgentResources


def dqn_config(problem: PruningProblem, settings: DQNSettings | None = None) -> PruningDQNConfig:
    """Return the configuration of an agent that learns to prune one network.

    Network and data are put into Ray's object store, which is started if need be.

    Raises:
        ValueError: a penalty that is none.
    """
    settings = settings or DQNSettings()
    shared = env_config(problem)
    staged = shared["network"].get()
    decision = DecisionConfig(
        feature_widths=tuple(staged.feature_widths),
        groups=int(staged.groups),
        encoder=settings.encoder,
        hidden=settings.hidden,
        cell=settings.cell,
        dueling=settings.dueling,
        decides_from=problem.decides_from,
    )
    config = PruningDQNConfig()
    config.settings = settings
    config.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    register_environments()
    config.environment(ENV_ID, env_config={**shared, "flatten": False}, normalize_actions=False)
    config.debugging(seed=problem.seed, log_level="ERROR")
    _configure_sampling(config, settings, decision.num_sites, problem.resources)
    _configure_learning(config, settings, decision)
    _configure_learners(config, problem.resources)
    steps = None if problem.episodes is None else problem.episodes * decision.num_sites
    config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=RNPModule,
            model_config={
                "decision": decision,
                "epsilon": settings.epsilon.over(steps),
                "n_step": settings.n_step,
            },
        )
    )
    return config


def _configure_sampling(
    config: PruningDQNConfig, settings: DQNSettings, sites: int, resources: AgentResources
) -> None:
    """Set how env runners sample, and how much of it is one training iteration."""
    runner = resources.env_runner
    config.env_runners(
        env_runner_cls=BatchedEnvRunner,
        num_env_runners=runner.workers,
        num_envs_per_env_runner=settings.images_per_runner,
        num_cpus_per_env_runner=runner.cpus,
        num_gpus_per_env_runner=runner.gpus,
        gym_env_vectorize_mode="vector_entry_point",
        rollout_fragment_length=sites,
        sample_timeout_s=settings.sample_timeout_s,
    )
    # One request at a time would drop weights that are sent while another is under way.
    config.max_requests_in_flight_per_env_runner = 4
    config.fault_tolerance(restart_failed_env_runners=True)
    one_round = settings.images_per_runner * sites * max(1, runner.workers)
    config.reporting(min_sample_timesteps_per_iteration=one_round, min_time_s_per_iteration=0)


def _configure_learning(
    config: PruningDQNConfig, settings: DQNSettings, decision: DecisionConfig
) -> None:
    """Set RLlib's learner."""
    config.training(
        gamma=settings.gamma,
        lr=settings.lr,
        grad_clip=settings.grad_clip,
        grad_clip_by="global_norm",
        td_error_loss_fn=settings.loss,
        double_q=settings.double_q,
        dueling=False,  # the network's own business
        num_atoms=1,
        n_step=1,  # ours is in the columns
        tau=settings.tau,
        target_network_update_freq=settings.target_update_steps,
        train_batch_size=settings.batch_episodes * decision.num_sites,
        num_steps_sampled_before_learning_starts=settings.warmup_episodes * decision.num_sites,
        learner_class=WholeEpisodeLearner,
    )


def _configure_learners(config: PruningDQNConfig, resources: AgentResources) -> None:
    """Set where RLlib's learner runs: here, or on workers that average their gradients."""
    learner = resources.learner
    config.learners(
        num_learners=learner.workers,
        num_cpus_per_learner=learner.cpus,
        num_gpus_per_learner=learner.gpus,
    )
