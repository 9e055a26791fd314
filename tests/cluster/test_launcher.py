"""The cluster launcher's files against the schema that ships with Ray, and what they promise."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
CLOUDS = ["aws", "gcp"]


@pytest.fixture(params=CLOUDS)
def config(request: pytest.FixtureRequest, cluster: Path, read: Callable[[Path], Any]) -> Any:
    config = read(cluster / "launcher" / f"{request.param}.yaml")
    assert config["provider"]["type"] == request.param
    return config


def test_it_is_what_rays_schema_asks_for(
    config: Any, faults: Callable[[Any, Any], list[str]]
) -> None:
    assert faults(config, SCHEMA) == []
    assert faults({**config, "min_workers": 1}, SCHEMA) != []


def test_ray_takes_it_and_refuses_a_head_of_no_type(config: Any) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config({**copy.deepcopy(config), "head_node_type": "heads"}))


def test_the_head_runs_no_trial_and_gpus_are_declared(config: Any) -> None:
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["cpu"]["resources"] == {"CPU": 8, "GPU": 0}
    assert types["gpu"]["resources"] == {"CPU": 8, "GPU": 1}
    workers = sum(types[name]["max_workers"] for name in ("cpu", "gpu"))
    assert workers == config["max_workers"]


def test_nodes_get_the_pins_on_one_python(config: Any, ray_image: str) -> None:
    assert config["docker"]["image"] == ray_image
    installed = " ".join(config["setup_commands"])
    for remote, local in config["file_mounts"].items():
        assert (ROOT / local).is_file()
        assert Path(remote).name == Path(local).name
    assert "~/runtime-pruning/requirements.txt" in config["file_mounts"]
    assert "-r ~/runtime-pruning/requirements.txt" in installed


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_the_users_to_fill_in_is_said_at_the_top(cloud: str, cluster: Path) -> None:
    text = (cluster / "launcher" / f"{cloud}.yaml").read_text()
    head, _, body = text.partition("cluster_name:")
    assert "REPLACE" in body
    assert "what is named REPLACE" in head
