"""MLflow's compose file against the Compose specification, and what it promises."""

import copy
import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Faults = Callable[[Any, Any], list[str]]


@pytest.fixture
def compose(cluster: Path, read: Callable[[Path], Any]) -> Any:
    return read(cluster / "mlflow" / "compose.yaml")


def test_it_is_what_the_specification_asks_for(compose: Any, faults: Faults) -> None:
    assert faults(compose, "compose") == []


def test_the_schema_refuses_what_the_specification_refuses(compose: Any, faults: Faults) -> None:
    broken = copy.deepcopy(compose)
    broken["services"]["mlflow"]["depend_on"] = ["s3"]
    broken["services"]["mlflow"]["depends_on"]["bucket"]["condition"] = "well"
    found = " ".join(faults(broken, "compose"))
    assert "'depend_on' does not match any of the regexes" in found
    assert "'well'" in found


def test_names_that_services_use_of_each_other_exist(cluster: Path, compose: Any) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"]
        if "build" in service:
            context = (cluster / "mlflow" / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file()
    told = " ".join([services["mlflow"]["command"], *services["mlflow"]["environment"].values()])
    assert {*re.findall(r"(?:@|http://)(\w+):\d+", told)} <= set(services)


def test_no_password_is_written_down(cluster: Path) -> None:
    text = (cluster / "mlflow" / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "S3_SECRET"):
        assert f"${{{name}:?" in text
        # Every other mention is the variable too.
        assert len(re.findall(name, text)) == len(re.findall(rf"(?:\$\{{|\n +){name}\b", text))


def test_the_servers_options_are_mlflows(compose: Any) -> None:
    mlflow, command, *options = shlex.split(compose["services"]["mlflow"]["command"])
    assert (mlflow, command) == ("mlflow", "server")
    # Importing MLflow's command line takes ten seconds; its text holds the names as well.
    package = Path(next(iter(importlib.util.find_spec("mlflow").submodule_search_locations)))
    texts = [package / "cli" / "__init__.py", package / "utils" / "cli_args.py"]
    known = {name for text in texts for name in re.findall(r'"(--[a-z-]+)"', text.read_text())}
    assert "--no-such-option" not in known
    assert {option for option in options if option.startswith("--")} <= known


def test_the_server_is_reached_from_this_machine_only_unless_told(compose: Any) -> None:
    assert compose["services"]["mlflow"]["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]
    assert [name for name, each in compose["services"].items() if "ports" in each] == ["mlflow"]
