// Charts of the chosen runs: curves by epoch, τ of each layer, distributions of W/τ. uPlot draws them.

const WINDOW = 64;            // epochs of the moving average
const MAX_DETAILED = 8;       // wide lines with bands of ± std and the values that were averaged; more are thin lines, fast to draw
const LEAST_SPAN = 0.99;      // epochs; an epoch, but for rounding
const LOG_TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const PERCENT = new Set(["test_accuracy", "validation_accuracy", "train_accuracy"]);
const TITLES = {
  test_accuracy: "test accuracy (%)", validation_accuracy: "validation accuracy (%)",
  train_accuracy: "training accuracy (%)", loss: "loss", lr: "learning rate", seconds: "seconds per epoch",
  cpu_seconds: "CPU seconds per epoch",
};

let plot = null;              // chart of curves; null: nothing to draw
let layerPlots = [];
let bandPlots = [];
let belowIsSeen = false;      // out of sight, τ and settings are drawn after a while
let drawBelow = null;         // what is left to draw
const AFTER_PICTURE = 30, WHEN_IDLE = 300;  // ms: the curves are shown before that
let timer = 0;
let drawing = 0;              // number of the latest call of drawCharts

const short = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4))));
const format = (value, metric) => (PERCENT.has(metric) ? value.toFixed(2) : short(value));
const titleOf = (metric) => TITLES[metric] ?? metric;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hideKey = ({ thin, runs: [run] }) => (thin ? `beside ${run.setting}` : run.setting);
const partOf = ({ runs: [run] }) => parts.get(run.curve) ?? {};

/** Draws all charts of the chosen runs; what is out of sight, a little later. */
function drawCharts() {
  const settings = chosenSettings(), number = ++drawing;
  withParts(chosenCurves(), () => {
    if (number !== drawing) return;  // curves of an earlier choice, which arrived later
    drawMetrics(settings);
    drawChart(settings);
    drawBelow = () => {
      drawBelow = null;
      drawLayers(settings);
      drawDistributions(settings);
      drawDifferences(settings);
    };
    clearTimeout(timer);
    if (state.printing) drawBelow();
    else timer = setTimeout(() => drawBelow?.(), belowIsSeen ? AFTER_PICTURE : WHEN_IDLE);  // unless another choice comes first
  });
  const notes = [
    state.slots.size > MAX_SETTINGS && `The charts show ${MAX_SETTINGS} of the ${count(state.slots.size)} settings chosen.`,
    state.repeated > 0 && `Of runs with the same settings and seed one is drawn: ${count(state.repeated)} more ${state.repeated > 1 ? "are" : "is"} chosen.`,
  ].filter(Boolean);
  byId("too-many").hidden = !notes.length;
  byId("too-many").textContent = notes.join(" ");
}

const seen = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target);
  belowIsSeen = seen.size > 0;
  if (belowIsSeen) drawBelow?.();
}, { rootMargin: "100px" });

/** Digests of the curves that the charts need. */
function chosenCurves() {
  return chosenSettings().flatMap((setting) => [...setting.runs, authorsOf(setting)]).filter(Boolean).map((run) => run.curve);
}

function drawMetrics(settings) {
  const known = new Set(settings.flatMap((setting) => Object.keys(partOf(setting).series ?? {})));
  const names = [...Object.keys(TITLES).filter((name) => known.has(name)), ...[...known].filter((name) => !(name in TITLES)).sort()];
  if (names.length && !names.includes(state.metric)) [state.metric] = names;
  byId("metric").replaceChildren(...names.map((name) => el("option", { value: name, selected: name === state.metric }, titleOf(name))));
}

/** The authors' run of the experiment and protocol of a setting, if it is another one. */
function authorsOf({ runs: [run] }) {
  return !state.authors || run.whose === "authors" || !run.experiment ? null
    : data.runs.find((one) => one.whose === "authors" && one.experiment === run.experiment && one.protocol === run.protocol);
}

/** The authors' runs that settings are compared with: each once, up to the last epoch of those. */
function comparedRuns(settings, own) {
  const found = new Map();
  settings.forEach((setting, i) => {
    const run = authorsOf(setting), last = own[i].epochs.at(-1) ?? 0;
    if (run) found.set(run, { setting, last: Math.max(last, found.get(run)?.last ?? 0) });
  });
  return [...found].map(([run, { setting, last }]) => ({ runs: [run], last, thin: true, label: `${run.title}, authors' run ${run.protocol}`, style: { ...setting.style, dash: DASHES[2] } }));
}

/** One line for each setting, and one for each authors' run at the same epochs; `read` takes a series from a run's part. */
function linesOf(settings, read, { factor = 1, window = 1, least = -Infinity } = {}) {
  const smooth = (curve) => (window > 1 ? movingAverage(curve, window) : curve);
  const lineOf = (setting) => {
    const raw = setting.runs.map((run) => curveOf(run, read)).filter(Boolean), found = summarize(raw.map(smooth), setting.last);
    const scaled = (values) => values.map((value) => (value === null ? null : factor * value));
    const faint = window > 1 && settings.length <= MAX_DETAILED ? scaled(summarize(raw, setting.last).mean) : null;
    return { ...setting, ...found, mean: scaled(found.mean), std: scaled(found.std), least, faint };
  };
  const own = settings.map(lineOf);
  return [...own, ...comparedRuns(settings, own).map(lineOf)].filter((line) => line.epochs.length);
}

/** uPlot's series and bands of lines, and their values: mean, mean ± std where there are several runs, and faint values. */
function plotParts(lines, legend) {
  const series = [{}], bands = [], tables = [];
  lines.forEach((line, owner) => {
    const colour = css(`--s${line.style.colour}`), common = { owner, points: { show: false }, class: "faint", pxAlign: 0,
      ...(legend && { values: legend, show: !state.hidden.has(hideKey(line)) }) };
    const columns = [line.epochs, line.mean];
    series.push({ ...common, class: null, line, label: line.label, stroke: colour, dash: line.style.dash[1], border: line.style.dash[0],
      width: lines.length > MAX_DETAILED ? 1 : line.thin ? 1.2 : 2.2, points: { show: line.epochs.length < 3, size: 6, fill: colour } });
    if (lines.length <= MAX_DETAILED && line.std.some((std) => std !== null)) {
      for (const sign of [1, -1]) {
        columns.push(line.mean.map((mean, i) => Math.max(line.least, mean + sign * (line.std[i] ?? 0))));
        series.push({ ...common, stroke: colour, width: 0 });
      }
      bands.push({ series: [series.length - 2, series.length - 1], fill: `${colour}2e` });
    }
    if (line.faint) {
      columns.push(line.faint);
      series.push({ ...common, stroke: `${colour}59`, width: 1 });
    }
    tables.push(columns);
  });
  const [epochs] = tables[0], equal = tables.every(([other]) => other.length === epochs.length && other.every((epoch, i) => epoch === epochs[i]));
  return { options: { series, bands }, values: equal ? [epochs, ...tables.flatMap(([, ...columns]) => columns)] : uPlot.join(tables) };
}

function axes(logarithmic, size = 58, label = "epoch") {
  const common = { stroke: css("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
  const lineStyle = { stroke: css("--line"), width: 1 };
  const logTicks = { splits: (_, axis, low, high) => LOG_TICKS.filter((v) => v >= low && v <= high), filter: (_, ticks) => ticks };
  return [
    { ...common, label, labelSize: label ? 18 : 0, size: 34, grid: { show: false }, ticks: lineStyle, space: 70,
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
    { ...common, size, space: 40, grid: lineStyle, ticks: { show: false }, values: (_, ticks) => ticks.map((v) => (isNumber(v) ? short(v) : "")), ...(logarithmic ? logTicks : {}) },
  ];
}

const padded = (first, last) => (first === last ? [first - 1, last + 1] : [first, last]);
const scales = (logarithmic) => ({
  x: { time: false, range: (_, low, high) => padded(low, high) },
  y: logarithmic ? { distr: 3, range: (_, low, high) => [low / 1.1, high * 1.1] }
    : { range: (_, low, high) => (low === null ? [0, 1] : uPlot.rangeNum(low, high, 0.05, false)) },
});

function drawChart(settings) {
  const { metric, cursor } = state, box = byId("chart");
  const lines = linesOf(settings, (part) => part.series[metric], { factor: PERCENT.has(metric) ? 100 : 1, window: state.smooth ? WINDOW : 1 });
  plot?.destroy();
  plot = null;
  byId("readout").replaceChildren();
  byId("no-curves").hidden = lines.length > 0;
  box.setAttribute("aria-label", `${titleOf(metric)} by epoch, ${lines.length} lines`);
  if (!lines.length) return;
  const { options, values } = plotParts(lines, legendValues);
  plot = new uPlot({
    ...chartSize(), ...options, axes: axes(false), scales: scales(false),
    cursor: { y: false, drag: { x: true, y: false, dist: 8, setScale: false }, points: { show: (u, i) => u.series[i].line ? undefined : false },
      bind: { dblclick: () => () => zoom(null) } },
    legend: { mount: (_, legend) => byId("readout").append(legend), markers: { dash: (u, i) => u.series[i].border } },
    hooks: {
      setSelect: [(u) => u.select.width && zoom([u.select.left, u.select.left + u.select.width].map((px) => u.posToVal(px, "x")))],
      setCursor: [(u) => { state.cursor = isNumber(u.cursor.idx) ? u.data[0][u.cursor.idx] : null; }],
      setSeries: [(u, index, { show }) => { // band and faint values are shown and hidden with their line
        if (show === undefined || !u.series[index]?.line) return;
        state.hidden[show ? "delete" : "add"](hideKey(u.series[index].line));
        u.series.forEach((other, i) => other.owner === u.series[index].owner && i !== index && u.setSeries(i, { show }, false));
      }],
    },
  }, values, box);
  zoom(state.view);
  if (cursor !== null) setTimeout(moveCursor, 0, cursor);  // the scales are set by then
}

function chartSize() {
  const width = Math.max(byId("chart").clientWidth, 280);
  return { width, height: Math.round(Math.min(360, Math.max(240, width * 0.4))) };
}

/** Cells of a line in the legend: mean, standard deviation and number of runs at the cursor; without one, at its last epoch. */
function legendValues(u, index, at) {
  const keys = ["epoch", titleOf(state.metric), "± std", "runs"], { line } = u.series[index], epoch = u.data?.[0][at];
  const i = !line ? -1 : isNumber(epoch) ? line.epochs.indexOf(epoch) : line.epochs.length - 1;
  const cells = i < 0 ? ["", "", "", ""]
    : [line.epochs[i], format(line.mean[i], state.metric), line.std[i] === null ? "" : format(line.std[i], state.metric), line.counts[i]];
  return Object.fromEntries(keys.map((key, k) => [key, cells[k]]));
}

/** Shows some epochs, or all: null. */
function zoom(view) {
  if (plot === null) return;
  const first = plot.data[0][0], last = plot.data[0].at(-1);
  const [low, high] = view ? [Math.max(first, view[0]), Math.min(last, view[1])] : [first, last];
  state.view = high - low < LEAST_SPAN ? null : view;
  const [min, max] = high - low < LEAST_SPAN ? padded(first, last) : [low, high];
  plot.setSelect({ left: 0, width: 0 }, false);
  plot.setScale("x", { min, max });
}

function moveCursor(epoch) {
  plot?.setCursor({ left: plot.valToPos(epoch, "x"), top: 0 });
}

function onChartKey(event) {
  if (plot === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const { min, max } = plot.scales.x, span = max - min, at = state.cursor ?? Math.round((min + max) / 2);
  const step = Math.max(1, Math.round(span / 100));
  const epochs = plot.data[0].filter((epoch) => epoch >= min && epoch <= max);
  const target = { ArrowLeft: epochs.findLast((epoch) => epoch <= at - step) ?? epochs[0], Home: epochs[0],
    ArrowRight: epochs.find((epoch) => epoch >= at + step) ?? epochs.at(-1), End: epochs.at(-1) }[event.key];
  if (target !== undefined) moveCursor(target);
  else if (event.key === "+" || event.key === "=") {
    const width = Math.max(1, span / 2), low = Math.min(Math.max(at - width / 2, min), max - width);
    zoom([low, low + width]);
  }
  else if (event.key === "-") zoom([at - span, at + span]);
  else if (event.key === "0") zoom(null);
  else return;
  event.preventDefault();
}

// ------------------------------------------------------------------------------------------------ τ and W/τ

/** A small chart of τ for each layer, and the last τ as a table. */
function drawLayers(settings) {
  const known = [...new Set(settings.flatMap((setting) => Object.keys(partOf(setting).tau ?? {})))].sort(compareTexts);
  const found = known.map((layer) => [layer, linesOf(settings, (part) => part.tau[layer], { least: 1 })]);
  const drawn = found.filter(([, of]) => of.length);  // a diverged training may have no τ that is a number
  const layers = drawn.map(([layer]) => layer), lines = drawn.map(([, of]) => of);
  for (const old of layerPlots) old.destroy();
  byId("no-layers").hidden = layers.length > 0;
  byId("layer-charts").replaceChildren(...layers.map((layer) => el("figure", { role: "img", "aria-label": `τ of ${layer} by epoch` },
    el("h3", {}, layer), el("div", {}))));
  layerPlots = layers.map((_, i) => drawLayer(lines[i], byId("layer-charts").children[i].lastChild));
  const rows = new Map(lines.flat().map((line) => [line.runs[0], line]));
  const cell = (run, i) => {
    const line = lines[i].find(({ runs }) => runs[0] === run), at = line ? line.counts.lastIndexOf(Math.max(...line.counts)) : 0;
    return el("td", { class: "number" }, line ? line.mean[at].toFixed(3) + (line.std[at] === null ? "" : ` ± ${line.std[at].toFixed(3)}`) : "");
  };
  byId("layer-table").replaceChildren(...(layers.length ? [
    el("caption", {}, "τ after the last epoch that all runs of a line have, time steps"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), layers.map((layer) => el("th", { scope: "col", class: "number" }, layer)))),
    el("tbody", {}, [...rows].map(([run, { label, style }]) => el("tr", {}, el("th", { scope: "row" }, swatchOf(style), label), layers.map((_, i) => cell(run, i))))),
  ] : []));
}

function drawLayer(lines, box) {
  const { options, values } = plotParts(lines), extremes = (of) => of(...lines.map(({ mean }) => of(...mean)));
  const logarithmic = extremes(Math.max) > 6 * extremes(Math.min);
  return new uPlot({ width: Math.max(box.clientWidth, 140), height: box.clientWidth < 220 ? 105 : 135, ...options, axes: axes(logarithmic, 36, null), scales: scales(logarithmic),
    legend: { show: false }, cursor: { show: false } }, values, box);
}

/** Quantiles of W/τ by epoch, of the first run of each setting that recorded them (Figure S1); drawn where unfolded. */
function drawDistributions(settings) {
  const shown = settings.flatMap((setting) => Object.entries(partOf(setting).distributions ?? {}).map(([layer, found]) => ({ setting, layer, ...found })))
    .filter(({ epochs, quantiles }) => epochs.length > 1 && quantiles.every(isNumber)).slice(0, 8);
  byId("distributions").hidden = !shown.length;
  for (const old of bandPlots) old.destroy();
  bandPlots = [];
  if (!byId("distributions").open) return;
  byId("bands").replaceChildren(...shown.map(({ setting, layer }) => el("figure", { role: "img", "aria-label": `Quantiles of W/τ of ${layer} by epoch` },
    el("h3", {}, `W/τ of ${layer}`), el("div", {}),
    el("figcaption", {}, `${setting.runs[0].name}: median, and the middle 50, 90 and 98 % of the weights, by epoch.`))));
  bandPlots = shown.map((part, i) => drawBands(part, byId("bands").children[i].querySelector("div")));
}

function drawBands({ epochs, quantiles }, box) {
  const kept = quantiles.slice(1, 8).map((packed) => [...unpack(packed, epochs.length)]);  // minimum and maximum would hide the rest
  const fill = (alpha) => `${css("--s0")}${alpha}`;
  return new uPlot({
    width: Math.max(box.clientWidth, 280), height: 200, axes: axes(false), legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false } },
    series: [{}, ...kept.map((_, q) => ({ stroke: css("--ink"), width: q === 3 ? 1.6 : 0, points: { show: false } }))],
    bands: [{ series: [7, 1], fill: fill("33") }, { series: [6, 2], fill: fill("4d") }, { series: [5, 3], fill: fill("73") }],
  }, [epochs, ...kept], box);
}
