"""The frontier as one interactive HTML file that needs no network: plotly.js is inside."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from runtime_pruning.frontier import style
from runtime_pruning.frontier.summary import FrontierSummary


def draw_page(summary: FrontierSummary, path: Path, *, dense_accuracy: float | None) -> None:
    """Write the page to ``path``; hovering over a point shows its configuration."""
    figure = go.Figure()
    _add_front(figure, summary)
    for method, look in style.looks(summary).items():
        _add_points(figure, summary, method, look)
    _add_verdicts(figure, summary)
    _add_dense(figure, summary, dense_accuracy)
    _dress(figure, summary, dense_accuracy)
    config = {"displaylogo": False, "responsive": True}
    figure.write_html(
        path, include_plotlyjs=True, config=config, div_id="frontier", default_height="96vh"
    )


def _add_front(figure: go.Figure, summary: FrontierSummary) -> None:
    """Add the band as two staircases with the space between them filled, then the front."""
    corner = style.steps(summary)
    stairs: dict[str, Any] = {"x": corner.macs.tolist(), "mode": "lines", "hoverinfo": "skip"}
    name = f"{summary.level:.0%} band of the front"
    figure.add_scatter(
        y=corner.high.tolist(), line={"width": 0, "shape": "hv"}, showlegend=False,
        legendgroup="band", **stairs,
    )  # fmt: skip
    figure.add_scatter(
        y=corner.low.tolist(), line={"width": 0, "shape": "hv"}, fill="tonexty",
        fillcolor=style.BAND, legendgroup="band", name=name, **stairs,
    )  # fmt: skip
    figure.add_scatter(
        y=corner.accuracy.tolist(), line={"width": 2, "shape": "hv", "color": style.FRONT},
        name="front", **stairs,
    )  # fmt: skip


def _add_points(figure: go.Figure, summary: FrontierSummary, method: str, look: style.Look) -> None:
    """Add a method's points: filled on the front, hollow behind it, with bars for the interval."""
    chosen = [p for p, point in enumerate(summary.points) if point.method == method]
    points = [summary.points[p] for p in chosen]
    fills = [look.colour if summary.on_front_P[p] else "white" for p in chosen]
    hover = [
        f"{style.label(summary.points[p], summary.proof_of(summary.points[p]))}"
        "<br>on the front in "
        f"{summary.probability_P[p]:.0%} of redraws<extra></extra>"
        for p in chosen
    ]
    figure.add_scatter(
        x=[point.executed_macs_per_image for point in points],
        y=[point.accuracy for point in points],
        error_y={
            "type": "data",
            "array": [summary.accuracy.high_P[p] - summary.points[p].accuracy for p in chosen],
            "arrayminus": [summary.points[p].accuracy - summary.accuracy.low_P[p] for p in chosen],
            "color": look.colour,
            "thickness": 1,
            "width": 0,
        },
        mode="markers",
        name=method,
        marker={
            "symbol": look.symbol,
            "size": 11,
            "color": fills,
            "line": {"color": look.colour, "width": 2},
        },
        hovertemplate=hover,
    )


def _add_verdicts(figure: go.Figure, summary: FrontierSummary) -> None:
    """Ring the points whose decisions depend on the image; cross those whose decisions do not."""
    for verdict, points in style.proved(summary).items():
        words, _, symbol = style.VERDICTS[verdict]
        figure.add_scatter(
            x=[point.executed_macs_per_image for point in points],
            y=[point.accuracy for point in points],
            mode="markers",
            name=words,
            marker={"symbol": symbol, "size": 19, "color": style.INK, "line": {"width": 2}},
            hoverinfo="skip",
        )


def _add_dense(figure: go.Figure, summary: FrontierSummary, dense_accuracy: float | None) -> None:
    """Mark the cost of the dense network, and the network itself if it was measured."""
    dense_macs = summary.points[0].dense_macs
    line = {"color": style.FAINT, "width": 1, "dash": "dash"}
    figure.add_vline(x=dense_macs, line=line, layer="below")
    if dense_accuracy is None:
        return
    figure.add_hline(y=dense_accuracy, line=line, layer="below")
    text = f"accuracy {100 * dense_accuracy:.2f} %<br>{dense_macs / 1e6:.3f} M MACs"
    if summary.dense is not None:
        text = style.label(summary.dense)
    figure.add_scatter(
        x=[dense_macs],
        y=[dense_accuracy],
        mode="markers",
        name="dense network",
        marker={"symbol": "star", "size": 17, "color": style.INK},
        hovertemplate=f"<b>dense network</b><br>{text}<extra></extra>",
    )


def _dress(figure: go.Figure, summary: FrontierSummary, dense_accuracy: float | None) -> None:
    """Set titles, axes and legend; the upper ticks are shares of the dense cost."""
    title, subtitle = style.words(summary)
    frame = style.frame(summary, dense_accuracy)
    dense_macs = summary.points[0].dense_macs
    shares = [share / 10 for share in range(0, 11, 2)]
    figure.update_layout(
        template="plotly_white",
        title={
            "text": f"<b>{title}</b><br><sup>{subtitle}</sup>",
            "x": 0.02,
            "y": 0.97,
            "yanchor": "top",
        },
        font={"family": "system-ui, sans-serif", "size": 15, "color": style.INK},
        legend={"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
        margin={"l": 80, "r": 30, "t": 95, "b": 70},
        hoverlabel={"align": "left", "font": {"size": 13}},
        xaxis={
            "title": "executed MACs per image (policy included)",
            "range": frame.macs,
            "tickformat": "~s",
        },
        yaxis={"title": "accuracy", "range": frame.accuracy, "tickformat": ".1%"},
        xaxis2={
            "overlaying": "x",
            "side": "top",
            "matches": "x",
            "tickvals": [share * dense_macs for share in shares],
            "ticktext": [*(f"{share:.0%}" for share in shares[:-1]), "100% of dense"],
            "tickfont": {"size": 13, "color": style.FAINT},
            "showgrid": False,
        },
    )
    # An axis without a trace of its own is not drawn.
    figure.add_scatter(
        x=[0], y=[frame.accuracy[0]], xaxis="x2", opacity=0, showlegend=False, hoverinfo="skip"
    )
