"""The Dockerfiles, parsed: known instructions, sources that exist, the pinned versions."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Of Docker's reference for Dockerfiles.
INSTRUCTIONS = """ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL
STOPSIGNAL USER VOLUME WORKDIR"""


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments) of a Dockerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, arguments.strip())
        for name, _, arguments in (line.partition(" ") for line in joined.splitlines() if line)
    ]


@pytest.fixture(params=["Dockerfile", "mlflow/Dockerfile"])
def parsed(request: pytest.FixtureRequest, cluster: Path) -> list[tuple[str, str]]:
    return instructions((cluster / request.param).read_text())


def test_instructions_are_dockers_and_begin_with_an_image(parsed: list[tuple[str, str]]) -> None:
    names = [name for name, _ in parsed]
    assert set(names) <= set(INSTRUCTIONS.split())
    assert next(name for name in names if name != "ARG") == "FROM"
    assert all(arguments for _, arguments in parsed)


def test_the_parser_sees_an_unknown_instruction() -> None:
    assert instructions("FROM a\n# no\nRUN b \\\n    c\nCOPPY d e\n") == [
        ("FROM", "a"),
        ("RUN", "b c"),
        ("COPPY", "d e"),
    ]


def test_what_is_copied_exists(parsed: list[tuple[str, str]]) -> None:
    for name, arguments in parsed:
        if name == "COPY":
            *sources, _ = [word for word in shlex.split(arguments) if not word.startswith("--")]
            assert [source for source in sources if not (ROOT / source).exists()] == []


def test_it_does_not_run_as_root(parsed: list[tuple[str, str]]) -> None:
    assert [user for name, user in parsed if name == "USER"][-1] != "root"


def test_nodes_have_the_pinned_ray_and_a_compiler(cluster: Path, ray_image: str) -> None:
    parsed = instructions((cluster / "Dockerfile").read_text())
    assert ("ARG", f"RAY={ray_image}") in parsed
    assert any(name == "RUN" and "install" in line and "g++" in line for name, line in parsed)


def test_the_servers_pins_agree_with_the_platforms(cluster: Path) -> None:
    lines = (cluster / "mlflow" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    ours = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    assert pins["mlflow"] == ours["mlflow"]
    assert {name: pins[name] for name in pins if name in ours and pins[name] != ours[name]} == {}
