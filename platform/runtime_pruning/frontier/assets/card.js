// The card of one point: what it is, what speaks for it, where it spends.
"use strict";

function showCard(p) {
  const point = points[p], card = data.cards[point.point_id] ?? {};
  const parts = [
    make("h2", { id: "card-heading", tabindex: "-1" }, `${point.method}, ${percent(point.accuracy)} at ${percent(point.macs_fraction, 1)}`),
    make("button", { type: "button", on: { click: closeCard } }, "Close"), " ",
    runLink(point),
    figures(point),
    ...gains(card.gains), ...members(card.config), ...timings(card.timings),
    ...costs(card.costs), ...sites(card.sites), ...classes(card), ...images(card),
    make("h3", {}, "Ship it"), make("code", {}, `runtime-pruning export ${point.point_id} --out ${point.point_id}`),
    ...configuration(card.config),
  ];
  $("card").replaceChildren(...parts);
  $("card").hidden = false;
  if (card.costs) drawCosts(card.costs);
}

/** The server that shows this page, or the one that the sweep was written to. */
function serverOf() {
  if (location.protocol === "blob:") return new URL(location.pathname).origin;
  return /^https?:$/.test(location.protocol) ? location.origin : data.server;
}

function runLink(point) {
  if (!point.run) return null;
  const server = serverOf(), address = `${server}${point.run}`;
  const hint = server === data.server && data.server_hint ? ` (${data.server_hint})` : "";
  // MLflow shows the page in a frame that may not open others: there the address is to be copied.
  const framed = window.top !== window ? make("code", { style: "display:block" }, address) : null;
  return make("span", {}, make("a", { href: address, target: "_blank", rel: "noopener" }, "its MLflow run"), hint, framed);
}

function list(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", {}, known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function figures(point) {
  const tested = point.test_accuracy == null ? null : `${percent(point.test_accuracy)}${intervalText(point.test_low, point.test_high)}`;
  return list([
    ["Point", point.point_id], ["Backbone", point.backbone], ["Sweep", data.sweeps[point.sweep]],
    [data.split, `${percent(point.accuracy)}${intervalText(point.low, point.high)}`], ["test", tested],
    ["MACs per image", `${macsText(point.macs)}, ${percent(point.macs_fraction, 1)} of dense`],
    ["p50, p90, p99", [point.p50, point.p90, point.p99].map(macsText).join(", ")],
    ["worst class", point.class_loss == null ? null : `${signed(-point.class_loss)} points against dense`],
    ["On the front", `in ${percent(point.probability, 0)} of redraws`],
    ["Groups, penalty", `${point.groups}, ${point.penalty ?? "none"}`], ["Seed", String(point.seed)],
    ["Effort", `${point.epochs} epochs, ${point.env_steps} decisions, ${Math.round(point.train_seconds)} s`],
    ["Code", point.code_version],
  ]);
}

const CONTROLS = { fixed: "best fixed widths", shuffled: "its plans, shuffled", random: "random plans", threshold: "threshold cascade" };

function gains(found) {
  if (!found) return [];
  const rows = Object.entries(found.controls).map(([name, gain]) => make("tr", {}, make("th", { scope: "row" }, CONTROLS[name] ?? name),
    make("td", { class: "number" }, signed(gain.value)), make("td", { class: "number" }, `[${signed(gain.low)}, ${signed(gain.high)}]`),
    make("td", { class: "number" }, percent(gain.accuracy)), make("td", { class: "number" }, macsText(gain.macs_per_image))));
  return [make("h3", {}, `Against each control: ${found.verdict}`),
    scrolled(`Points of accuracy gained, ${percent(found.level, 0)} interval`, ["Control", "gain", "interval", "its accuracy", "its MACs"], rows)];
}

function scrolled(caption, head, rows, kind = null) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, make("table", { class: kind },
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head.map((name, i) => make("th", { scope: "col", class: i ? "number" : null }, name)))), make("tbody", {}, rows)));
}

function members(config) {
  const found = config?.members;
  if (!Array.isArray(found) || !found.length) return [];
  return [make("h3", {}, "Members of the cascade"), make("ol", {}, found.map((member) => make("li", {},
    typeof member === "object" ? Object.entries(member).map(([k, v]) => `${k} ${plain(v)}`).join(", ") : memberLink(String(member)))))];
}

/** A member that is a point of this page is a link to its card. */
function memberLink(id) {
  const point = points.find((each) => each.point_id === id);
  return point ? pointButton(point) : id;
}

const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function timings(found) {
  if (!found?.length) return [];
  const devices = [...new Set(found.map((timing) => timing.device))];
  return [make("h3", {}, "Speed"), ...devices.map((device) => deviceTable(device, found.filter((timing) => timing.device === device)))];
}

function deviceTable(device, found) {
  const rows = found.map((timing) => make("tr", {}, make("th", { scope: "row" }, String(timing.batch)),
    make("td", { class: "number" }, timing.latency_ms ? msText(timing.latency_ms.p50) : ""), make("td", { class: "number" }, timing.latency_ms ? msText(timing.latency_ms.p95) : ""),
    make("td", { class: "number" }, timing.speedup ? `${timing.speedup[1].toFixed(2)} [${timing.speedup[0].toFixed(2)}, ${timing.speedup[2].toFixed(2)}]` : ""), make("td", {}, timing.verdict)));
  return scrolled(`${device}, against its fastest dense execution`, ["Batch", "p50", "p95", "speed-up", "verdict"], rows);
}

function costs(found) {
  if (!found) return [];
  const total = found.images.reduce((a, b) => a + b, 0);
  if (found.low === found.high) return [make("p", {}, `Every image costs ${macsText(found.low)} MACs.`)];
  return [make("h3", {}, "Cost of the images"), make("figure", { style: "margin:0" },
    make("div", { id: "costs", role: "img", "aria-label": `Histogram of ${total} images from ${macsText(found.low)} to ${macsText(found.high)} MACs: ${found.images.join(", ")}` }),
    make("figcaption", {}, `${total} images, ${macsText(found.low)} to ${macsText(found.high)} MACs`))];
}

function drawCosts(found) {
  const host = $("costs");
  if (!host) return;
  const width = (found.high - found.low) / found.images.length;
  const centres = found.images.map((_, i) => found.low + (i + 0.5) * width);
  const axis = { stroke: chart.colour("faint"), grid: { stroke: chart.colour("grid") }, ticks: { show: false }, font: "12px system-ui" };
  new uPlot({ width: Math.max(240, host.clientWidth), height: 120, legend: { show: false }, cursor: { show: false }, padding: [6, 12, 0, 0],
    scales: { x: { time: false, range: [found.low, found.high] }, y: { range: [0, 1.05 * Math.max(...found.images)] } },
    axes: [{ ...axis, size: 24, space: 70, values: (u, all) => all.map(macsText) }, { ...axis, size: 44 }],
    series: [{}, { paths: uPlot.paths.bars({ size: [0.9, 100] }), points: { show: false }, fill: chart.colour("accent"), width: 0 }],
  }, [centres, found.images], host);
}

/** Per site, the share of the images that run so many channels: shaded, and written. */
function sites(found) {
  if (!found) return [];
  const total = Object.values(found[0]).reduce((a, b) => a + b, 0);
  const most = Math.max(...found.map((site) => Object.keys(site).length));
  if (most > 12) return [];
  const rows = found.map((site, i) => make("tr", {}, make("th", { scope: "row" }, `${i + 1}`),
    Object.entries(site).sort((a, b) => a[0] - b[0]).map(([channels, count]) => {
      const share = count / total;
      return make("td", { style: `background:color-mix(in srgb, var(--accent) ${Math.round(60 * share)}%, transparent)` },
        make("span", {}, `${channels}`), make("br"), `${(100 * share).toFixed(0)} %`);
    })));
  return [make("h3", {}, "Channels that run, per site"), scrolled("Channels, and the share of the images that run them", ["Site"], rows, "heat")];
}

function classes(card) {
  if (!card.class_accuracy) return [];
  const dense = data.dense_class_accuracy, name = (i) => data.classes[i] ?? `class ${i}`;
  const order = card.class_accuracy.map((value, i) => [i, value]).filter(([, value]) => value !== null);
  if (dense) order.sort((a, b) => (a[1] - dense[a[0]]) - (b[1] - dense[b[0]]));
  else order.sort((a, b) => a[1] - b[1]);
  const shown = order.slice(0, 20);
  const rows = shown.map(([i, value]) => make("tr", {}, make("th", { scope: "row" }, name(i)),
    make("td", {}, make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * value}%` }))),
    make("td", { class: "number" }, percent(value, 1)), dense ? make("td", { class: "number" }, signed(value - dense[i])) : null));
  const rest = order.length > shown.length ? `, the ${shown.length} worst of ${order.length}` : "";
  return [make("h3", {}, "Accuracy per class"), scrolled(`${dense ? "Against dense, worst first" : "Worst first"}${rest}`, ["Class", "", "accuracy", ...(dense ? ["points"] : [])], rows)];
}

function images(card) {
  const strip = (title, found) => (found?.length ? [make("h3", {}, title), make("ul", { class: "strip" }, found.map(([id, macs, label, prediction]) => {
    const name = data.classes[label] ?? `class ${label}`, wrong = label !== prediction;
    const said = data.classes[prediction] ?? `class ${prediction}`;
    const picture = data.images[id];
    return make("li", {}, picture ? make("img", { src: picture, alt: `image ${id}: ${name}`, width: "64", height: "64" }) : null,
      make("span", {}, `${picture ? "" : `image ${id}, `}${macsText(macs)}`), make("span", { class: wrong ? "wrong" : null }, wrong ? `${name}, said ${said}` : name));
  }))] : []);
  return [...strip("Images that it spends least on", card.least), ...strip("Images that it spends most on", card.most)];
}

function configuration(config) {
  const entries = Object.entries({ ...data.common, ...(config ?? {}) }).filter(([name]) => name !== "members").sort(([a], [b]) => a.localeCompare(b));
  if (!entries.length) return [];
  return [make("details", {}, make("summary", {}, "Configuration"), list(entries.map(([name, value]) => [name, plain(value)])))];
}
