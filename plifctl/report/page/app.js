// The page: tables, controls, the list of runs, live updates. Text from runs and registry is set as text, never as markup.

const byId = (id) => document.getElementById(id);
let data = JSON.parse(byId("data").textContent);
const state = { metric: "test_accuracy", smooth: true, view: "ours", cursor: null, selected: new Map(), search: "" };

// ------------------------------------------------------------------------------------------------ elements

function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const percent = (fraction) => (100 * fraction).toFixed(2);
const isOfPlifctl = (run) => run.origin === "trained" || run.origin === "shipped";
const labelOf = (run) => (run.title ? `${run.title}${run.origin === "trained" ? "" : `, ${run.origin}`}` : run.name);

// ------------------------------------------------------------------------------------------------ tables

function drawTables() {
  byId("table-list").replaceChildren(...data.tables.map(renderTable));
  if (!data.tables.length) byId("table-list").append(el("p", { class: "empty" }, "No tables."));
}

function renderTable(table) {
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
    el("ul", { class: "notes" }, table.notes.map(([mark, note]) => el("li", { id: anchor(mark) }, `(${mark}) ${note}`)).concat(table.warnings.map((text) => el("li", {}, text)))));
}

// ------------------------------------------------------------------------------------------------ controls

function drawControls() {
  const names = metrics();
  if (!names.includes(state.metric) && names.length) state.metric = names[0];
  byId("metric").replaceChildren(...names.map((name) =>
    el("option", { value: name, selected: name === state.metric }, titleOf(name))));
}

function drawRunPicker() {
  const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = data.runs.filter((run) => wanted.every((word) => `${run.name} ${run.title} ${run.origin}`.toLowerCase().includes(word)));
  const box = byId("choices");
  box.replaceChildren(el("legend", {}, "Runs"), ...matching.map((run) => el("label", { class: "choice", title: run.name },
    el("input", {
      type: "checkbox", value: run.name, onchange: (event) => {
        if (event.target.checked) select(run.name);
        else state.selected.delete(run.name);
        event.target.nextElementSibling.replaceWith(swatchOf(run));
        drawCharts();
      },
    }), swatchOf(run), el("span", {}, labelOf(run), isOfPlifctl(run) ? el("small", {}, `${run.name}, ${run.status}`) : null))));
  for (const input of box.querySelectorAll("input")) input.checked = state.selected.has(input.value);
  if (!matching.length) box.append(el("p", { class: "empty" }, data.runs.length ? "No matching run." : "No runs yet."));
}

function selectInitial() {
  const trained = data.runs.filter((run) => isOfPlifctl(run) && run.epochs.length);
  const here = trained.filter((run) => run.status !== "record");
  const ours = (here.length ? here : trained).slice(-4);
  const beside = data.runs.filter((run) => run.origin === "imported" && ours.some((own) => own.experiment === run.experiment && own.protocol === run.protocol));
  const first = ours.length ? [...ours, ...beside] : data.runs.filter((run) => run.epochs.length).slice(0, 4);
  for (const run of first) select(run.name);
}

// ------------------------------------------------------------------------------------------------ runs

function drawRuns() {
  const open = new Set([...byId("run-list").querySelectorAll("details[open]")].map((details) => details.dataset.run));
  byId("run-list").replaceChildren(...data.runs.map((run) => {
    const accuracies = (run.series.test_accuracy ?? []).filter(isNumber);
    const known = [run.title, run.protocol ? `protocol ${run.protocol}` : "", run.recipe ? `recipe ${run.recipe}` : "",
      run.T ? `T = ${run.T}` : "", isNumber(run.seed) ? `seed ${run.seed}` : ""].filter(Boolean).join(", ");
    const epoch = run.epochs.length ? `epoch ${run.epochs.at(-1)}` : "no epoch yet";
    const accuracy = accuracies.length ? `, test accuracy: best ${percent(Math.max(...accuracies))} %, last ${percent(accuracies.at(-1))} %` : "";
    return el("details", { "data-run": run.name, open: open.has(run.name) },
      el("summary", {}, run.name, " ", el("span", { class: "status" }, `${run.status}, ${epoch}${accuracy}`)),
      el("div", { class: "facts" },
        el("div", {}, el("p", {}, known || "No further information."), renderFacts("Environment", run.environment)),
        renderFacts("Settings", run.settings, ["setting", "value", "source"])));
  }));
  if (!data.runs.length) byId("run-list").append(el("p", { class: "empty" }, "No runs."));
}

function renderFacts(title, rows, heads) {
  if (!rows.length) return null;
  return el("div", { class: "scroll" }, el("table", {}, el("caption", {}, title),
    heads ? el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))) : null,
    el("tbody", {}, rows.map(([key, ...values]) => el("tr", {}, el("th", { scope: "row" }, key), values.map((value) => el("td", {}, value)))))));
}

// ------------------------------------------------------------------------------------------------ the page

const THEMES = [["", "system"], ["light", "light"], ["dark", "dark"]];

let themeIndex = 0;

function switchTheme() {
  themeIndex = (themeIndex + 1) % THEMES.length;
  const [name, text] = THEMES[themeIndex];
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  byId("theme").textContent = `Theme: ${text}`;
  drawCharts();
}

function drawCharts() {
  drawChart();
  drawDistributions();
}

/** Draws what has changed; selection, open details and focus stay. */
function update(fresh) {
  const changed = (name) => JSON.stringify(data[name]) !== JSON.stringify(fresh[name]);
  const [tables, runs, samples] = ["tables", "runs", "samples"].map(changed);
  const focused = document.activeElement?.closest(".choice")?.querySelector("input")?.value;
  data = fresh;
  if (tables) drawTables();
  if (runs) {
    if (!state.selected.size) selectInitial();
    drawControls();
    drawRunPicker();
    drawCharts();
    drawRuns();
    if (focused) [...byId("choices").querySelectorAll("input")].find((input) => input.value === focused)?.focus();
  }
  if (samples) drawViewer();
}

function follow(every) {
  const status = byId("live");
  const poll = async () => {
    try {
      const reply = await fetch("data.json");
      update(await reply.json());
      status.textContent = "live";
    } catch {
      status.textContent = "server not reachable";
    }
    setTimeout(poll, every);
  };
  setTimeout(poll, every);
}

/** Paper is white: prints in the light theme, whatever the screen shows. */
function printInLight(printing) {
  const theme = THEMES[themeIndex][0];
  if (printing || theme) document.documentElement.dataset.theme = printing ? "light" : theme;
  else delete document.documentElement.dataset.theme;
  drawCharts();
}

byId("metric").addEventListener("change", (event) => { state.metric = event.target.value; drawChart(); });
byId("smooth").addEventListener("change", (event) => { state.smooth = event.target.checked; drawChart(); });
byId("search").addEventListener("input", (event) => { state.search = event.target.value; drawRunPicker(); });
byId("none").addEventListener("click", () => { state.selected.clear(); drawRunPicker(); drawCharts(); });
byId("reset").addEventListener("click", () => zoom(null));
byId("chart").addEventListener("keydown", onChartKey);
byId("theme").addEventListener("click", switchTheme);
new ResizeObserver(() => plot?.setSize(chartSize())).observe(byId("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
window.addEventListener("beforeprint", () => printInLight(true));
window.addEventListener("afterprint", () => printInLight(false));

byId("version").textContent = `plifctl ${data.version}`;
selectInitial();
drawTables();
drawControls();
drawRunPicker();
drawCharts();
drawRuns();
drawViewer();
if (Number(document.body.dataset.live)) follow(Number(document.body.dataset.live));
