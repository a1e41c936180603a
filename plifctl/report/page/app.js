// The page: its state, its elements, theme and live updates. Text from runs and registry is set as text, never as markup.

const byId = (id) => document.getElementById(id);
const isLive = Number(document.body.dataset.live) > 0;
let data = JSON.parse(byId("data").textContent);
const state = {
  chosen: new Set(),          // names of runs
  automatic: true,            // what was chosen first is still chosen
  slots: new Map(),           // number of the style of each chosen setting
  repeated: 0,                // chosen runs that another one of their setting and seed stands for
  hidden: new Set(),          // settings whose lines were hidden in the legend
  metric: "test_accuracy", smooth: false, authors: true, view: null, cursor: null, printing: false,
};

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

// ------------------------------------------------------------------------------------------------ theme and print

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

let unfolded = [];            // for the print

/** Paper is white and cannot be unfolded: prints in the light theme, with all tables and figures. */
function preparePrint(printing) {
  const theme = THEMES[themeIndex][0];
  if (printing || theme) document.documentElement.dataset.theme = printing ? "light" : theme;
  else delete document.documentElement.dataset.theme;
  if (printing) unfolded = [...document.querySelectorAll("#table-list > details:not([open]), #figure-list > details:not([open])")];
  for (const details of unfolded) details.open = printing;
  state.printing = printing;
  showRows();
  drawCharts();
}

// ------------------------------------------------------------------------------------------------ live updates

/** Draws what has changed; choice, open details and focus stay. */
function update(fresh) {
  const changed = (...names) => names.some((name) => JSON.stringify(data[name]) !== JSON.stringify(fresh[name]));
  const tables = changed("tables"), runs = changed("runs", "facts");
  const drawn = (document_) => JSON.stringify(document_.runs.filter((run) => state.chosen.has(run.name)));
  const recorded = (document_) => JSON.stringify(document_.runs.filter((run) => run.spikes).map((run) => [run.name, run.spikes]));
  const begins = state.automatic && (!data.runs.length || (!isOwnDrawn(data) && isOwnDrawn(fresh)));
  const charts = drawn(data) !== drawn(fresh), samples = recorded(data) !== recorded(fresh);
  data = fresh;
  if (tables) drawTables();
  if (!runs) return;
  forget();
  if (begins) chooseFirst();
  drawRuns();
  if (charts || begins) drawCharts();
  if (samples && byId("samples").open) drawViewer();
}

/** Draws again what could not be fetched before, and is not on its way. */
function retry() {
  const isMissing = (digest) => digest && !parts.has(digest) && !fetched.has(digest);
  if (chosenCurves().some(isMissing)) drawCharts();
  if (byId("samples").open && isMissing(data.runs.find((run) => run.name === viewer.run)?.spikes)) drawViewer();
}

/** Drops what belongs to runs that were removed, and curves of earlier epochs. */
function forget() {
  const names = new Set(data.runs.map((run) => run.name)), used = new Set(data.runs.flatMap((run) => [run.curve, run.spikes]));
  for (const name of state.chosen) if (!names.has(name)) state.chosen.delete(name);
  for (const name of table.rows.keys()) if (!names.has(name)) table.rows.delete(name);
  for (const digest of parts.keys()) if (!used.has(digest)) parts.delete(digest);
}

function follow(every) {
  const status = byId("live"), say = (text) => { if (status.textContent !== text) status.textContent = text; };  // it is read aloud
  let tag = null;
  const poll = async () => {
    try {
      const reply = await fetch("data.json", { signal: AbortSignal.timeout(PATIENCE) });
      if (reply.ok) {
        if (reply.headers.get("ETag") !== tag) update(await reply.json());
        else retry();
        tag = reply.headers.get("ETag");
        say("live");
      } else say((await reply.text()).trim());
    } catch {
      say("server not reachable");
    }
    setTimeout(poll, every);
  };
  setTimeout(poll, every);
}

// ------------------------------------------------------------------------------------------------ start

byId("search").addEventListener("input", (event) => {
  table.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  arrangeRuns();
});
byId("only-chosen").addEventListener("change", (event) => { table.onlyChosen = event.target.checked; arrangeRuns(); });
byId("none").addEventListener("click", () => choose(data.runs, false));
byId("runs-body").addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault());  // it would mark text
byId("runs-body").addEventListener("click", onRunClick);
byId("runs-body").addEventListener("focusin", (event) => { table.active = event.target.closest("tr").dataset.run; });
byId("runs-box").addEventListener("keydown", onRunKey);
byId("runs-box").addEventListener("scroll", showRows);
byId("metric").addEventListener("change", (event) => { state.metric = event.target.value; drawChart(chosenSettings()); });
byId("smooth").addEventListener("change", (event) => { state.smooth = event.target.checked; drawChart(chosenSettings()); });
byId("authors").addEventListener("change", (event) => { state.authors = event.target.checked; drawCharts(); });
byId("reset").addEventListener("click", () => zoom(null));
byId("chart").addEventListener("keydown", onChartKey);
byId("distributions").addEventListener("toggle", drawCharts);
byId("samples").addEventListener("toggle", drawViewer);
byId("theme").addEventListener("click", switchTheme);
for (const id of ["layers", "settings"]) sight.observe(byId(id));
new ResizeObserver(() => plot?.setSize(chartSize())).observe(byId("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
window.addEventListener("beforeprint", () => preparePrint(true));
window.addEventListener("afterprint", () => preparePrint(false));

byId("version").textContent = `plifctl ${data.version}`;
chooseFirst();
drawHead();
drawRuns();
drawTables();
drawFigures();
drawCharts();
if (isLive) follow(Number(document.body.dataset.live));
else { // most curves come after this script
  document.addEventListener("DOMContentLoaded", () => chosenCurves().every((digest) => parts.has(digest)) || drawCharts());
}
