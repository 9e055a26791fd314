"""Commands that run a bundle: what they print for people and for scripts, and what they refuse."""

import json
from pathlib import Path

import pytest
from PIL import Image

from exported_bundle import Exported
from runtime_pruning.cli import main


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A folder of images per class, of two classes."""
    test = exported.data.test
    for number in range(40):
        place = tmp_path / str(test.labels_N[number])
        place.mkdir(exist_ok=True)
        Image.fromarray(test.images_NCHW[number, 0]).save(place / f"{number}.png")
    return tmp_path


def test_predict_labels_files_and_folders(
    exported: Exported, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sorted(folder.rglob("*.png"))[0]
    assert main(["predict", str(exported.folder), str(one)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{one}: ")
    assert line.endswith("% of dense)")
    assert main(["predict", str(exported.folder), str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["image"] for each in told] == [str(p) for p in sorted(folder.rglob("*.png"))]
    assert set(told[0]) == {"image", "label", "probability", "macs"}
    assert line == (
        f"{one}: {told[0]['label']} {told[0]['probability']:.1%}, {told[0]['macs']:,} MACs "
        f"(100.0% of dense)"
    )
    cheapest = exported.card.stops[0].macs_per_image[1]
    budget = f"macs={cheapest}"
    assert main(["predict", str(exported.folder), str(one), "--json", "--budget", budget]) == 0
    assert json.loads(capsys.readouterr().out)[0]["macs"] == cheapest


def test_evaluate_a_folder_and_a_split(
    exported: Exported, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(exported.folder), str(folder)]) == 0
    assert "of 40 images are labelled rightly" in capsys.readouterr().out
    split = ["--split", "validation", "--batch", "1", "8", "--json", "--threads", "1"]
    assert main(["evaluate", str(exported.folder), *split]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"][1] == exported.shipments[2].record.correct_N.mean()
    assert len(told["timings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{bundle}", "nowhere.png"], "There is no image 'nowhere.png'."),
        (["predict", "{empty}", "{empty}"], "holds a card.json"),
        (["predict", "{bundle}", "{empty}"], "holds no images"),
        (["evaluate", "{bundle}"], "Give a folder of images per class or a --split"),
        (["evaluate", "{bundle}", "{empty}", "--split", "test"], "and not both"),
        (["evaluate", "{bundle}", "--split", "test", "--budget", "macs=1"], "`macs >= "),
        (
            ["export", "point", "--out", "{empty}/x", "--results", "{empty}"],
            "No sweep has left results in",
        ),
        (["export", "point", "--out", "{bundle}"], "must be empty"),
    ],
)
def test_bad_input_is_refused(
    exported: Exported,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"bundle": exported.folder, "empty": tmp_path / "empty"}
    assert main([each.format(**names) for each in arguments]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert message in told
