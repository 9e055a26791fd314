"""The frontier as one interactive HTML file that needs no server and no network.

Its parts lie in ``assets``: uPlot (MIT) draws axes, grid and zoom; all scripts, styles and data are
inside the file.
"""

import html
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from runtime_pruning.files import write_text
from runtime_pruning.frontier.page_data import page_data
from runtime_pruning.frontier.showing import Extras, Setting
from runtime_pruning.frontier.summary import FrontierSummary

_SCRIPTS = (
    "uplot/uPlot.iife.min.js",
    "choose.js",
    "marks.js",
    "chart.js",
    "page.js",
    "card.js",
    "boot.js",
)
_STYLES = ("uplot/uPlot.min.css", "page.css")


def draw_page(
    summary: FrontierSummary,
    path: Path,
    *,
    extras: Extras | None = None,
    setting: Setting | None = None,
) -> None:
    """Write the page to ``path``, whole or not at all; a live one's data is written beside it.

    Args:
        summary: points, front and intervals.
        path: of the page.
        extras: what is known of points beside it, by point id.
        setting: what is known of the world around them.
    """
    setting = setting or Setting()
    data = page_data(summary, extras or {}, setting)
    page = Template(_asset("page.html")).substitute(
        title=html.escape(data["title"]),
        styles="\n".join(map(_asset, _STYLES)),
        data=_script_safe(data),
        scripts="\n".join(map(_asset, _SCRIPTS)),
    )
    if setting.live is not None:
        write_text(path.with_name(setting.live.beside), f"takeFrontier({_script_safe(data)});\n")
    write_text(path, page)


def _asset(name: str) -> str:
    return files("runtime_pruning.frontier").joinpath("assets", name).read_text(encoding="utf-8")


def _script_safe(data: dict[str, Any]) -> str:
    """Return JSON that ends no script element: no `<` is left in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
