"""The command as a whole: its table of contents, how it ends, and what it imports."""

import subprocess
import sys

import pytest
import typer

from runtime_pruning.cli import main
from runtime_pruning.cli.app import build_app, run
from runtime_pruning.cli.options import Panel
from runtime_pruning.errors import ContractError, RuntimePruningError, UserError


def test_help_reads_like_a_table_of_contents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(panel) for panel in Panel]
    assert places == sorted(places)
    for command in typer.main.get_command(build_app()).commands.values():  # type: ignore[attr-defined]
        line = next(line for line in told.splitlines() if f"│ {command.name} " in line)
        assert command.help.splitlines()[0].rstrip(".") in line, f"{command.name} takes two lines"


def test_without_a_word_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: runtime-pruning" in capsys.readouterr().out


def test_help_has_colours_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "\x1b" not in capsys.readouterr().out


def test_help_and_completion_import_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from runtime_pruning.cli import main; assert main(['sweep', '--help']) == 0; "
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("runtime-pruning che", "check-backbone"), ("runtime-pruning sweep --preset dig", "digits")],
)
def test_it_completes_commands_and_names(
    words: str,
    offered: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_RUNTIME_PRUNING_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert offered in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "No such command 'swep'. Did you mean 'sweep'?"),
        (["report"], "Missing argument 'sweep_ids"),
        (
            ["measure", "x", "--dataset", "d", "--images", "many"],
            "as an integer, but got 'many'. See `runtime-pruning measure",
        ),
        (
            ["report", "x", "--split", "training"],
            "for '--split': 'training' is not one of 'validation', 'test'.",
        ),
        (["plugins", "more"], "Got unexpected extra argument(s) (more)"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("No."), 2),
        (ContractError("No."), 2),
        (RuntimePruningError("No."), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_how_it_ends(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    assert run(app, "fail", ["--"]) == code
    assert capsys.readouterr().err == ("" if code == 130 else "error: No.\n")
