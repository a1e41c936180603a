// Draws the page from the data inside it. Text of runs and registry is only ever set as text, never as markup.

const WINDOW = 64;            // epochs of the moving average
const COLOURS = 8;
const DASHES = ["", "7 3", "2 2", "8 2 2 2"];
const PERCENT = new Set(["test_accuracy", "validation_accuracy", "train_accuracy"]);
const TITLES = {
  test_accuracy: "test accuracy (%)", validation_accuracy: "validation accuracy (%)",
  train_accuracy: "training accuracy (%)", loss: "loss", lr: "learning rate", seconds: "seconds an epoch",
  tau: "τ of each layer (time steps)",
};

const byId = (id) => document.getElementById(id);
let data = JSON.parse(byId("data").textContent);
const state = { metric: "test_accuracy", smooth: true, view: null, cursor: null, chosen: new Set(), search: "" };

// ------------------------------------------------------------------------------------------------ elements

function make(namespace, tag, attributes, children) {
  const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}
const el = (tag, attributes, ...children) => make(null, tag, attributes, children);
const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);

const short = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4))));
const shown = (value, metric) => (PERCENT.has(metric) ? (100 * value).toFixed(2) : short(value));
const labelOf = (run) => (run.title ? `${run.title}${run.origin === "imported" ? ", published" : ""}` : run.name);

// ------------------------------------------------------------------------------------------------ tables

function drawTables() {
  byId("table-list").replaceChildren(...data.tables.map(tableOf));
  if (!data.tables.length) byId("table-list").append(el("p", { class: "empty" }, "No tables."));
}

function tableOf(table) {
  const anchor = (mark) => `note-${table.name}-${mark}`;
  const kind = (index) => (table.numeric[index] ? "number" : null);
  const cell = (parts, index) => el("td", { class: kind(index) }, parts.map(([text, mark]) => el("span", { class: "part" },
    text, mark ? el("sup", {}, el("a", { href: `#${anchor(mark)}`, "aria-label": `note ${mark}` }, mark)) : null)));
  const head = (parts) => el("th", { scope: "row" }, parts.map(([text]) => text).join(", "));
  return el("div", {},
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table ${table.name}` },
      el("table", {},
        el("caption", {}, `Table ${table.name}. ${table.caption}`),
        el("thead", {}, el("tr", {}, table.columns.map((text, i) => el("th", { scope: "col", class: kind(i) }, text)))),
        el("tbody", {}, table.rows.map((row) => el("tr", {}, row.map((parts, i) => (i ? cell(parts, i) : head(parts)))))))),
    el("p", { class: "source" }, table.source),
    el("ul", { class: "notes" }, table.notes.map(([mark, note]) => el("li", { id: anchor(mark) }, `(${mark}) ${note}`))));
}

// ------------------------------------------------------------------------------------------------ lines

function metrics() {
  const known = new Set(data.runs.flatMap((run) => Object.keys(run.series)));
  const order = Object.keys(TITLES).filter((name) => known.has(name));
  const others = [...known].filter((name) => !(name in TITLES)).sort();
  return [...order, ...(data.runs.some((run) => run.tau.length) ? ["tau"] : []), ...others];
}

/** Points of a series, gaps left out; accuracies in percent. */
function points(run, values, metric) {
  const factor = PERCENT.has(metric) ? 100 : 1;
  return run.epochs.map((epoch, i) => [epoch, values[i]]).filter(([, value]) => value !== null && value !== undefined)
    .map(([epoch, value]) => [epoch, factor * value]);
}

/** At each epoch the mean of the logged epochs of the window that ends there. */
function smoothed(line) {
  let sum = 0, first = 0;
  return line.map(([epoch, value], i) => {
    sum += value;
    while (line[first][0] <= epoch - WINDOW) sum -= line[first++][1];
    return [epoch, sum / (i - first + 1)];
  });
}

/** What is drawn: of each chosen run one line, of τ one for each layer. */
function lines() {
  const chosen = data.runs.filter((run) => state.chosen.has(run.name));
  return chosen.flatMap((run, order) => {
    if (state.metric === "tau") {
      return run.tau.map((values, layer) => ({
        run, name: `${labelOf(run)}, ${run.layers[layer]}`, raw: points(run, values, "tau"),
        colour: layer % COLOURS, dash: DASHES[order % DASHES.length],
      }));
    }
    const values = run.series[state.metric];
    return values ? [{ run, name: labelOf(run), raw: points(run, values, state.metric), ...look(run) }] : [];
  }).filter((line) => line.raw.length);
}

function look(run) {
  const index = data.runs.indexOf(run);
  return { colour: index % COLOURS, dash: DASHES[Math.floor(index / COLOURS) % DASHES.length] };
}

// ------------------------------------------------------------------------------------------------ chart

const MARGIN = { left: 56, right: 14, top: 12, bottom: 40 };
let scale = null;             // of what is drawn now: epochs to pixels and back

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function drawChart() {
  const all = lines();
  const chart = byId("chart");
  chart.setAttribute("aria-label", `${TITLES[state.metric] ?? state.metric} by epoch, ${all.length} lines`);
  if (!all.length) {
    scale = null;
    chart.replaceChildren(el("p", { class: "empty" }, "No chosen run has this; choose runs beside."));
    drawReadout();
    return;
  }
  const width = Math.max(chart.clientWidth, 280), height = Math.round(Math.min(430, Math.max(260, width * 0.55)));
  const epochs = all.flatMap((line) => [line.raw[0][0], line.raw.at(-1)[0]]);
  const whole = [Math.min(...epochs), Math.max(...epochs)];
  let [low, high] = state.view ?? whole;
  if (low === high) [low, high] = [low - 1, high + 1];
  const visible = (line) => line.filter(([epoch]) => epoch >= low && epoch <= high);
  const mean = state.smooth && state.metric !== "tau" && high - low >= WINDOW;
  const drawn = all.map((line) => {
    const smooth = mean && line.raw.length > WINDOW;
    return { ...line, faint: smooth ? visible(line.raw) : null, line: visible(smooth ? smoothed(line.raw) : line.raw) };
  });
  const values = drawn.flatMap((line) => [...line.line, ...(line.faint ?? [])].map(([, value]) => value));
  let [least, most] = [Math.min(...values), Math.max(...values)];
  if (!values.length) [least, most] = [0, 1];
  const logarithmic = state.metric === "tau" && least > 0 && most > 6 * least;
  const pad = least === most ? Math.abs(least) * 0.1 || 1 : (most - least) * 0.05;
  const [bottom, top] = logarithmic ? [least / 1.1, most * 1.1] : [least - pad, most + pad];
  const right = width - MARGIN.right, floor = height - MARGIN.bottom;
  const x = (epoch) => MARGIN.left + ((epoch - low) / (high - low)) * (right - MARGIN.left);
  const share = (value) => (logarithmic ? Math.log(value / bottom) / Math.log(top / bottom) : (value - bottom) / (top - bottom));
  const y = (value) => floor - share(value) * (floor - MARGIN.top);
  scale = { x, low, high, whole, floor, left: MARGIN.left, right, epoch: (px) => low + ((px - MARGIN.left) / (right - MARGIN.left)) * (high - low) };
  const marks = logarithmic ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].filter((v) => v >= bottom && v <= top) : ticks(bottom, top, 6);
  const path = (line) => line.map(([epoch, value], i) => `${i ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    marks.map((value) => [svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value))]),
    ticks(low, high, Math.max(2, Math.floor(width / 110))).filter(Number.isInteger).map((epoch) =>
      svg("text", { x: x(epoch), y: floor + 18, "text-anchor": "middle" }, String(epoch))),
    svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: floor, y2: floor }),
    svg("text", { x: right, y: floor + 34, "text-anchor": "end" }, "epoch"),
    drawn.map((line) => {
      const stroke = `var(--s${line.colour})`;
      const curve = svg("path", { class: `curve${line.run.origin === "trained" ? " ours" : ""}`, d: path(line.line), "data-run": line.run.name });
      curve.style.stroke = stroke;
      curve.style.strokeDasharray = line.dash;
      const faint = line.faint ? svg("path", { class: "curve raw", d: path(line.faint) }) : null;
      if (faint) faint.style.stroke = stroke;
      const dots = line.line.length <= 20 ? line.line.map(([epoch, value]) => {
        const dot = svg("circle", { cx: x(epoch), cy: y(value), r: 3 });
        dot.style.fill = stroke;
        return dot;
      }) : [];
      return [faint, curve, dots];
    }),
    svg("line", { class: "cross", id: "cross", x1: 0, x2: 0, y1: MARGIN.top, y2: floor, visibility: "hidden" }),
    svg("rect", { class: "band", id: "band", x: 0, y: MARGIN.top, width: 0, height: floor - MARGIN.top }));
  chart.replaceChildren(picture);
  drawReadout();
}

function nearest(line, epoch) {
  return line.reduce((best, point) => (Math.abs(point[0] - epoch) < Math.abs(best[0] - epoch) ? point : best));
}

function drawReadout() {
  const cross = byId("cross");
  if (scale === null || state.cursor === null) {
    cross?.setAttribute("visibility", "hidden");
    byId("readout").replaceChildren();
    return;
  }
  const at = scale.x(state.cursor);
  for (const end of ["x1", "x2"]) cross.setAttribute(end, at);
  cross.setAttribute("visibility", "visible");
  const rows = lines().map((line) => {
    const [epoch, value] = nearest(line.raw, state.cursor);
    return el("tr", {}, el("td", {}, swatch(line)), el("td", {}, line.name), el("td", { class: "number" }, String(epoch)),
      el("td", { class: "number" }, PERCENT.has(state.metric) ? value.toFixed(2) : short(value)));
  });
  byId("readout").replaceChildren(
    el("thead", {}, el("tr", {}, ["", "run", "epoch", TITLES[state.metric] ?? state.metric].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, rows));
}

function swatch({ colour, dash }) {
  const line = svg("line", { x1: 0, x2: 36, y1: 6, y2: 6, "stroke-width": 2.5 });
  line.style.stroke = `var(--s${colour})`;
  line.style.strokeDasharray = dash;
  return svg("svg", { viewBox: "0 0 36 12", width: 36, height: 12, "aria-hidden": "true" }, line);
}

function lookCloser(low, high) {
  const [first, last] = scale.whole;
  state.view = [Math.max(first, low), Math.min(last, high)];
  if (state.view[1] - state.view[0] < 1) state.view = null;
  drawChart();
}

function listenToChart() {
  const chart = byId("chart");
  const pixel = (event) => event.clientX - chart.getBoundingClientRect().left;
  let from = null;
  chart.addEventListener("pointerdown", (event) => {
    if (scale === null || event.button !== 0) return;
    from = pixel(event);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (scale === null) return;
    const at = Math.min(Math.max(pixel(event), scale.left), scale.right);
    state.cursor = Math.round(scale.epoch(at));
    drawReadout();
    if (from !== null) {
      byId("band").setAttribute("x", Math.min(from, at));
      byId("band").setAttribute("width", Math.abs(at - from));
    }
  });
  chart.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [a, b] = [from, pixel(event)].sort((one, other) => one - other);
    from = null;
    if (b - a > 8) lookCloser(scale.epoch(Math.max(a, scale.left)), scale.epoch(Math.min(b, scale.right)));
  });
  chart.addEventListener("pointerleave", () => { if (from === null) { state.cursor = null; drawReadout(); } });
  chart.addEventListener("dblclick", showWhole);
  chart.addEventListener("keydown", (event) => {
    if (scale === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const span = scale.high - scale.low, middle = state.cursor ?? Math.round((scale.low + scale.high) / 2);
    const step = Math.max(1, Math.round(span / 100));
    const move = { ArrowLeft: -step, ArrowRight: step, Home: scale.low - middle, End: scale.high - middle }[event.key];
    if (move !== undefined) {
      state.cursor = Math.round(Math.min(scale.high, Math.max(scale.low, middle + move)));
      drawReadout();
    } else if (event.key === "+" || event.key === "=") lookCloser(middle - span / 4, middle + span / 4);
    else if (event.key === "-") lookCloser(middle - span, middle + span);
    else if (event.key === "0") showWhole();
    else return;
    event.preventDefault();
  });
}

function showWhole() {
  state.view = null;
  drawChart();
}

// ------------------------------------------------------------------------------------------------ choices

function drawControls() {
  const names = metrics();
  if (!names.includes(state.metric) && names.length) state.metric = names[0];
  byId("metric").replaceChildren(...names.map((name) =>
    el("option", { value: name, selected: name === state.metric }, TITLES[name] ?? name)));
}

function drawChoices() {
  const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const fitting = data.runs.filter((run) => wanted.every((word) => `${run.name} ${run.title} ${run.origin}`.toLowerCase().includes(word)));
  const box = byId("choices");
  box.replaceChildren(el("legend", {}, "Runs"), ...fitting.map((run) => el("label", { class: "choice", title: run.name },
    el("input", {
      type: "checkbox", value: run.name, onchange: (event) => {
        if (event.target.checked) state.chosen.add(run.name);
        else state.chosen.delete(run.name);
        drawChart();
        drawDistributions();
      },
    }), swatch(look(run)), el("span", {}, labelOf(run), run.origin === "trained" ? el("small", {}, `${run.name}, ${run.status}`) : null))));
  for (const input of box.querySelectorAll("input")) input.checked = state.chosen.has(input.value);
  if (!fitting.length) box.append(el("p", { class: "empty" }, data.runs.length ? "No run fits." : "No runs yet."));
}

function chooseFirst() {
  const trained = data.runs.filter((run) => run.origin === "trained" && run.epochs.length);
  const here = trained.filter((run) => run.status !== "record");
  const ours = (here.length ? here : trained).slice(-4);
  const beside = data.runs.filter((run) => run.origin === "imported" && ours.some((own) => own.experiment === run.experiment && own.protocol === run.protocol));
  const first = ours.length ? [...ours, ...beside] : data.runs.filter((run) => run.epochs.length).slice(0, 4);
  for (const run of first) state.chosen.add(run.name);
  // published curves are first seen as far as ours go
  const epochs = ours.filter((run) => run.epochs.length).flatMap((run) => [run.epochs[0], run.epochs.at(-1)]);
  if (epochs.length) state.view = [Math.min(...epochs), Math.max(...epochs)];
}

// ------------------------------------------------------------------------------------------------ distributions

/** Of each chosen run that kept it, quantiles of W_fc/τ by epoch (Figure S1). */
function drawDistributions() {
  const parts = data.runs.filter((run) => state.chosen.has(run.name)).flatMap((run) =>
    Object.entries(run.distribution).map(([layer, rows]) => ({ run, layer, rows: rows.map((row, i) => [run.epochs[i], row]).filter(([, row]) => row) })))
    .filter((part) => part.rows.length > 1);
  byId("distributions").replaceChildren(...parts.slice(0, 8).map(distributionOf));
}

function distributionOf({ run, layer, rows }) {
  const width = 340, height = 190, left = 52, right = width - 8, top = 8, floor = height - 30;
  const all = rows.flatMap(([, row]) => [row[1], row.at(-2)]);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const [first, last] = [rows[0][0], rows.at(-1)[0]];
  const x = (epoch) => left + ((epoch - first) / (last - first)) * (right - left);
  const y = (value) => floor - ((value - least) / (most - least || 1)) * (floor - top);
  const band = (low, high, opacity) => {
    const there = rows.map(([epoch, row]) => `${x(epoch).toFixed(1)} ${y(row[high]).toFixed(1)}`);
    const back = rows.toReversed().map(([epoch, row]) => `${x(epoch).toFixed(1)} ${y(row[low]).toFixed(1)}`);
    return svg("path", { class: "zoomed", d: `M${[...there, ...back].join("L")}Z`, "fill-opacity": opacity });
  };
  const middle = svg("path", { class: "curve", d: `M${rows.map(([epoch, row]) => `${x(epoch).toFixed(1)} ${y(row[4]).toFixed(1)}`).join("L")}` });
  middle.style.stroke = "var(--ink)";
  return el("figure", {},
    el("h3", {}, `W/τ of ${layer}`),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Quantiles of W/τ of ${layer} from epoch ${first} to ${last}, from ${short(least)} to ${short(most)}` },
      ticks(least, most, 4).map((value) => [svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
        svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value))]),
      band(1, 7, 0.2), band(2, 6, 0.3), band(3, 5, 0.45), middle,
      svg("text", { x: left, y: floor + 18 }, String(first)), svg("text", { x: right, y: floor + 18, "text-anchor": "end" }, String(last))),
    el("figcaption", {}, `${labelOf(run)}: median, and the middle 50, 90 and 98 % of the weights, by epoch.`));
}

// ------------------------------------------------------------------------------------------------ runs

function drawRuns() {
  const open = new Set([...byId("run-list").querySelectorAll("details[open]")].map((details) => details.dataset.run));
  byId("run-list").replaceChildren(...data.runs.map((run) => {
    const last = (name) => run.series[name]?.findLast((value) => value !== null);
    const best = run.series.test_accuracy ? Math.max(...run.series.test_accuracy.filter((value) => value !== null)) : null;
    const known = [run.title, run.protocol ? `protocol ${run.protocol}` : "", run.recipe ? `recipe ${run.recipe}` : "",
      run.T ? `T = ${run.T}` : "", run.seed !== null && run.seed !== undefined ? `seed ${run.seed}` : ""].filter(Boolean).join(", ");
    const epoch = run.epochs.length ? `epoch ${run.epochs.at(-1)}` : "no epoch yet";
    const accuracy = best === null ? "" : `, test accuracy: best ${shown(best, "test_accuracy")} %, last ${shown(last("test_accuracy"), "test_accuracy")} %`;
    return el("details", { "data-run": run.name, open: open.has(run.name) },
      el("summary", {}, run.name, " ", el("span", { class: "status" }, `${run.status}, ${epoch}${accuracy}`)),
      el("div", { class: "facts" },
        el("div", {}, el("p", {}, known || "Nothing more is known of it."), factsOf("Environment", run.environment)),
        factsOf("Settings", run.settings, ["setting", "value", "from"])));
  }));
  if (!data.runs.length) byId("run-list").append(el("p", { class: "empty" }, "No runs."));
}

function factsOf(title, rows, heads) {
  if (!rows.length) return null;
  return el("div", { class: "scroll" }, el("table", {}, el("caption", {}, title),
    heads ? el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))) : null,
    el("tbody", {}, rows.map(([key, ...values]) => el("tr", {}, el("th", { scope: "row" }, key), values.map((value) => el("td", {}, value)))))));
}

// ------------------------------------------------------------------------------------------------ the page

const THEMES = [["", "as the system"], ["light", "light"], ["dark", "dark"]];

function listenToTheme() {
  let at = 0;
  byId("theme").addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    const [name, text] = THEMES[at];
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    byId("theme").textContent = `Theme: ${text}`;
  });
}

/** Draws what has changed; what a person has chosen, opened or is reading stays. */
function update(fresh) {
  const changed = (name) => JSON.stringify(data[name]) !== JSON.stringify(fresh[name]);
  const [tables, runs, samples] = ["tables", "runs", "samples"].map(changed);
  const focused = document.activeElement?.closest(".choice")?.querySelector("input")?.value;
  data = fresh;
  if (tables) drawTables();
  if (runs) {
    if (!state.chosen.size) chooseFirst();
    drawControls();
    drawChoices();
    drawChart();
    drawDistributions();
    drawRuns();
    if (focused) [...byId("choices").querySelectorAll("input")].find((input) => input.value === focused)?.focus();
  }
  if (samples) drawViewer();
}

function follow(every) {
  const said = byId("live");
  const ask = async () => {
    try {
      const reply = await fetch("data.json");
      update(await reply.json());
      said.textContent = "live";
    } catch {
      said.textContent = "the server does not answer";
    }
    setTimeout(ask, every);
  };
  setTimeout(ask, every);
}

byId("metric").addEventListener("change", (event) => { state.metric = event.target.value; state.view = null; drawChart(); });
byId("smooth").addEventListener("change", (event) => { state.smooth = event.target.checked; drawChart(); });
byId("search").addEventListener("input", (event) => { state.search = event.target.value; drawChoices(); });
byId("none").addEventListener("click", () => { state.chosen.clear(); drawChoices(); drawChart(); drawDistributions(); });
byId("reset").addEventListener("click", showWhole);
new ResizeObserver(() => drawChart()).observe(byId("chart"));
window.addEventListener("beforeprint", drawChart);

byId("version").textContent = `plifctl ${data.version}`;
chooseFirst();
drawTables();
drawControls();
drawChoices();
drawChart();
drawDistributions();
drawRuns();
drawViewer();
listenToChart();
listenToTheme();
if (Number(document.body.dataset.live)) follow(Number(document.body.dataset.live));
