"""Everything follows the device of its inputs: the same answers elsewhere, and no devices mixed.

"Elsewhere" is CUDA where there is one, and everywhere a device of our own: tensors that say they
are on ``meta`` and hold their values aside. Any operation that gets such a tensor together with
one of the CPU raises, as CUDA's would; scalars and indices may lie on the CPU, as CUDA's may.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from pruning_envs import RuntimePruningVectorEnv
from runtime_pruning import backbones, cost, datasets
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy, SpreadPolicy
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.agents.targets import greedy_returns
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.deploy import read_bundle, write_bundle
from runtime_pruning.methods import RNP, RNPConfig, Task
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.rnp import reward_scale
from runtime_pruning.methods.static_search import SearchBounds, best_fixed_plans
from runtime_pruning.methods.upper_bound import cheapest_right_plans
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import (
    FixedPolicy,
    PlanPolicy,
    Policy,
    RandomPolicy,
)
from runtime_pruning.network.training import (
    TrainConfig,
    finetune,
    recalibrate_batch_norm,
    train,
)

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
# What CUDA does between devices, too: copies, and indices that lie on the CPU.
CROSSING = {aten._to_copy, aten.copy_, aten.index, aten.index_put, aten.index_put_}
CROSSING |= {aten._index_put_impl_}


class There(Tensor):
    """A tensor that says it is elsewhere; its values are a tensor of the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "There":
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=ELSEWHERE,
            requires_grad=values.requires_grad,
        )
        made.values = values
        return made

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("A tensor that is elsewhere is no array: copy it to the CPU first.")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "There":
        return There(inner["values"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_there(func, args, kwargs or {})


def run_there(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation whose inputs must all be elsewhere, or all here."""
    inputs, _ = tree_flatten((args, kwargs))
    away = any(isinstance(each, There) for each in inputs)
    target = kwargs.get("device")
    lands_there = away if target is None else torch.device(target) == ELSEWHERE
    if away and func.overloadpacket not in CROSSING:
        here = [each for each in inputs if type(each) is Tensor and each.ndim]
        if here:
            shapes = [tuple(each.shape) for each in here]
            raise RuntimeError(f"{func} got tensors elsewhere and {shapes} of the CPU.")
    if func.overloadpacket is aten.copy_:
        lands_there = isinstance(args[0], There)
    plain_args, plain = tree_map(
        lambda each: each.values if isinstance(each, There) else each, (args, kwargs)
    )
    if target is not None:
        plain["device"] = torch.device("cpu")
    out = func(*plain_args, **plain)
    if not lands_there:
        return out
    wrapped = tree_map(lambda each: There(each) if type(each) is Tensor else each, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if away else wrapped


class Elsewhere(TorchDispatchMode):
    """While it is on, ``meta`` is a place where tensors have values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_there(func, args, kwargs or {})


@pytest.fixture(
    params=[
        "meta",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
        ),
    ]
)
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "cuda":
        yield "cuda"
        return
    # Tensors of inference mode have no version, which ours cannot do without.
    for name in ("__enter__", "__exit__"):
        monkeypatch.setattr(torch.inference_mode, name, getattr(torch.no_grad, name))
    with Elsewhere():
        yield "meta"


def prunable() -> PrunableNetwork:
    torch.manual_seed(0)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    return trace(backbone, (1, 8, 8), groups=3, align=1).eval()


def deciding(network: PrunableNetwork, cell: Any = "gru") -> DecisionNetwork:
    torch.manual_seed(1)
    made = DecisionNetwork(
        DecisionConfig(
            feature_widths=network.feature_widths,
            groups=network.groups,
            encoder=8,
            hidden=8,
            cell=cell,
            dueling=True,
        )
    )
    made.standardise(torch.rand(64, len(network.sites), max(network.feature_widths)))
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    return made


def policies(network: PrunableNetwork) -> dict[str, Policy]:
    sites = len(network.sites)
    penalty_B = torch.linspace(0.1, 2.0, 24)
    return {
        "fixed": FixedPolicy([2] * sites),
        "random": RandomPolicy(3, sites, seed=0),
        "plans": PlanPolicy(torch.arange(24 * sites).reshape(24, sites) % 3 + 1),
        "gru": DecisionPolicy(deciding(network), 0.3),
        "lstm": DecisionPolicy(deciding(network, "lstm"), 0.3),
        "spread": SpreadPolicy(deciding(network), lambda count: penalty_B[:count]),
    }


def images(count: int = 24) -> Tensor:
    return datasets.to_float(datasets.load("digits").policy.images_NCHW[:count])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=1e-3, atol=1e-4)


def test_devices_that_mix_are_noticed() -> None:
    with Elsewhere():
        there, here = torch.ones(3, device="meta") * 2, torch.ones(3)
        assert there.device == ELSEWHERE
        assert there.cpu().tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 2])].tolist() == [2, 2]
        with pytest.raises(RuntimeError, match=r"got tensors elsewhere and \[\(3,\)\] of the CPU"):
            there + here
        with pytest.raises(RuntimeError, match="elsewhere"):
            torch.nn.Linear(3, 1)(there)
        moved = torch.nn.Linear(3, 1).to("meta")
        moved(there).sum().backward()
        assert moved.weight.grad is not None
        assert moved.weight.grad.cpu().tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("name", ["fixed", "random", "plans", "gru", "lstm", "spread"])
@pytest.mark.parametrize("mode", ["sliced", "masked"])
def test_a_policy_plans_the_same_elsewhere(elsewhere: str, mode: Any, name: str) -> None:
    network, images_BCHW = prunable(), images()
    with torch.no_grad():
        expected = network.execute(images_BCHW, policies(network)[name], mode=mode)
        network.to(elsewhere)
        found = network.execute(images_BCHW.to(elsewhere), policies(network)[name], mode=mode)
    assert found.groups_BL.tolist() == expected.groups_BL.tolist()
    assert found.total_macs_B.tolist() == expected.total_macs_B.tolist()
    assert found.channels_BL.tolist() == expected.channels_BL.tolist()
    assert found.logits_BK.device.type == elsewhere
    close(found.logits_BK, expected.logits_BK)


def episode(env: RuntimePruningVectorEnv, actions: Sequence[Any]) -> dict[str, Any]:
    """What an environment says in one episode."""
    seen, _ = env.reset(seed=3)
    features, rewards = [seen["features"]], []
    for action_B in actions:
        seen, reward_B, _, _, facts = env.step(action_B)
        features.append(seen["features"])
        rewards.append(reward_B)
    return {"features": np.stack(features), "rewards": np.stack(rewards), **facts}


@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model")  # not a no-op here
@pytest.mark.parametrize("mode", ["sliced", "masked"])
def test_an_environment_pays_the_same_elsewhere(elsewhere: str, mode: Any) -> None:
    network, split = prunable(), datasets.load("digits").policy
    settings: dict[str, Any] = {
        "network": network,
        "images": split.images_NCHW,
        "labels": split.labels_N,
        "penalty": (0.1, 1.0),
        "num_envs": 12,
        "mode": mode,
        "step_cost": cost.get("macs")(network),
        "seed": 0,
    }
    actions = np.random.default_rng(0).integers(0, 3, (len(network.sites), 12))
    weights = {name: value * 1.1 for name, value in network.state_dict().items()}
    here, there = (RuntimePruningVectorEnv(**settings, device=d) for d in ("cpu", elsewhere))
    for version in (0, 1):
        found, expected = episode(there, actions), episode(here, actions)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
        for env in (here, there):
            env.set_backbone(weights, version + 1)


CONFIG = TrainConfig(
    epochs=1, batch_size=16, lr=0.01, precision="float32", pad=1, calibration_images=32
)


@pytest.mark.parametrize("name", ["gru", "spread"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbone_learns_the_same_elsewhere(elsewhere: str, name: str, frozen: bool) -> None:
    """Under a policy whose network lies on the CPU, with a teacher, statistics taken anew."""
    split = datasets.load("digits").training.head(32)
    found: list[PrunableNetwork] = []
    for device in ("cpu", elsewhere):
        network, teacher = prunable().to(device), prunable().to(device)
        config = copy.copy(CONFIG)
        object.__setattr__(config, "freeze_batch_norm", frozen)
        policy = policies(network)[name]
        finetune(network, split, policy, config, teacher=teacher)
        recalibrate_batch_norm(network, split, policy, 2, batch_size=16)
        found.append(network)
    for one, other in zip(found[1].parameters(), found[0].parameters(), strict=True):
        assert one.device.type == elsewhere
        close(one, other)
    for one, other in zip(found[1].buffers(), found[0].buffers(), strict=True):
        close(one.float(), other.float())


def test_all_widths_are_trained_the_same_elsewhere(elsewhere: str) -> None:
    split = datasets.load("digits").training.head(32)
    found = []
    for device in ("cpu", elsewhere):
        network = prunable()
        network.condition_batch_norm()
        train(network.to(device), split, CONFIG, progress=False)
        found.append(network)
    for one, other in zip(found[1].parameters(), found[0].parameters(), strict=True):
        close(one, other)


def test_points_are_measured_the_same_elsewhere(elsewhere: str) -> None:
    network, split = prunable(), datasets.load("digits").policy.head(40)
    here = judge(network, policies(network)["gru"], split, batch_size=16)
    scale = reward_scale(network, split, seed=0)
    network.to(elsewhere)
    there = judge(network, policies(network)["gru"], split, batch_size=16)
    assert there.channels_BL.tolist() == here.channels_BL.tolist()
    assert there.executed_macs_B.tolist() == here.executed_macs_B.tolist()
    assert there.predictions_B.tolist() == here.predictions_B.tolist()
    assert reward_scale(network, split, seed=0) == pytest.approx(scale, rel=1e-3)


def test_controls_are_found_the_same_elsewhere(elsewhere: str) -> None:
    data, found = datasets.load("digits"), []
    bounds = SearchBounds(evaluations=2, images=32, calibration_batches=1, seed=0)
    groups_NL = np.random.default_rng(0).integers(1, 4, (20, len(prunable().sites)))
    for device in ("cpu", elsewhere):
        network = prunable().to(device)
        plans = best_fixed_plans(
            network,
            training=data.training.head(64),
            policy_split=data.policy,
            budget=0.6 * dense_macs(network),
            mean_groups=[2.0] * len(network.sites),
            bounds=bounds,
        )
        oracle_NL = cheapest_right_plans(
            network, data.validation.head(20), groups_NL, random_plans=2, refinements=2
        )
        found.append(([plan.groups for plan in plans], oracle_NL.tolist()))
    assert found[0] == found[1]


def test_a_bundle_written_elsewhere_is_read_here(elsewhere: str, tmp_path: Path) -> None:
    network, images_BCHW = prunable(), images(8)
    policy = DecisionPolicy(deciding(network), 0.3)
    with torch.no_grad():
        expected = network.execute(images_BCHW, policy)
        network.to(elsewhere)
        network.execute(images_BCHW.to(elsewhere), policy)  # takes the policy along
        write_bundle(tmp_path, network, policy, backbone="digits-cnn", align=1)
        read = read_bundle(tmp_path)
        found = read.network.execute(images_BCHW, read.policy)
    assert found.groups_BL.tolist() == expected.groups_BL.tolist()
    close(found.logits_BK, expected.logits_BK)


def test_an_agent_learns_from_the_same_values_elsewhere(elsewhere: str) -> None:
    from runtime_pruning.agents.rl_module import RNPModule

    decision = DecisionConfig(feature_widths=(4, 6, 5), groups=3, encoder=8, hidden=8)
    config = {"decision": decision, "epsilon": EpsilonSchedule(steps=10, end=0.0), "n_step": 2}
    obs = {
        "features": torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(0)),
        "previous_groups": torch.arange(27).reshape(9, 3) % 4,
        "penalty": torch.linspace(0.1, 1.0, 9),
    }
    found = []
    for device in ("cpu", elsewhere):
        torch.manual_seed(0)
        module = RNPModule(model_config=config)
        module.make_target_networks()
        module.to(device)
        there = {name: value.to(device) for name, value in obs.items()}
        module.standardise(there["features"])
        values = module.forward_train({"obs": there})
        returns_BL = greedy_returns(
            torch.ones(9, 3).to(device),
            there["previous_groups"] % 3,
            values["qf_next_preds"].detach(),
            values["qf_target_next_preds"],
            gamma=0.9,
            double_q=True,
        )
        first = {
            "features": there["features"][:, 0],
            "previous_groups": there["previous_groups"][:, 0],
            "penalty": there["penalty"],
        }
        batch = {"obs": first, "site": 0, "state_in": module.q_network.initial_state(9)}
        with torch.no_grad():
            acted = module.forward_exploration(batch, t=10)  # greedy by then
        assert acted["actions"].device.type == device
        found.append([*values.values(), returns_BL, acted["actions"]])
    for one, other in zip(*reversed(found), strict=True):
        close(one, other)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model")  # not a no-op here
def test_a_method_trains_and_measures_elsewhere(elsewhere: str, tmp_path: Path) -> None:
    """RNP as a trial with a GPU runs it, RLlib included: agent, backbone, point, state."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    data = datasets.load("digits")
    network = prunable().to(elsewhere)
    task = Task(
        network=network,
        dense=copy.deepcopy(network),
        data=data,
        data_ref=ray.put(data),
        seed=0,
    )
    config = RNPConfig(
        penalty=0.3,
        rounds=1,
        episodes_per_round=64,
        finetune_images=64,
        finetune_batch=32,
        finetune_distillation=1.0,
        calibration_batches=1,
        agent=DQNSettings(encoder=4, hidden=4, images_per_runner=32, warmup_episodes=32),
    )
    found = []

    def report(policy: Policy, network: PrunableNetwork, *_: Any, save_state: Any) -> None:
        assert next(network.parameters()).device.type == elsewhere
        found.append(judge(network, policy, data.validation.head(20)))
        save_state(tmp_path)

    try:
        RNP().fit(task, config, report)
    finally:
        ray.shutdown()
    assert found[0].predictions_B.shape == (20,)
    assert found[0].channels_BL.min() > 0
