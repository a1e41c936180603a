// The table of runs: sort, filter, choose. Runs that differ in nothing but the seed are one setting, one line of a chart.

const COLOURS = 8;
const DASHES = [["solid", []], ["dashed", [7, 3]], ["dotted", [2, 3]]];  // as a border, on the canvas
const MAX_SETTINGS = COLOURS * DASHES.length;
const ROW_HEIGHT = 26;         // pixels, as in style.css: rows are made where the table is scrolled to
const SPARE_ROWS = 6;          // above and below those
const ROW_KEYS = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

/** As Python prints it: 90.625 is 90.62, to the even digit. */
const percent = (fraction) => {
  const value = 100 * fraction;
  return ((8 * value) % 4 === 1 ? Math.floor(100 * value) / 100 : value).toFixed(2);
};
const accuracy = (found) => (found ? `${percent(found.value)}${found.of === "test" ? "" : " val"}` : "");
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
const neuron = (run) => (run.neuron ? `${run.neuron[0].toUpperCase()} ${run.neuron[1] ?? ""}` : "");
const flags = (run) => [run.status, run.fold, run.subset ? "subset" : null, run.changes.length ? "modified" : null].filter(Boolean);

/** Columns of the table: text of a cell, what it is sorted by if not by its text, and whether it can be chosen from. */
const COLUMNS = [
  { name: "experiment", text: (run) => run.experiment ?? "", choices: true },
  { name: "neuron, τ₀", text: neuron, by: (run) => run.neuron && run.neuron[1], choices: true },
  { name: "recipe", text: (run) => run.recipe ?? "", choices: true },
  { name: "protocol", text: (run) => run.protocol ?? "", choices: true },
  { name: "seed", text: (run) => String(run.seed ?? ""), by: (run) => run.seed },
  { name: "epochs", by: (run) => run.epochs,
    text: (run) => count(run.epochs) + (run.planned && run.planned !== run.epochs ? `/${count(run.planned)}` : "") },
  { name: "result %", text: (run) => accuracy(run.result), by: (run) => run.result?.value,
    title: (run) => (run.result ? `epoch ${run.result.epoch}` : null) },
  { name: "last %", text: (run) => accuracy(run.last), by: (run) => run.last?.value },
  { name: "hours", text: (run) => (isNumber(run.hours) ? run.hours.toFixed(2) : ""), by: (run) => run.hours },
  { name: "whose", text: (run) => run.whose, choices: true },
  { name: "status", text: (run) => flags(run).join(", "), choices: true },
  { name: "run", text: (run) => run.name },
];

const SWEEP = { name: "sweep", values: (run) => run.sweeps };
const FILTERS = [...COLUMNS.filter((column) => column.choices), SWEEP];

const table = {
  sorted: null, down: false, words: [], choices: new Map(), onlyChosen: false,
  shown: [],                   // runs in the order of the rows
  rows: new Map(),             // by name, of rows that were shown: the entry as text, and the element
  active: null,                // name of the run in the row that the Tab key enters
  filters: null,               // what can be chosen from, as it was drawn
};

// ------------------------------------------------------------------------------------------------ settings

/** The chosen runs by setting, each with its style, if there are enough; a setting keeps it while one of its runs is chosen. */
function chosenSettings() {
  const found = new Map();
  for (const run of data.runs) {
    if (!state.chosen.has(run.name) || !run.curve) continue;
    if (!found.has(run.setting)) found.set(run.setting, []);
    found.get(run.setting).push(run);
  }
  state.repeated = 0;
  for (const [setting, runs] of found) {
    const kept = oneOfEachSeed(runs);
    state.repeated += runs.length - kept.length;
    found.set(setting, kept);
  }
  for (const [setting, slot] of state.slots) {
    if (!found.has(setting)) state.hidden.delete(setting);
    if (!found.has(setting) || slot >= MAX_SETTINGS) state.slots.delete(setting);
  }
  const taken = new Set(state.slots.values());
  for (const setting of found.keys()) {
    if (state.slots.has(setting)) continue;
    let slot = 0;
    while (taken.has(slot)) slot += 1;
    taken.add(slot);
    state.slots.set(setting, slot);
  }
  const settings = [...found.values()].map((runs) => ({ runs, facts: factsOf(runs[0]), style: styleOf(runs[0]) }));
  const shared = (fact) => settings.length > 1 && settings.every(({ facts }) => facts.includes(fact));
  return settings.filter(({ style }) => style).map((setting) => ({ ...setting, label: labelOf(setting, shared) }));
}

/** Of runs of one setting and seed the longest, of equal ones the latest: a band is over seeds. */
function oneOfEachSeed(runs) {
  const found = new Map();
  for (const run of runs) {
    const seed = isNumber(run.seed) ? run.seed : run.name, other = found.get(seed);
    if (!other || run.epochs > other.epochs) found.set(seed, run);
  }
  return [...found.values()];
}

const factsOf = (run) => [run.recipe && `recipe ${run.recipe}`, run.protocol && `protocol ${run.protocol}`, run.planned && `${count(run.planned)} epochs`,
  run.versions?.length && `training version ${run.versions.join(" and ")}`, run.fold, ...run.changes, run.subset && "subset", run.whose !== "mine" && run.whose].filter(Boolean);

/** Title and seeds of a setting, and what not all that are chosen share. */
function labelOf({ runs, facts }, shared) {
  const seeds = runs.map((run) => run.seed).filter(isNumber);
  return [runs[0].title || runs[0].name, ...facts.filter((fact) => !shared(fact)),
    seeds.length > 1 ? `${seeds.length} seeds` : seeds.length ? `seed ${seeds[0]}` : ""].filter(Boolean).join(", ");
}

/** Colour and dashes of a chosen run; null if more settings are chosen than can be told apart. */
function styleOf(run) {
  const slot = state.slots.get(run.setting);
  return isNumber(slot) && slot < MAX_SETTINGS ? { colour: slot % COLOURS, dash: DASHES[Math.floor(slot / COLOURS)] } : null;
}

function swatchOf(style) {
  const mark = el("span", { class: "swatch" });
  showStyle(mark, style);
  return mark;
}

function showStyle(mark, style) {
  mark.style.border = style ? `${style.dash[0]} var(--s${style.colour})` : "";
}

const isDrawn = (run) => run.curve && run.epochs;
const isOwnDrawn = (document_) => document_.runs.some((run) => run.whose === "mine" && isDrawn(run));

/** Chooses the latest four runs, of the user if there are any. */
function chooseFirst() {
  const drawn = data.runs.filter(isDrawn), mine = drawn.filter((run) => run.whose === "mine");
  state.chosen.clear();
  for (const run of (mine.length ? mine : drawn).slice(0, 4)) state.chosen.add(run.name);
}

// ------------------------------------------------------------------------------------------------ table

function drawRuns() {
  drawFilters();
  arrangeRuns();
}

function makeRow(run) {
  const cells = COLUMNS.map((column, i) => el(i ? "td" : "th", { class: kindOf(column), scope: i ? null : "row",
    title: column.title ? column.title(run) : kindOf(column) ? null : column.text(run) }, column.text(run)));
  const box = el("input", { type: "checkbox", "aria-label": `choose ${run.name}` });
  return el("tr", { "data-run": run.name }, el("td", {}, box, swatchOf(null)), cells);
}

/** The row of a run, made anew if the run has changed. */
function rowOf(run, index) {
  const key = JSON.stringify(run), known = table.rows.get(run.name);
  const row = known?.key === key ? known.row : makeRow(run), box = row.querySelector("input"), chosen = state.chosen.has(run.name);
  table.rows.set(run.name, { key, row });
  box.checked = chosen;
  box.tabIndex = run.name === table.active ? 0 : -1;
  showStyle(box.nextSibling, chosen ? styleOf(run) : null);
  row.classList.toggle("chosen", chosen);
  row.setAttribute("aria-rowindex", index + 2);
  return row;
}

function spacer(rows) {
  const row = el("tr", { "aria-hidden": "true" });
  row.style.height = `${rows * ROW_HEIGHT}px`;
  return row;
}

/** Shows the rows where the table is scrolled to; on paper, all that are chosen. */
function showRows() {
  const box = byId("runs-box"), body = byId("runs-body"), focused = body.contains(document.activeElement) ? document.activeElement : null;
  const first = state.printing ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
  const last = state.printing ? Infinity : first + Math.ceil(box.clientHeight / ROW_HEIGHT) + 2 * SPARE_ROWS;
  const runs = table.shown.slice(first, last), rows = runs.map((run, i) => rowOf(run, first + i));
  const above = spacer(first), below = spacer(table.shown.length - first - runs.length), now = [...body.rows];
  const same = now.length === rows.length + 2 && rows.every((row, i) => row === now[i + 1]);
  if (same) {
    now[0].style.height = above.style.height;
    now.at(-1).style.height = below.style.height;
  } else body.replaceChildren(above, ...rows, below);
  if (focused && !body.contains(focused)) (body.querySelector("[tabindex='0']") ?? box).focus({ preventScroll: true });
  else focused?.focus({ preventScroll: true });
}

function drawHead() {
  byId("runs-head").replaceChildren(el("tr", {},
    el("th", { scope: "col" }, el("input", { type: "checkbox", id: "all", "aria-label": "choose all runs shown",
      onchange: (event) => choose(table.shown, event.target.checked) })),
    COLUMNS.map((column, i) => el("th", { scope: "col", class: kindOf(column),
      "aria-sort": table.sorted === i ? (table.down ? "descending" : "ascending") : null },
    el("button", { type: "button", "data-column": i, onclick: () => sortBy(i) },
      column.name, el("span", { "aria-hidden": "true" }, table.sorted === i ? (table.down ? " ↓" : " ↑") : ""))))));
}

/** Sorts by a column; numbers begin with the largest. The third time, the order is that of the list again. */
function sortBy(i) {
  const first = Boolean(COLUMNS[i].by);
  if (table.sorted !== i) [table.sorted, table.down] = [i, first];
  else if (table.down === first) table.down = !first;
  else table.sorted = null;
  drawHead();
  arrangeRuns();
  byId("runs-head").querySelector(`[data-column="${i}"]`).focus();
}

/** Draws the filters, if there is more or less to choose from: the one that is open stays open. */
function drawFilters() {
  const found = FILTERS.map((column) => {
    const texts = [...new Set(data.runs.flatMap((run) => choicesOf(column, run)))].filter(Boolean).sort(compareTexts);
    const chosen = table.choices.get(column);
    if (chosen !== undefined && !texts.includes(chosen)) texts.push(chosen);  // no run has it any more
    return [column, texts];
  }).filter(([column, texts]) => texts.length || column !== SWEEP);
  const drawn = JSON.stringify(found.map(([column, texts]) => [column.name, texts]));
  if (drawn === table.filters) return;
  table.filters = drawn;
  byId("filters").replaceChildren(...found.map(([column, texts]) => el("label", {}, column.name, el("select", { onchange: (event) => {
    if (event.target.selectedIndex) table.choices.set(column, event.target.value);
    else table.choices.delete(column);
    arrangeRuns();
  } }, el("option", { value: "" }, "all"), texts.map((text) => el("option", { value: text, selected: text === table.choices.get(column) }, text))))));
}

const kindOf = (column) => (column.by && !column.choices ? "number" : null);
const compareTexts = new Intl.Collator("en", { numeric: true }).compare;
/** What a run has under a filter; of a status, without its flags and its error. */
const choicesOf = (column, run) => column.values?.(run) ?? [column.text(run).split(/[,:]/)[0]];

function isShown(run) {
  if (table.onlyChosen && !state.chosen.has(run.name)) return false;
  for (const [column, text] of table.choices) if (!choicesOf(column, run).includes(text)) return false;
  if (!table.words.length) return true;
  const text = [run.title, ...COLUMNS.map((column) => column.text(run)), ...run.changes, ...run.sweeps].join(" ").toLowerCase();
  return table.words.every((word) => text.includes(word));
}

function arrangeRuns() {
  const column = COLUMNS[table.sorted];
  table.shown = data.runs.filter(isShown);
  if (column) {
    const by = column.by ?? column.text, sign = table.down ? -1 : 1;
    const empty = (value) => !isNumber(value) || value === "";
    table.shown.sort((one, other) => {
      const [a, b] = [by(one), by(other)];
      if (empty(a) || empty(b)) return empty(a) - empty(b);  // last in both directions
      return sign * (column.by ? a - b : compareTexts(a, b));
    });
  }
  if (!table.shown.some((run) => run.name === table.active)) table.active = table.shown[0]?.name ?? null;
  byId("run-table").setAttribute("aria-rowcount", table.shown.length + 1);
  const isMatched = table.shown.length > 0 || !data.runs.length;
  byId("no-runs").hidden = isMatched && data.runs.some((run) => run.whose === "mine");
  byId("no-runs").textContent = isMatched ? "No runs of yours yet: plifctl train demo makes one." : "No matching run.";
  markChosen();
}

/** Shows what is chosen: the boxes, the line of each setting, and how many there are. */
function markChosen() {
  chosenSettings();  // gives styles
  showRows();
  const chosen = table.shown.filter((run) => state.chosen.has(run.name)).length;
  byId("all").checked = chosen > 0 && chosen === table.shown.length;
  byId("all").indeterminate = chosen > 0 && chosen < table.shown.length;
  byId("count").textContent = `${count(table.shown.length)} of ${count(data.runs.length)} runs, ${count(state.chosen.size)} chosen`;
}

/** Chooses runs, or takes them out. */
function choose(runs, chosen) {
  state.automatic = false;
  for (const run of runs) state.chosen[chosen ? "add" : "delete"](run.name);
  markChosen();
  drawCharts();
}

/** A click anywhere in a row chooses the run; with Shift, all from the one before. */
function onRunClick(event) {
  const row = event.target.closest("[data-run]"), box = row?.querySelector("input");
  if (!box || (event.target !== box && !event.shiftKey && getSelection().toString())) return;  // marks text, to copy it
  const place = (name) => table.shown.findIndex((run) => run.name === name), at = place(row.dataset.run);
  const from = event.shiftKey ? Math.max(0, place(table.active)) : at;
  table.active = row.dataset.run;
  choose(table.shown.slice(Math.min(from, at), Math.max(from, at) + 1), event.target === box ? box.checked : !box.checked);
  box.focus();
}

/** One row is a stop of the Tab key; arrows go to the others. */
function onRunKey(event) {
  const step = ROW_KEYS[event.key], at = table.shown.findIndex((run) => run.name === table.active), size = table.shown.length;
  if (step === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("thead")) return;
  const next = Math.min(size - 1, Math.max(0, at + step)), box = byId("runs-box"), top = next * ROW_HEIGHT;
  table.active = table.shown[next].name;
  const visible = box.clientHeight - 2 * ROW_HEIGHT;  // without the head
  box.scrollTop = Math.min(top, Math.max(box.scrollTop, top - visible));
  showRows();
  byId("runs-body").querySelector("[tabindex='0']").focus({ preventScroll: true });
  event.preventDefault();
}
