// Tables and figures of the report, and the settings in which the chosen runs differ. Everything is folded at first.

const MAX_FACTS = 20;         // chosen runs whose settings can be unfolded
const DESCRIPTIONS = /^(name|title|recipe|train\.seed)$|^reported\./;  // they differ, and say nothing

function drawTables() {
  const open = openDetails("table-list");
  byId("table-list").replaceChildren(...data.tables.map((found) => renderTable(found, open.has(found.name))));
  if (!data.tables.length) byId("table-list").append(el("p", { class: "empty" }, "No tables."));
}

const openDetails = (id) => new Set([...byId(id).querySelectorAll("details[open]")].map((details) => details.dataset.name));

function renderTable(found, open) {
  const anchor = (mark) => `note-${found.name}-${mark}`;
  const kind = (index) => (found.numeric[index] ? "number" : null);
  const cell = (parts, index) => el("td", { class: kind(index) }, parts.map(([text, mark]) => el("span", { class: "part" },
    text, mark ? el("sup", {}, el("a", { href: `#${anchor(mark)}`, "aria-label": `note ${mark}` }, mark)) : null)));
  const head = (parts) => el("th", { scope: "row" }, parts.map(([text]) => text).join(", "));
  const title = `Table ${found.name}. ${found.caption}`;
  return el("details", { "data-name": found.name, open }, el("summary", {}, title),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table ${found.name}` },
      el("table", { "aria-label": title },
        el("thead", {}, el("tr", {}, found.columns.map((text, i) => el("th", { scope: "col", class: kind(i) }, text)))),
        el("tbody", {}, found.rows.map((row) => el("tr", {}, row.map((parts, i) => (i ? cell(parts, i) : head(parts)))))))),
    el("p", { class: "source" }, found.source),
    el("ul", { class: "notes" }, found.notes.map(([mark, note]) => el("li", { id: anchor(mark) }, `(${mark}) ${note}`)).concat(found.warnings.map((text) => el("li", {}, text)))));
}

function drawFigures() {
  byId("figures").hidden = !data.figures.length;
  byId("figure-list").replaceChildren(...data.figures.map(({ name, caption, source }) => el("details", { "data-name": name },
    el("summary", {}, `Figure ${name}. ${caption.split(/(?<=\.) /)[0]}`), el("img", { src: source, alt: caption }),
    el("p", { class: "source" }, caption))));
}

/** Settings in which the chosen ones differ, a column each; below, all settings and the environment of each run. */
function drawDifferences(settings) {
  const valuesOf = (run) => new Map([["protocol", run.protocol ?? ""], ["training version", (run.versions ?? []).join(", ")], ...run.settings.map((i) => data.facts[i])]);
  const known = settings.filter(({ runs }) => runs[0].settings.length).map((setting) => ({ ...setting, values: valuesOf(setting.runs[0]) }));
  const keys = [...new Set(known.flatMap(({ values }) => [...values.keys()]))].filter((key) => !DESCRIPTIONS.test(key));
  const rows = keys.map((key) => [key, known.map(({ values }) => values.get(key) ?? "")]).filter(([, values]) => new Set(values).size > 1);
  byId("same").textContent = [settings.length ? "" : "No run is chosen.",
    known.length === 1 && settings.length === 1 ? "The runs chosen differ in the seed at most." : "",
    known.length > 1 && !rows.length ? "No setting differs: the runs were trained on other data, or by another definition of their experiment." : "",
    known.length < settings.length ? "The settings of runs that were not trained here are unknown." : ""].filter(Boolean).join(" ");
  byId("differences").replaceChildren(...(rows.length ? [
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), known.map(({ label, style }) => el("th", { scope: "col" }, swatchOf(style), label)))),
    el("tbody", {}, rows.map(([key, values]) => el("tr", {}, el("th", { scope: "row" }, key), values.map((value) => el("td", {}, value))))),
  ] : []));
  const open = openDetails("run-facts"), chosen = data.runs.filter((run) => state.chosen.has(run.name));
  byId("run-facts").replaceChildren(...chosen.slice(0, MAX_FACTS).map((run) => renderRun(run, open.has(run.name))),
    chosen.length > MAX_FACTS ? el("p", { class: "empty" }, `And ${count(chosen.length - MAX_FACTS)} more runs.`) : "");
}

/** A run, folded: its settings and environment are made when it is unfolded. */
function renderRun(run, open) {
  const facts = el("div", { class: "facts" });
  const fill = () => facts.replaceChildren(
    renderFacts("Settings", run.settings, ["setting", "value", "source"]), renderFacts("Environment", run.environment, ["", "value"]));
  const details = el("details", { "data-name": run.name, open, ontoggle: () => details.open && fill() },
    el("summary", {}, run.name, " ", el("span", { class: "status" }, flags(run).join(", "))), facts);
  return details;
}

function renderFacts(title, numbers, heads) {
  if (!numbers.length) return el("p", { class: "empty" }, `${title}: unknown.`);
  return el("div", { class: "scroll" }, el("table", {}, el("caption", {}, title),
    el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, numbers.map((i) => data.facts[i]).map(([key, ...values]) => el("tr", {}, el("th", { scope: "row" }, key), values.map((value) => el("td", {}, value)))))));
}
