// Charts: curves of the selected runs by epoch, and the distributions of W/τ. uPlot draws them.

const WINDOW = 64;            // epochs of the moving average
const COLOURS = 8;
const DASHES = [["solid", []], ["dashed", [7, 3]], ["dotted", [2, 3]]];  // as a border, on the canvas
const LOG_TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const PERCENT = new Set(["test_accuracy", "validation_accuracy", "train_accuracy"]);
const TITLES = {
  test_accuracy: "test accuracy (%)", validation_accuracy: "validation accuracy (%)",
  train_accuracy: "training accuracy (%)", loss: "loss", lr: "learning rate", seconds: "seconds per epoch",
  tau: "τ of each layer (time steps)",
};

let plot = null;              // chart of curves; null: nothing to draw
let bandPlots = [];

const short = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4))));
const format = (value, metric) => (PERCENT.has(metric) ? value.toFixed(2) : short(value));
const titleOf = (metric) => TITLES[metric] ?? metric;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isNumber = (value) => value !== null && value !== undefined;

function metrics() {
  const known = new Set(data.runs.flatMap((run) => Object.keys(run.series)));
  const order = Object.keys(TITLES).filter((name) => known.has(name));
  const others = [...known].filter((name) => !(name in TITLES)).sort();
  return [...order, ...(data.runs.some((run) => run.tau.length) ? ["tau"] : []), ...others];
}

/** Selects a run and gives it the first style that no other selected run has. */
function select(name) {
  const taken = new Set(state.selected.values());
  let slot = 0;
  while (taken.has(slot)) slot += 1;
  state.selected.set(name, slot);
}

/** Colour and dashes of a selected run. */
function styleOf(run) {
  const slot = state.selected.get(run.name);
  return { colour: slot % COLOURS, dash: DASHES[Math.floor(slot / COLOURS) % DASHES.length] };
}

/** Epochs and values of a series without its gaps; accuracies in percent. */
function points(run, values, metric) {
  const factor = PERCENT.has(metric) ? 100 : 1;
  const kept = [...values.keys()].filter((i) => isNumber(values[i]));
  return { epochs: kept.map((i) => run.epochs[i]), values: kept.map((i) => factor * values[i]) };
}

/** One line for each selected run; of τ, one for each layer. */
function lines() {
  const selected = data.runs.filter((run) => state.selected.has(run.name));
  return selected.flatMap((run, order) => {
    if (state.metric === "tau") {
      return run.tau.map((values, layer) => ({
        run, name: `${labelOf(run)}, ${run.layers[layer]}`, ...points(run, values, "tau"),
        colour: layer % COLOURS, dash: DASHES[order % DASHES.length],
      }));
    }
    const values = run.series[state.metric];
    return values ? [{ run, name: labelOf(run), ...points(run, values, state.metric), ...styleOf(run) }] : [];
  }).filter((line) => line.epochs.length);
}

/** At each epoch, the mean of the logged epochs of the window that ends there. */
function movingAverage({ epochs, values }) {
  let sum = 0, first = 0;
  return values.map((value, i) => {
    sum += value;
    while (epochs[first] <= epochs[i] - WINDOW) sum -= values[first++];
    return sum / (i - first + 1);
  });
}

function axes(logarithmic) {
  const common = { stroke: css("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
  const lineStyle = { stroke: css("--line"), width: 1 };
  const logTicks = { splits: (_, axis, low, high) => LOG_TICKS.filter((v) => v >= low && v <= high), filter: (_, ticks) => ticks };
  return [
    { ...common, label: "epoch", labelSize: 18, size: 34, grid: { show: false }, ticks: lineStyle, space: 70,
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
    { ...common, size: 58, space: 40, grid: lineStyle, ticks: { show: false }, values: (_, ticks) => ticks.map((v) => (isNumber(v) ? short(v) : "")), ...(logarithmic ? logTicks : {}) },
  ];
}

const padded = (first, last) => (first === last ? [first - 1, last + 1] : [first, last]);

function drawChart() {
  const all = lines(), box = byId("chart"), { cursor } = state;
  plot?.destroy();
  plot = null;
  byId("readout").replaceChildren();
  byId("no-curves").hidden = all.length > 0;
  box.setAttribute("aria-label", `${titleOf(state.metric)} by epoch, ${all.length} lines`);
  if (!all.length) return;
  const tables = [], series = [{}];
  for (const line of all) {
    const smooth = state.smooth && state.metric !== "tau" && line.epochs.length > WINDOW;
    const raw = series.length, colour = css(`--s${line.colour}`);
    const style = { run: line.run.name, raw, pxAlign: 0, stroke: colour, dash: line.dash[1], width: line.run.origin === "trained" ? 2.4 : 1.6,
      points: { size: 6, fill: colour }, values: legendValues, label: line.name, border: line.dash[0] };
    if (smooth) series.push({ ...style, class: "faint", stroke: `${colour}59`, width: 1, dash: [], points: { show: false } });
    series.push(style);
    tables.push(smooth ? [line.epochs, line.values, movingAverage(line)] : [line.epochs, line.values]);
  }
  const least = Math.min(...all.map((line) => Math.min(...line.values))), most = Math.max(...all.map((line) => Math.max(...line.values)));
  const logarithmic = state.metric === "tau" && least > 0 && most > 6 * least;
  plot = new uPlot({
    ...chartSize(), series, axes: axes(logarithmic),
    scales: {
      x: { time: false, range: (_, low, high) => padded(low, high) },
      y: logarithmic ? { distr: 3, range: (_, low, high) => [low / 1.1, high * 1.1] }
        : { range: (_, low, high) => (low === null ? [0, 1] : uPlot.rangeNum(low, high, 0.05, false)) },
    },
    cursor: { y: false, drag: { x: true, y: false, dist: 8, setScale: false }, focus: { prox: 16 },
      bind: { dblclick: () => () => zoom(null) } },
    focus: { alpha: 0.4 },
    legend: { mount: (_, table) => byId("readout").append(table), markers: { dash: (u, i) => u.series[i].border } },
    hooks: {
      setSelect: [(u) => u.select.width && zoom([u.select.left, u.select.left + u.select.width].map((px) => u.posToVal(px, "x")))],
      setCursor: [(u) => { state.cursor = isNumber(u.cursor.idx) ? u.data[0][u.cursor.idx] : null; }],
      setSeries: [(u, index, { show }) => { // the faint raw values are shown and hidden with their average
        const raw = u.series[index]?.raw;
        if (show !== undefined && raw !== index) u.setSeries(raw, { show }, false);
      }],
    },
  }, uPlot.join(tables), box);
  zoom(state.view);
  if (cursor !== null) setTimeout(moveCursor, 0, cursor);  // the scales are set by then
}

function chartSize() {
  const width = Math.max(byId("chart").clientWidth, 280);
  return { width, height: Math.round(Math.min(430, Math.max(260, width * 0.55))) };
}

/** Cells of a line in the legend: the epoch nearest to the cursor, its value, and the average if there is one. */
function legendValues(u, index, at) {
  const cell = (column) => u.data?.[column]?.[at];  // undefined before there are data: then the keys are wanted
  const value = (column) => (isNumber(cell(column)) ? format(cell(column), state.metric) : "");
  const { raw } = u.series[index], cells = { epoch: cell(0), [titleOf(state.metric)]: value(raw) };
  return state.smooth && state.metric !== "tau" ? { ...cells, [`mean of ${WINDOW}`]: raw === index ? "" : value(index) } : cells;
}

/** The mark of a run in the list: its line, or nothing while it is not selected. */
function swatchOf(run) {
  const mark = el("span", { class: "u-marker" });
  if (state.selected.has(run.name)) {
    const { colour, dash } = styleOf(run);
    mark.style.border = `${dash[0]} var(--s${colour})`;
  }
  return mark;
}

/** Shows some epochs: a range, ``"ours"`` (those of our runs; imported curves may be much longer), or null for all. */
function zoom(view) {
  if (plot === null) return;
  const first = plot.data[0][0], last = plot.data[0].at(-1);
  const ours = lines().filter((line) => line.run.origin === "trained").flatMap((line) => [line.epochs[0], line.epochs.at(-1)]);
  const range = view === "ours" && ours.length ? [Math.min(...ours), Math.max(...ours)] : view;
  const [low, high] = Array.isArray(range) ? [Math.max(first, range[0]), Math.min(last, range[1])] : [first, last];
  state.view = high - low < 1 && view !== "ours" ? null : view;
  const [min, max] = high - low < 1 ? padded(first, last) : [low, high];
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
  const target = { ArrowLeft: at - step, ArrowRight: at + step, Home: min, End: max }[event.key];
  if (target !== undefined) {
    moveCursor(Math.min(max, Math.max(min, target)));
  } else if (event.key === "+" || event.key === "=") zoom([at - span / 4, at + span / 4]);
  else if (event.key === "-") zoom([at - span, at + span]);
  else if (event.key === "0") zoom(null);
  else return;
  event.preventDefault();
}

/** Quantiles of W/τ by epoch, of each selected run that recorded them (Figure S1). */
function drawDistributions() {
  const parts = data.runs.filter((run) => state.selected.has(run.name)).flatMap((run) =>
    Object.entries(run.distribution).map(([layer, rows]) => ({ run, layer, rows: rows.map((row, i) => [run.epochs[i], row]).filter(([, row]) => row) })))
    .filter((part) => part.rows.length > 1).slice(0, 8);
  for (const old of bandPlots) old.destroy();
  byId("distributions").replaceChildren(...parts.map(({ run, layer }) => el("figure", { role: "img", "aria-label": `Quantiles of W/τ of ${layer} by epoch` },
    el("h3", {}, `W/τ of ${layer}`), el("div", {}),
    el("figcaption", {}, `${labelOf(run)}: median, and the middle 50, 90 and 98 % of the weights, by epoch.`))));
  bandPlots = parts.map(({ rows }, i) => drawBands(rows, byId("distributions").children[i].querySelector("div")));
}

function drawBands(rows, box) {
  const quantiles = [1, 2, 3, 4, 5, 6, 7];  // of nine: minimum and maximum would hide the rest
  const fill = (alpha) => `${css("--s0")}${alpha}`;
  return new uPlot({
    width: Math.max(box.clientWidth, 280), height: 200, axes: axes(false), legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false } },
    series: [{}, ...quantiles.map((q) => ({ stroke: css("--ink"), width: q === 4 ? 1.6 : 0, points: { show: false } }))],
    bands: [{ series: [7, 1], fill: fill("33") }, { series: [6, 2], fill: fill("4d") }, { series: [5, 3], fill: fill("73") }],
  }, [rows.map(([epoch]) => epoch), ...quantiles.map((q) => rows.map(([, row]) => row[q]))], box);
}
