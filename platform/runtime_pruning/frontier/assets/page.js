// The page: what is asked for (axis, split, filters, constraints) and the parts that show it.
"use strict";

const $ = (id) => document.getElementById(id);
const percent = (value, digits = 2) => (value == null ? "" : `${(100 * value).toFixed(digits)} %`);
const signed = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(100 * value).toFixed(2)}`;
const macsText = (value) => {
  const [scale, unit] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : value >= 1e3 ? [1e3, "k"] : [1, ""];
  return `${Number((value / scale).toPrecision(3))} ${unit}`.trim();
};
const msText = (value) => `${Number(value.toPrecision(3))} ms`;

/** An element; text never becomes markup. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "html") node.innerHTML = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

let data, points, scene;
const state = { axis: "macs", split: "validation", off: new Set(), offBackbones: new Set(), bars: true,
  selected: null, hovered: null, best: null, rows: "front", limit: 100, asked: {} };

/** Columns to points: what the chooser takes, and all else that is shown of each. */
function unpack(raw) {
  const columns = raw.points, names = Object.keys(columns).filter((name) => name !== "latency_ms");
  return columns.point_id.map((_, p) => {
    const point = Object.fromEntries(names.map((name) => [name, columns[name][p]]));
    const timed = Object.entries(columns.latency_ms).filter(([, values]) => values[p] != null);
    point.latency_ms = Object.fromEntries(timed.map(([key, values]) => [key, values[p]]));
    point.method = raw.methods[point.method];
    point.backbone = raw.backbones[point.backbone];
    point.index = p;
    return point;
  });
}

const axisOf = () => data.axes.find((axis) => axis.key === state.axis) ?? data.axes[0];
/** Whether what is shown was read on test; the front is never chosen there. */
const isTest = () => state.split === "test" || data.split === "test";
const costOf = (point, axis = axisOf()) => (axis.key === "macs"
  ? (state.split === "test" ? point.test_macs : point.macs)
  : (point.latency_ms[axis.key] ?? null));
const accuracyOf = (point) => (state.split === "test" ? point.test_accuracy : point.accuracy);
const costText = (value, axis = axisOf()) => (axis.key === "macs" ? macsText(value) : msText(value));

/** What the chart draws, derived from data and state. */
function buildScene() {
  const axis = axisOf(), test = isTest(), onFront = axis.front.filter((p) => costOf(points[p]) != null && accuracyOf(points[p]) != null);
  const shown = points.filter((point) => costOf(point) != null && accuracyOf(point) != null);
  const visible = shown.filter((point) => !state.off.has(point.method) && !state.offBackbones.has(point.backbone)).map((point) => point.index);
  const inSight = new Set(visible);
  const x = points.map((point) => costOf(point)), y = points.map(accuracyOf);
  const dense = axis.key === "macs" ? data.dense_macs : axis.dense;
  const densePoint = points.find((point) => point.method === "dense" && point.dense);
  const corners = onFront.map((p) => {
    const i = axis.front.indexOf(p);
    return { x: x[p], y: y[p], low: test ? null : axis.low[i], high: test ? null : axis.high[i] };
  }).sort((a, b) => a.x - b.x);
  const end = Math.max(dense ?? 0, ...shown.map((point) => x[point.index]));
  scene = {
    x, y, onFront, front: new Set(onFront), visible, corners, end, dense, stairs: !test, bars: state.bars,
    low: points.map((point) => (state.split === "test" ? point.test_low : point.low)),
    high: points.map((point) => (state.split === "test" ? point.test_high : point.high)),
    denseAccuracy: densePoint ? accuracyOf(densePoint) : null,
    noun: axis.key === "macs" ? "MACs" : "time",
    isVisible: (p) => inSight.has(p),
    look: (p) => data.looks[points[p].method],
    verdict: points.map((point) => point.verdict),
    marked: [], best: null,
    xLabel: axis.label, xShort: axis.short, xText: (value) => (axis.key === "macs" ? macsText(value) : Number(value.toPrecision(3))),
  };
  scene.all = rangesOf(shown.map((point) => point.index));
  scene.frontRanges = rangesOf([...onFront, ...(densePoint && x[densePoint.index] != null ? [densePoint.index] : [])], true);
  mark();
}

/** Ranges that hold points; round the front there is room for what lies just below. */
function rangesOf(chosen, near = false) {
  const ys = chosen.flatMap((p) => [scene.low[p] ?? scene.y[p], scene.high[p] ?? scene.y[p], scene.y[p]]);
  if (!ys.length) return { x: [0, 1], y: [0, 1] };
  let low = Math.min(...ys), high = Math.max(...ys);
  const span = Math.max(high - low, 0.01);
  low -= (near ? 0.35 : 0.06) * span;
  if (near) low = Math.max(low, Math.min(...scene.visible.map((p) => scene.y[p]), low + 0.3 * span) - 0.06 * span);
  return { x: [0, 1.06 * scene.end], y: [low, Math.min(high + 0.08 * span, 1 + 0.02 * span)] };
}

function mark() {
  scene.marked = [...new Set([state.selected, state.best, state.hovered].filter((p) => p != null))];
  scene.best = state.best;
}

const chart = new FrontierChart($("chart"), () => scene, hover, (p) => open(p));

function draw() {
  buildScene();
  chart.build();
  showTable();
  showWords();
}

function refresh() {
  const ranges = chart.ranges;
  buildScene();
  chart.show(ranges);
  showTable();
  showWords();
}

function showWords() {
  const below = scene.visible.filter((p) => !chart.inside(p)).length;
  const split = isTest() ? "Filled and joined: the front as chosen on validation, read on test."
    : `Filled: on the front, chosen on validation; shaded: ${percent(data.level, 0)} band of what a budget buys.`;
  const verdicts = points.some((point) => point.verdict) ? " Ring: decisions depend on the image; bar below: not shown to beat its controls." : "";
  $("legend-words").textContent = `${split}${verdicts}${below ? ` ${below} point${below > 1 ? "s lie" : " lies"} outside of what is shown.` : ""}`;
  $("chart").setAttribute("aria-label", `Accuracy against ${axisOf().label}: ${scene.visible.length} points, ${scene.onFront.length} on the front. The table below holds the same.`);
}

function hover(p) {
  const tip = $("tip");
  if (p === state.hovered) return;
  state.hovered = p;
  mark();
  chart.plot.redraw(false, false);
  tip.hidden = p === null;
  if (p === null) return;
  const point = points[p], test = state.split === "test";
  const lines = [make("strong", {}, point.method), `${percent(accuracyOf(point))}${intervalText(scene.low[p], scene.high[p])}`,
    `${costText(scene.x[p])}${scene.dense ? `, ${percent(scene.x[p] / scene.dense, 1)} of dense` : ""}`];
  if (!test && point.test_accuracy != null) lines.push(`test ${percent(point.test_accuracy)}`);
  if (point.verdict) lines.push(point.verdict);
  tip.replaceChildren(...lines.flatMap((line, i) => (i ? [make("br"), line] : [line])));
  const [x, y] = chart.place(p), over = chart.plot.over, width = chart.host.clientWidth;
  const left = over.offsetLeft + x, top = over.offsetTop + y;
  tip.style.left = `${left > width / 2 ? Math.max(0, left - tip.offsetWidth - 16) : left + 16}px`;
  tip.style.top = `${Math.max(0, top > chart.plot.height / 2 ? top - tip.offsetHeight - 12 : top + 12)}px`;
}

const intervalText = (low, high) => (low == null ? "" : ` [${(100 * low).toFixed(2)}, ${(100 * high).toFixed(2)}]`);

/** Walk along the points by keys, cheapest first. */
function walk(event) {
  const order = [...scene.visible].sort((a, b) => scene.x[a] - scene.x[b] || a - b);
  if (!order.length || event.target !== $("chart")) return;
  const at = order.indexOf(state.hovered);
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at < 0 ? 0 : at - 1, ArrowUp: at < 0 ? 0 : at - 1, Home: 0, End: order.length - 1 }[event.key];
  if (event.key === "Enter" && at >= 0) { event.preventDefault(); open(order[at], true); return; }
  if (event.key === "Escape") hover(null);
  if (to === undefined) return;
  event.preventDefault();
  const p = order[Math.max(0, Math.min(order.length - 1, to))], point = points[p];
  hover(p);
  $("walk").textContent = `${point.method}, accuracy ${percent(accuracyOf(point))}, ${costText(scene.x[p])}${scene.front.has(p) ? ", on the front" : ""}`;
}

function open(p, focus = false) {
  state.selected = p;
  mark();
  chart.plot.redraw(false, false);
  showCard(p);
  history.replaceState(null, "", `#point=${points[p].point_id}`);
  if (focus || matchMedia("(max-width: 900px)").matches) $("card").scrollIntoView({ block: "start" });
  if (focus) $("card-heading").focus();
  showTable();
}

function closeCard() {
  state.selected = null;
  $("card").hidden = true;
  history.replaceState(null, "", "#");
  mark();
  chart.plot.redraw(false, false);
  showTable();
}

function showTable() {
  const axis = axisOf(), test = points.some((point) => point.test_accuracy != null);
  const rows = (state.rows === "front" ? scene.onFront.filter(scene.isVisible) : scene.visible).sort((a, b) => scene.x[a] - scene.x[b]);
  const head = ["Point", [data.split], ["95 %"], ...(test ? [["Test"]] : []), ["MACs"], ["of dense"],
    ...(axis.key === "macs" ? [] : [[axis.short]]), "Verdict", "Groups", "Penalty", "Backbone"];
  head[2] = [percent(data.level, 0)];
  $("head").replaceChildren(...head.map((name) => make("th", { scope: "col", class: Array.isArray(name) ? "number" : null }, [name].flat())));
  $("body").replaceChildren(...rows.slice(0, state.limit).map((p) => row(points[p], axis, test)));
  $("caption").textContent = state.rows === "front"
    ? `The ${rows.length} points of the front (${axis.label}), chosen on validation, cheapest first.`
    : `${Math.min(rows.length, state.limit)} of ${rows.length} points, cheapest first; those of the front are filled.`;
  $("more").hidden = rows.length <= state.limit;
}

function row(point, axis, test) {
  const number = (text) => make("td", { class: "number" }, text);
  const mark = make("span", { html: markSvg(inked(data.looks[point.method]), scene.front.has(point.index)) });
  const button = make("button", { type: "button", class: "link", on: { click: () => open(point.index, true) } },
    point.method, make("span", { class: "hidden-visually" }, ` ${point.point_id}, open card`));
  return make("tr", { class: point.index === state.selected ? "chosen" : null },
    make("td", {}, mark, button), number(percent(point.accuracy)), number(intervalText(point.low, point.high).trim()),
    test ? number(percent(point.test_accuracy)) : null, number(macsText(point.macs)), number(percent(point.macs_fraction, 1)),
    axis.key === "macs" ? null : number(point.latency_ms[axis.key] == null ? "" : msText(point.latency_ms[axis.key])),
    make("td", {}, point.verdict ?? ""), make("td", {}, String(point.groups)), make("td", {}, point.penalty == null ? "none" : String(Number(point.penalty.toPrecision(3)))),
    make("td", {}, point.backbone));
}

const inked = (look) => ({ ...look, colour: look.colour === "ink" ? "var(--ink)" : look.colour });

function fillControls() {
  document.title = data.title;
  $("title").textContent = data.title;
  $("subtitle").textContent = data.subtitle;
  $("footer").textContent = data.footer;
  $("status").textContent = data.live ? `Live: ${points.length} points, ${data.generated}` : "";
  const options = (select, all) => { const kept = select.value; select.replaceChildren(...all.map(([value, text]) => make("option", { value }, text))); if (all.some(([value]) => value === kept)) select.value = kept; };
  options($("axis"), data.axes.map((axis) => [axis.key, axis.label]));
  $("axis").value = axisOf().key;
  const tested = points.filter((point) => point.test_accuracy != null).length;
  options($("split"), [["validation", data.split], ...(tested ? [["test", `test, as chosen (${tested} points)`]] : [])]);
  $("split").value = state.split;
  checkboxes("methods", data.methods, state.off, (name) => make("span", { html: markSvg(inked(data.looks[name])) }));
  checkboxes("backbones", data.backbones, state.offBackbones, () => null);
  $("backbones").hidden = data.backbones.length < 2;
  const form = $("constraints").elements, any = ["", "any"];
  options(form.device, [["", "MACs count"], ...data.timed.map(([device, batch]) => [`${device} ${batch}`, `${device}, batch ${batch}`])]);
  options(form.method, [any, ...data.methods.map((name) => [name, name])]);
  options(form.backbone, [any, ...data.backbones.map((name) => [name, name])]);
  for (const name of ["device", "max_p50_ms", "max_p95_ms"]) form[name].parentElement.hidden = !data.timed.length;
  form.max_class_loss.parentElement.hidden = points.every((point) => point.class_loss == null);
}

function checkboxes(id, names, off, icon) {
  const box = $(id);
  box.replaceChildren(box.querySelector("legend"), ...names.map((name) => make("label", {},
    make("input", { type: "checkbox", value: name, checked: !off.has(name), on: { change: (event) => {
      if (event.target.checked) off.delete(name); else off.add(name);
      refresh();
    } } }), icon(name), `${name} (${points.filter((point) => (id === "methods" ? point.method : point.backbone) === name).length})`)));
}

/** The form's constraints; a field that is no number is marked and left out. */
function readConstraints() {
  const form = $("constraints").elements, asked = {};
  const scales = { min_accuracy: "e-2", max_macs_fraction: "e-2", max_class_loss: "e-2", max_p50_ms: "", max_p95_ms: "" };
  for (const [name, scale] of Object.entries(scales)) {
    const text = form[name].value.trim().replace(",", "."), value = Number(text + scale);
    const bad = text !== "" && !(/^\d*\.?\d+$|^\d+\.$/.test(text) && Number.isFinite(value) && (value > 0 || name === "min_accuracy" || name === "max_class_loss") && (value <= 1 || !["min_accuracy", "max_class_loss"].includes(name)));
    form[name].setAttribute("aria-invalid", String(bad));
    if (text !== "" && !bad) asked[name] = value;
  }
  const [device, batch] = form.device.value.split(" ");
  if (device) Object.assign(asked, { device, batch: Number(batch) });
  else if ((asked.max_p50_ms || asked.max_p95_ms) && data.timed.length === 1) Object.assign(asked, { device: data.timed[0][0], batch: data.timed[0][1] });
  else if (asked.max_p50_ms || asked.max_p95_ms) { asked.unnamed = true; }
  for (const name of ["method", "backbone", "prefer"]) if (form[name].value) asked[name] = form[name].value;
  return asked;
}

function showChoice() {
  const asked = readConstraints(), host = $("choice");
  state.asked = asked;
  state.best = null;
  if (!Object.keys(asked).length) host.replaceChildren(make("p", { class: "faint" }, "Ask for something: the best point that keeps to it is shown here, and why others do not."));
  else if (asked.unnamed) host.replaceChildren(make("p", {}, "Milliseconds are of a device: choose one."));
  else {
    const choice = choose(points, asked);
    state.best = choice.best?.index ?? null;
    host.replaceChildren(...answer(choice, asked));
  }
  mark();
  chart.plot?.redraw(false, false);
}

function answer(choice, asked) {
  const judged = ({ candidate, failures }) => make("li", {}, pointButton(candidate), ` ${lineOf(candidate, asked)}: `,
    failures.map(reason).join("; ") || "feasible, ranks behind");
  const parts = [];
  if (choice.best) {
    const command = `runtime-pruning export ${choice.best.point_id} --out ${choice.best.point_id}`;
    parts.push(make("div", { class: "answer", "data-point": choice.best.point_id }, make("strong", {}, preference(asked) === "accuracy" ? "Most accurate" : "Cheapest"),
      ` of ${choice.feasible} feasible: `, pointButton(choice.best), make("br"), lineOf(choice.best, asked)),
    make("p", {}, "Ship it: ", make("code", {}, command), " ", make("button", { type: "button", on: { click: (event) => copy(command, event.target) } }, "Copy")));
  } else {
    const near = choice.nearest;
    parts.push(make("div", { class: "answer none" }, make("strong", {}, "No point is feasible."), near ? " The nearest miss: " : " None was measured as asked for.",
      near ? make("ul", {}, judged(near)) : null));
  }
  if (choice.runnersUp.length) parts.push(make("h3", {}, "Runners-up"), make("ul", {}, choice.runnersUp.map(judged)));
  return parts;
}

const pointButton = (candidate) => make("button", { type: "button", class: "link", on: { click: () => open(candidate.index, true) } }, `${candidate.method} ${candidate.point_id.slice(0, 6)}`);

function lineOf(candidate, asked) {
  const times = ["p50", "p95"].map((quantile) => [quantile, candidate.latency_ms[`${asked.device}.${asked.batch ?? 1}.${quantile}`]]);
  return `${percent(candidate.accuracy)} at ${percent(candidate.macs_fraction, 1)} of dense MACs${times.filter(([, ms]) => ms != null).map(([quantile, ms]) => `, ${quantile} ${msText(ms)}`).join("")}`;
}

async function copy(text, button) {
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Select it by hand"; }
}

/** Dark or light: as the reader's system has it, until they say otherwise. */
function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Use the ${dark ? "light" : "dark"} theme`);
  if (scene) { const ranges = chart.ranges; chart.build(); chart.show(ranges); }
}

/** Take in data: the first time, or newer of the same sweep while it runs. */
function take(raw) {
  if (data && data.version === raw.version && data.live === raw.live) return;
  const chosen = state.selected == null ? null : points[state.selected].point_id;
  data = raw;
  points = unpack(raw);
  state.hovered = null;
  if (!data.axes.some((axis) => axis.key === state.axis)) state.axis = "macs";
  fillControls();
  draw();
  const selected = points.find((point) => point.point_id === (chosen ?? location.hash.replace("#point=", "")));
  if (selected) { state.selected = selected.index; mark(); showCard(selected.index); showTable(); }
  showChoice();
}

function listen() {
  $("axis").addEventListener("change", (event) => { state.axis = event.target.value; state.hovered = null; draw(); });
  $("split").addEventListener("change", (event) => { state.split = event.target.value; state.hovered = null; draw(); });
  $("bars").addEventListener("change", (event) => { state.bars = event.target.checked; refresh(); });
  $("rows").addEventListener("change", (event) => { state.rows = event.target.value; state.limit = 100; showTable(); });
  $("more").addEventListener("click", () => { state.limit += 100; showTable(); });
  $("zoom-in").addEventListener("click", () => { chart.zoom(0.6); showWords(); });
  $("zoom-out").addEventListener("click", () => { chart.zoom(1 / 0.6); showWords(); });
  $("zoom-front").addEventListener("click", () => { chart.show(scene.frontRanges); showWords(); });
  $("zoom-all").addEventListener("click", () => { chart.show(scene.all); showWords(); });
  $("chart").addEventListener("keydown", walk);
  $("chart").addEventListener("mouseleave", () => hover(null));
  $("constraints").addEventListener("input", showChoice);
  $("constraints").addEventListener("submit", (event) => event.preventDefault());
  $("constraints").addEventListener("reset", () => setTimeout(showChoice));
  const system = matchMedia("(prefers-color-scheme: dark)");
  $("theme").addEventListener("click", () => setTheme(!document.documentElement.classList.contains("dark")));
  system.addEventListener("change", () => setTheme(system.matches));
  setTheme(system.matches);
}

/** While a sweep runs, newer data lies beside the page; a script may be read from a file, too. */
function follow() {
  if (!data.live) return;
  const script = make("script", { src: `${data.beside}?${Date.now()}`, on: {
    load: () => { script.remove(); setTimeout(follow, 1000 * data.every_s); },
    error: () => { script.remove(); $("status").textContent = "Nobody updates this page any more."; },
  } });
  document.body.append(script);
}

window.takeFrontier = take;
