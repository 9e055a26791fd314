// The chart: uPlot draws axes, grid and zoom; the marks are drawn on its canvas.
"use strict";

const REACH = 26; // CSS pixels from which a point is found

/** Draws what `scene()` returns; see `page.js`. `hovered` and `picked` are called with a point. */
class FrontierChart {
  constructor(host, scene, hovered, picked) {
    Object.assign(this, { host, scene, hovered, picked, ranges: null, plot: null });
    new ResizeObserver(() => this.resize()).observe(host);
  }

  get size() {
    const width = Math.max(260, this.host.clientWidth);
    return { width, height: Math.round(Math.min(520, Math.max(320, width * 0.62))) };
  }

  resize() {
    if (this.plot && this.plot.width !== this.size.width) this.plot.setSize(this.size);
  }

  /** Build anew: another theme, axis or split. */
  build() {
    const css = getComputedStyle(document.documentElement);
    this.colour = (name) => css.getPropertyValue(`--${name}`).trim();
    if (this.plot) this.plot.destroy();
    this.ranges = this.scene().frontRanges;
    const axis = (more) => ({ stroke: this.colour("faint"), font: "13px system-ui", labelFont: "14px system-ui",
      grid: { stroke: this.colour("grid"), width: 1 }, ticks: { show: false }, ...more });
    const scene = this.scene();
    const share = (u) => u.axes[2] && scene.dense ? { from: u.scales.x.min / scene.dense, to: u.scales.x.max / scene.dense } : null;
    const axes = [
      axis({ label: this.size.width < 520 ? scene.xShort : scene.xLabel, labelSize: 26, size: 34, space: 65, values: (u, all) => all.map(scene.xText) }),
      axis({ label: "accuracy", labelSize: 24, size: 56, values: (u, all) => all.map((v) => percent(v, 1)) }),
    ];
    if (scene.dense) {
      axes.push(axis({ side: 0, size: 26, scale: "x", space: 60, grid: { show: false },
        splits: (u) => niceShares(share(u), u.width / 75).map((s) => s * scene.dense),
        values: (u, all) => all.map((v) => `${Math.round((100 * v) / scene.dense)} %`),
        label: `of dense ${scene.noun}`, labelSize: 22 }));
    }
    this.plot = new uPlot({
      ...this.size, padding: [8, 18, 0, 0], legend: { show: false }, axes,
      series: [{}, { paths: () => null, points: { show: false } }],
      scales: {
        x: { time: false, range: () => this.ranges.x },
        y: { range: () => this.ranges.y },
      },
      cursor: { drag: { x: true, y: true, uni: 20, setScale: false }, points: { show: false },
        bind: { dblclick: () => () => this.show(this.scene().frontRanges) } },
      hooks: {
        draw: [() => this.draw()],
        setCursor: [() => this.hovered(this.nearest(this.plot.cursor.left, this.plot.cursor.top))],
        setSelect: [() => this.zoomToSelection()],
        ready: [(u) => u.over.addEventListener("click", (event) => this.click(event))],
      },
    }, [[0], [0]], this.host);
  }

  click(event) {
    const box = this.plot.over.getBoundingClientRect();
    const p = this.nearest(event.clientX - box.left, event.clientY - box.top);
    if (p !== null) this.picked(p);
  }

  show(ranges) {
    this.ranges = ranges;
    this.redraw();
  }

  redraw() {
    if (!this.plot) return;
    this.plot.batch(() => {
      this.plot.setScale("x", { min: this.ranges.x[0], max: this.ranges.x[1] });
      this.plot.setScale("y", { min: this.ranges.y[0], max: this.ranges.y[1] });
    });
    this.plot.redraw(false, true);
  }

  zoom(factor) {
    const scale = ([low, high]) => {
      const middle = (low + high) / 2, half = ((high - low) / 2) * factor;
      return [middle - half, middle + half];
    };
    this.show({ x: scale(this.ranges.x), y: scale(this.ranges.y) });
  }

  zoomToSelection() {
    const { left, top, width, height } = this.plot.select;
    if (width < 4 && height < 4) return;
    const at = (value, axis) => this.plot.posToVal(value, axis);
    const x = width < 4 ? this.ranges.x : [at(left, "x"), at(left + width, "x")];
    const y = height < 4 ? this.ranges.y : [at(top + height, "y"), at(top, "y")];
    this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.show({ x, y });
  }

  /** The visible point that is nearest to a place in CSS pixels, or null. */
  nearest(left, top) {
    if (left == null || left < 0) return null;
    let best = null, least = REACH * REACH;
    for (const p of this.scene().visible) {
      const [x, y] = this.place(p);
      const square = (x - left) ** 2 + (y - top) ** 2;
      if (square < least) [best, least] = [p, square];
    }
    return best;
  }

  /** Where a point is, in CSS pixels from the plot's corner. */
  place(p) {
    const scene = this.scene();
    return [this.plot.valToPos(scene.x[p], "x"), this.plot.valToPos(scene.y[p], "y")];
  }

  /** Whether a point lies in what is shown now. */
  inside(p) {
    const { x, y } = this.scene(), [left, right] = this.ranges.x, [low, high] = this.ranges.y;
    return x[p] >= left && x[p] <= right && y[p] >= low && y[p] <= high;
  }

  draw() {
    const { ctx, bbox } = this.plot, scene = this.scene(), k = uPlot.pxRatio;
    const X = (value) => this.plot.valToPos(value, "x", true), Y = (value) => this.plot.valToPos(value, "y", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    this.drawFront(ctx, scene, X, Y, k);
    this.drawDense(ctx, scene, X, Y, k);
    if (scene.bars) this.drawBars(ctx, scene, X, Y, k);
    const radius = (scene.visible.length > 2000 ? 3.5 : 5.5) * k;
    for (const filled of [false, true]) this.drawMarks(ctx, scene, X, Y, radius, k, filled);
    this.drawVerdicts(ctx, scene, X, Y, radius, k);
    this.drawHighlights(ctx, scene, X, Y, radius, k);
    ctx.restore();
  }

  /** The staircase that a budget buys with its band; on test a line through the points as chosen. */
  drawFront(ctx, scene, X, Y, k) {
    const { corners } = scene;
    if (!corners.length) return;
    const stairs = (path, key, from, to, step) => {
      for (let i = from; i !== to; i += step) {
        const x = X(corners[i].x), y = Y(corners[i][key]), next = corners[i + 1];
        const end = next ? X(next.x) : X(scene.end);
        if (step > 0) { path.lineTo(x, y); path.lineTo(end, y); } else { path.lineTo(end, y); path.lineTo(x, y); }
      }
    };
    if (scene.stairs) {
      const band = new Path2D();
      stairs(band, "low", 0, corners.length, 1);
      stairs(band, "high", corners.length - 1, -1, -1);
      ctx.fillStyle = this.colour("band");
      ctx.fill(band);
    }
    const line = new Path2D();
    if (scene.stairs) stairs(line, "y", 0, corners.length, 1);
    else corners.forEach((corner) => line.lineTo(X(corner.x), Y(corner.y)));
    ctx.strokeStyle = this.colour("ink");
    ctx.lineWidth = 1.8 * k;
    ctx.stroke(line);
  }

  drawDense(ctx, scene, X, Y, k) {
    ctx.strokeStyle = this.colour("faint");
    ctx.lineWidth = k;
    ctx.setLineDash([5 * k, 4 * k]);
    const line = new Path2D();
    if (scene.dense) { line.moveTo(X(scene.dense), 0); line.lineTo(X(scene.dense), 1e5); }
    if (scene.denseAccuracy != null) { line.moveTo(0, Y(scene.denseAccuracy)); line.lineTo(1e5, Y(scene.denseAccuracy)); }
    ctx.stroke(line);
    ctx.setLineDash([]);
  }

  /** Intervals of the front's points and of what is pointed at: never of all. */
  drawBars(ctx, scene, X, Y, k) {
    for (const p of [...scene.onFront, ...scene.marked]) {
      if (!scene.isVisible(p) || scene.low[p] == null) continue;
      ctx.strokeStyle = scene.look(p).colour;
      ctx.lineWidth = 1.3 * k;
      ctx.stroke(new Path2D(`M${X(scene.x[p])} ${Y(scene.low[p])}V${Y(scene.high[p])}`));
    }
  }

  drawMarks(ctx, scene, X, Y, radius, k, filled) {
    const paths = new Map();
    for (const p of scene.visible) {
      if (scene.front.has(p) !== filled) continue;
      const look = scene.look(p), name = look.colour + look.shape;
      if (!paths.has(name)) paths.set(name, { look, path: new Path2D() });
      trace(paths.get(name).path, look.shape, X(scene.x[p]), Y(scene.y[p]), look.shape === "star" ? 1.6 * radius : radius);
    }
    for (const { look, path } of paths.values()) {
      ctx.fillStyle = filled ? this.ink(look) : this.colour("panel");
      ctx.globalAlpha = filled ? 1 : 0.85;
      ctx.fill(path);
      ctx.strokeStyle = this.ink(look);
      ctx.lineWidth = 1.6 * k;
      ctx.stroke(path);
      ctx.globalAlpha = 1;
    }
  }

  ink(look) {
    return look.colour === "ink" ? this.colour("ink") : look.colour;
  }

  /** A ring round decisions that depend on the image; a bar below those that were not shown to. */
  drawVerdicts(ctx, scene, X, Y, radius, k) {
    ctx.strokeStyle = this.colour("ink");
    ctx.lineWidth = 1.3 * k;
    for (const p of scene.visible) {
      const verdict = scene.verdict[p];
      if (!verdict) continue;
      const x = X(scene.x[p]), y = Y(scene.y[p]), path = new Path2D();
      if (verdict === "dynamic") path.arc(x, y, 1.75 * radius, 0, 2 * Math.PI);
      else { path.moveTo(x - radius, y + 1.8 * radius); path.lineTo(x + radius, y + 1.8 * radius); }
      ctx.stroke(path);
    }
  }

  drawHighlights(ctx, scene, X, Y, radius, k) {
    ctx.strokeStyle = this.colour("accent");
    for (const p of scene.marked) {
      if (!scene.isVisible(p)) continue;
      const path = new Path2D();
      path.arc(X(scene.x[p]), Y(scene.y[p]), 2.3 * radius, 0, 2 * Math.PI);
      ctx.lineWidth = (p === scene.best ? 3.5 : 2) * k;
      ctx.stroke(path);
    }
  }
}

/** Shares of dense at which the upper axis has ticks. */
function niceShares(range, most) {
  if (!range) return [];
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1].find((s) => (range.to - range.from) / s <= most) ?? 2;
  const first = Math.ceil(range.from / step);
  return Array.from({ length: Math.max(0, Math.floor(range.to / step) - first + 1) }, (_, i) => (first + i) * step);
}
