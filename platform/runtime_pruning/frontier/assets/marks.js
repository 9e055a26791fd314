// Marks of methods: one outline on the canvas and in SVG. Units: the mark's radius.
"use strict";

const star = (points, inner, turn = -Math.PI / 2) =>
  Array.from({ length: 2 * points }, (_, i) => {
    const r = i % 2 ? inner : 1, angle = turn + (i * Math.PI) / points;
    return [r * Math.cos(angle), r * Math.sin(angle)];
  });
const polygon = (corners, turn = -Math.PI / 2) =>
  Array.from({ length: corners }, (_, i) => {
    const angle = turn + (2 * i * Math.PI) / corners;
    return [Math.cos(angle), Math.sin(angle)];
  });
const plus = [[-.35, -1], [.35, -1], [.35, -.35], [1, -.35], [1, .35], [.35, .35], [.35, 1],
  [-.35, 1], [-.35, .35], [-1, .35], [-1, -.35], [-.35, -.35]];
const half = Math.SQRT1_2;
const OUTLINES = {
  circle: polygon(20), square: polygon(4, Math.PI / 4), "triangle-up": polygon(3),
  diamond: polygon(4), "triangle-down": polygon(3, Math.PI / 2), pentagon: polygon(5),
  hexagon: polygon(6), plus, "triangle-left": polygon(3, Math.PI), "triangle-right": polygon(3, 0),
  x: plus.map(([x, y]) => [half * (x - y), half * (x + y)]), star: star(5, 0.45),
};

/** Add an outline to a path of the canvas. */
function trace(path, shape, x, y, radius) {
  const outline = OUTLINES[shape];
  path.moveTo(x + radius * outline[0][0], y + radius * outline[0][1]);
  for (let i = 1; i < outline.length; i++) {
    path.lineTo(x + radius * outline[i][0], y + radius * outline[i][1]);
  }
  path.closePath();
}

/** A mark as SVG; a reader reads the word beside it. */
function markSvg(look, filled = true) {
  const outline = OUTLINES[look.shape].map((corner) => corner.map((v) => (6 * v).toFixed(2)));
  const fill = filled ? look.colour : "none";
  return `<svg viewBox="-8 -8 16 16" aria-hidden="true"><polygon points="${outline.join(" ")}"
    fill="${fill}" stroke="${look.colour}" stroke-width="1.6"/></svg>`;
}
