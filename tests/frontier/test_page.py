"""The page in headless Chromium: quiet, whole, readable; its choice is `choose`'s."""

import importlib.util
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from runtime_pruning.frontier import style
from runtime_pruning.frontier.choosing import Candidate, Constraints, choose
from runtime_pruning.frontier.page import draw_page
from runtime_pruning.frontier.showing import Extras, Live, Setting, candidates_of, latency_ms
from runtime_pruning.frontier.summary import FrontierSummary
from runtime_pruning.frontier.uncertainty import Interval

Shown = tuple[FrontierSummary, Extras, Setting]
DEVICE = "epyc-t1-float32"


def beside(name: str) -> ModuleType:
    """Return a module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


browsing = beside("browsing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown() -> Shown:
    result: Shown = beside("pages").shown()
    return result


@pytest.fixture(scope="module")
def path(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary, extras, setting = shown
    path = tmp_path_factory.mktemp("page") / "frontier.html"
    draw_page(summary, path, extras=extras, setting=setting)
    return path


def pool_of(shown: Shown) -> list[Candidate]:
    summary, extras, _ = shown
    details = {id_: extra.details for id_, extra in extras.items() if extra.details}
    milliseconds = {id_: latency_ms(timings) for id_, timings in summary.timings.items()}
    return candidates_of(summary.points, details, milliseconds)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_it_is_whole_and_quiet(browser: Browser, path: Path, width: int, dark: bool) -> None:
    visit = browsing.Visit(browser, path.as_uri(), width=width, dark=dark)
    page = visit.page
    assert page.title() == "resnet20-cifar on cifar10: accuracy against cost"
    page.click("#body button")
    assert page.is_visible("#card-heading")
    shown = page.evaluate(
        """() => ({
          wide: document.documentElement.scrollWidth - innerWidth,
          small: Math.min(...[...document.querySelectorAll('body *')]
            .filter((e) => e.offsetParent && e.textContent.trim())
            .map((e) => parseFloat(getComputedStyle(e).fontSize))),
          paper: getComputedStyle(document.body).backgroundColor,
          named: [...document.querySelectorAll('input, select, button, img, [role=region]')]
            .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.alt
              || e.getAttribute('aria-labelledby') || e.textContent.trim())).length,
          ids: [...document.querySelectorAll('[id]')].length
            - new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size,
        })"""
    )
    assert shown["wide"] <= 0  # nothing is cut off at 390 pixels
    assert shown["small"] >= 11
    assert shown["paper"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert shown["named"] == 0  # a screen reader has a name for everything that can be used
    assert shown["ids"] == 0
    assert visit.said == []
    assert visit.asked == [path.as_uri()]  # no server, no network
    visit.close()


def random_constraints(rng: random.Random) -> dict[str, Any]:
    """A few constraints, from such that nothing fits to such that everything does."""
    asked: dict[str, Any] = {}
    if rng.random() < 0.6:
        asked["min_accuracy"] = round(rng.uniform(0.55, 0.97), 3)
    if rng.random() < 0.5:
        asked["max_macs_fraction"] = round(rng.uniform(0.15, 1.0), 2)
    if rng.random() < 0.4:
        asked["max_class_loss"] = round(rng.uniform(0.0, 0.4), 3)
    if rng.random() < 0.5:
        asked |= {"device": DEVICE, "batch": rng.choice([1, 64])}
        limit = {1: 4.0, 64: 110.0}[asked["batch"]]
        asked[rng.choice(["max_p50_ms", "max_p95_ms"])] = round(limit * rng.uniform(0.1, 1.1), 2)
    if rng.random() < 0.3:
        asked["method"] = rng.choice(["rnp", "cascade", "fixed-width", "magnitude"])
    if rng.random() < 0.2:
        asked["prefer"] = rng.choice(["accuracy", "cost"])
    return asked


def test_its_choice_is_the_command_lines(browser: Browser, path: Path, shown: Shown) -> None:
    visit, pool, rng = browsing.Visit(browser, path.as_uri()), pool_of(shown), random.Random(0)
    outcomes = set()
    for _ in range(20):
        asked = random_constraints(rng)
        choice = choose(pool, Constraints(**asked))
        found = visit.page.evaluate(
            """(asked) => {
              const told = ({ candidate, failures }) =>
                [candidate.point_id, failures.map((f) => [f.constraint, f.value, f.limit])];
              const choice = choose(points, asked);
              return [choice.best?.point_id ?? null, choice.feasible,
                choice.nearest && told(choice.nearest), choice.runnersUp.map(told)];
            }""",
            asked,
        )
        told = [
            [each.candidate.point_id, [[f.constraint, f.value, f.limit] for f in each.failures]]
            for each in (choice.nearest_miss, *choice.runners_up)
            if each is not None
        ]
        near = told.pop(0) if choice.nearest_miss else None
        best = None if choice.best is None else choice.best.point_id
        assert found == [best, choice.feasible, near, told], asked
        outcomes.add((best is None, near is None))
    # A point, a nearest miss, and nothing near: all were tried.
    assert outcomes == {(False, True), (True, False), (True, True)}
    visit.close()


def test_the_form_asks_for_what_is_written(browser: Browser, path: Path, shown: Shown) -> None:
    visit, pool = browsing.Visit(browser, path.as_uri()), pool_of(shown)
    page = visit.page
    page.fill("[name=min_accuracy]", "81,7")  # a comma is a point
    page.select_option("[name=device]", f"{DEVICE} 64")
    page.fill("[name=max_p95_ms]", "100")
    asked = Constraints(min_accuracy=0.817, device=DEVICE, batch=64, max_p95_ms=100.0)
    best = choose(pool, asked).best
    assert best is not None
    assert page.get_attribute(".answer", "data-point") == best.point_id
    assert f"runtime-pruning export {best.point_id}" in page.inner_text("#choice")
    page.fill("[name=max_p95_ms]", "0.01")
    assert "No point is feasible. The nearest miss:" in page.inner_text("#choice")
    assert "> 0.01 ms" in page.inner_text("#choice")
    page.fill("[name=max_p95_ms]", "4 or so")
    assert page.get_attribute("[name=max_p95_ms]", "aria-invalid") == "true"
    page.click("button[type=reset]")
    page.wait_for_function("!document.querySelector('.answer')")
    assert visit.said == []
    visit.close()


def test_axes_splits_and_filters(browser: Browser, path: Path, shown: Shown) -> None:
    summary, extras, _ = shown
    visit = browsing.Visit(browser, path.as_uri())
    page = visit.page

    def seen() -> dict[str, Any]:
        facts: dict[str, Any] = page.evaluate(
            """() => ({front: scene.onFront.map((p) => points[p].point_id),
              visible: scene.visible.map((p) => points[p].point_id), stairs: scene.stairs,
              y: scene.onFront.map((p) => scene.y[p]), low: scene.corners.map((c) => c.low)})"""
        )
        return facts

    on_macs = seen()
    assert on_macs["front"] == [point.point_id for point in summary.front]
    assert on_macs["low"] == pytest.approx(
        np.maximum.accumulate(summary.accuracy.low_P[summary.on_front_P]).tolist()
    )
    key = f"{DEVICE}.1.p95"
    page.select_option("#axis", key)
    timed = {c.point_id: c for c in pool_of(shown) if key in c.latency_ms}
    by_time = sorted(timed.values(), key=lambda c: (c.latency_ms[key], -c.accuracy))
    best, front = 0.0, []
    for candidate in by_time:
        if candidate.accuracy > best:
            best = candidate.accuracy
            front.append(candidate.point_id)
    on_time = seen()
    assert on_time["front"] == front
    assert set(on_time["visible"]) == set(timed)
    assert "p95 in ms, batch 1" in page.inner_text("#head")
    # On test: the front as it was chosen on validation, where it was tested.
    page.select_option("#axis", "macs")
    page.select_option("#split", "test")
    on_test = seen()
    tested = {id_: extra.tested for id_, extra in extras.items() if extra.tested}
    assert on_test["front"] == [p.point_id for p in summary.front if p.point_id in tested]
    assert not on_test["stairs"]
    accuracies = [tested[id_].figures.accuracy for id_ in on_test["front"]]
    assert on_test["y"] == pytest.approx(accuracies)
    page.select_option("#split", "validation")
    # A method that is hidden takes its verdicts and its rows along.
    page.uncheck("input[value=rnp]")
    assert not {p.point_id for p in summary.points if p.method == "rnp"} & set(seen()["visible"])
    assert "rnp" not in page.inner_text("#body")
    assert seen()["front"] == on_macs["front"]  # the front stays that of all points
    visit.close()


def test_a_page_of_the_test_split_chooses_nothing(
    browser: Browser, shown: Shown, tmp_path: Path
) -> None:
    summary, extras, setting = shown
    points = tuple(replace(point, split="test") for point in summary.points)
    chosen_P = np.array([p in (1, 4) for p in range(len(points))])  # neither the best nor all
    path = tmp_path / "frontier.html"
    draw_page(
        replace(summary, points=points, on_front_P=chosen_P), path, extras=extras, setting=setting
    )
    visit = browsing.Visit(browser, path.as_uri())
    assert visit.page.evaluate("scene.onFront") == [1, 4]
    assert visit.page.evaluate("data.axes.map((axis) => axis.key)") == ["macs"]
    assert not visit.page.evaluate("scene.stairs")
    assert "as chosen on validation, read on test" in visit.page.inner_text("#legend-words")
    assert visit.said == []
    visit.close()


def test_by_keyboard_and_by_link(browser: Browser, path: Path, shown: Shown) -> None:
    summary, _, _ = shown
    visit = browsing.Visit(browser, path.as_uri())
    page = visit.page
    page.focus("#chart")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    second = summary.points[1]
    assert f"{second.method}, accuracy {100 * second.accuracy:.2f} %" in page.inner_text("#walk")
    tip = page.inner_text("#tip")
    assert second.method in tip
    assert "[" in tip  # its interval
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "card-heading"
    assert page.url.endswith(f"#point={second.point_id}")
    link = page.get_attribute("#card a", "href")
    assert link == f"http://127.0.0.1:5000/#/experiments/1/runs/{second.point_id}"
    visit.close()
    again = browsing.Visit(browser, f"{path.as_uri()}#point={second.point_id}")
    assert second.point_id in again.page.inner_text("#card")
    again.close()


def test_a_card_says_what_is_known(browser: Browser, path: Path, shown: Shown) -> None:
    summary, extras, _ = shown
    proved = next(p for p in summary.points if summary.proof_of(p) and extras[p.point_id].tested)
    visit = browsing.Visit(browser, f"{path.as_uri()}#point={proved.point_id}")
    card = visit.page.inner_text("#card")
    proof, extra = summary.proof_of(proved), extras[proved.point_id]
    assert proof is not None
    assert extra.tested is not None
    assert extra.details is not None
    assert f"Against each control: {proof.verdict}" in card
    assert f"{extra.tested.figures.accuracy:.2%}".replace("%", " %") in card
    assert "speed-up" in card
    assert "fraction" in visit.page.text_content("#card details")
    worst = card[card.index("Accuracy per class") :]
    assert re.search(r"\b(plane|car|bird|cat|deer|dog|frog|horse|ship|truck)\b", worst)
    assert visit.page.locator("#card .strip img").count() == 12
    loaded = "[...document.querySelectorAll('.strip img')].every((i) => i.naturalWidth === 32)"
    assert visit.page.evaluate(loaded)
    assert "runtime-pruning export" in card
    visit.close()


def test_ten_thousand_points(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    summary, _, _ = shown
    rng, count = np.random.default_rng(0), 10_000
    share_P = np.sort(rng.uniform(0.1, 1.0, count))
    base, points = summary.points[0], []
    for index, share in enumerate(share_P.tolist()):
        macs = share * base.dense_macs
        accuracy = 0.9 * (1 - np.exp(-5 * share)) - float(rng.exponential(0.05))
        figures = replace(
            base.figures, accuracy=accuracy, macs_fraction=share, executed_macs_per_image=macs
        )
        points.append(replace(base, index=index, figures=figures))
    accuracy_P = np.array([point.accuracy for point in points])
    on_front_P = np.maximum.accumulate(accuracy_P) <= accuracy_P
    many = replace(
        summary,
        points=tuple(points),
        on_front_P=on_front_P,
        accuracy=Interval(accuracy_P - 0.01, accuracy_P + 0.01),
        probability_P=on_front_P.astype(float),
        proofs={},
        timings={},
    )
    path = tmp_path / "many.html"
    draw_page(many, path)
    assert path.stat().st_size < 6_000_000
    started = time.monotonic()
    visit = browsing.Visit(browser, path.as_uri())
    assert visit.page.evaluate("scene.visible.length") == count
    assert time.monotonic() - started < 30  # a second or two where nobody else computes
    visit.page.select_option("#rows", "all")
    assert visit.page.locator("#body tr").count() == 100
    visit.page.click("#more")
    assert visit.page.locator("#body tr").count() == 200
    assert visit.said == []
    visit.close()


def test_a_live_page_takes_newer_data_over(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    summary, extras, setting = shown
    live = replace(setting, live=Live(beside="frontier-data.js", every_s=0.2))
    fewer = replace(
        summary,
        points=summary.points[:-1],
        on_front_P=summary.on_front_P[:-1],
        accuracy=Interval(*(end[:-1] for end in summary.accuracy)),
        probability_P=summary.probability_P[:-1],
    )
    path = tmp_path / "frontier.html"
    draw_page(fewer, path, extras=extras, setting=live)
    visit = browsing.Visit(browser, path.as_uri())
    visit.page.fill("[name=min_accuracy]", "80")
    visit.page.click("#body button")
    heading = visit.page.inner_text("#card-heading")
    draw_page(summary, path, extras=extras, setting=live)
    count = len(summary.points)
    visit.page.wait_for_function(f"points.length === {count}", timeout=10_000)
    assert f"Live: {count} points" in visit.page.inner_text("#status")
    # What the reader had asked for and opened is still there.
    assert visit.page.input_value("[name=min_accuracy]") == "80"
    assert visit.page.inner_text("#card-heading") == heading
    draw_page(summary, path, extras=extras, setting=setting)  # the sweep has ended
    visit.close()


def test_text_from_outside_stays_text(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    summary, extras, setting = shown
    evil = "</script><img src=x onerror=alert(1)>"
    points = tuple(replace(p, backbone=evil, config={"note": evil}) for p in summary.points)
    path = tmp_path / "frontier.html"
    draw_page(replace(summary, points=points), path, extras=extras, setting=setting)
    visit = browsing.Visit(browser, path.as_uri())
    visit.page.click("#body button")
    assert visit.page.locator("img[src=x]").count() == 0
    assert evil in visit.page.inner_text("#title")
    assert visit.said == []
    visit.close()


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


KNOWN = ["cascade", "rnp", "constrained-rl", "w-gates", "manidp", "lpnet", "magnitude", "vanilla"]


def test_each_method_has_one_look_everywhere() -> None:
    looks = {method: style.look(method) for method in [*KNOWN, "fixed-width", "upper-bound"]}
    assert len(set(looks.values())) == len(looks)
    for look in [*looks.values(), *(style.look(f"theirs-{i}") for i in range(20))]:
        for paper in ("#ffffff", style.LIGHT_PANEL, style.DARK_PANEL):
            assert contrast(look.colour, paper) >= 3, look
    assert style.look("theirs-1") == style.look("theirs-1")


def test_the_data_is_plain_json(path: Path, shown: Shown) -> None:
    text = path.read_text()
    start = text.index('id="data">') + len('id="data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["points"]["point_id"] == [p.point_id for p in shown[0].points]
    assert data["sweeps"] == ["s1"]
    assert asdict(pool_of(shown)[0])["class_loss"] == data["points"]["class_loss"][0]
    assert path.stat().st_size < 400_000
