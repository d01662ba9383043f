"use strict";
// The table of trials: filters, which the plot of the front keeps too, and sorting.
const ROWS_AT_A_TIME = 50;

function searchText(run, number) {
  const named = run.trials.indices[number].map((index, position) =>
    index < 0 ? "" : run.choices[position].name + "=" + run.choices[position].options[index]);
  return { named: new Set(named), all: [run.trials.key[number], ...named, run.trials.reason[number] || ""].join(" ").toLowerCase() };
}

function matches(run, number, words) {
  if (!words.length) return true;
  run.texts = run.texts || [];
  const text = run.texts[number] = run.texts[number] || searchText(run, number);
  return words.every((word) => word.includes("=") ? text.named.has(word) : text.all.includes(word.toLowerCase()));
}

function applyFilters(run) {
  const { state, best, bound, words } = run.filter;
  run.shown = run.trials.key.map((_, number) =>
    (state === "all" || run.trials.state[number] === state)
    && (!best || run.best.has(number))
    && (!bound || run.trials.keeps[number] === true)
    && matches(run, number, words));
  run.limit = ROWS_AT_A_TIME;
  fillTable(run);
  redraw((plot) => plot.run === run && plot.filtered);
}

function columnsOf(run) {
  const value = (name) => (number) => run.trials.values[name][number];
  return [
    { title: "trial", of: (number) => number, numeric: true },
    { title: "key", of: (number) => run.trials.key[number] },
    { title: "state", of: (number) => run.best.has(number) ? run.what : run.trials.state[number] },
    ...run.objectives.flatMap((o) => {
      const title = o.name + (o.unit ? " (" + o.unit + ")" : "");
      const measured = { title: o.source === "predicted" ? title + ", predicted" : title, of: value(o.name), numeric: true };
      const known = Object.values(run.trials.forecast).some((each) => o.name in each);
      if (!known) return [measured];
      return [measured, { title: o.name + " as predicted", numeric: true, margin: true, of: (number) => {
        const forecast = run.trials.forecast[number];
        return forecast && forecast[o.name] ? forecast[o.name][0] : null;
      }, half: (number) => 1.96 * run.trials.forecast[number][o.name][1] }];
    }),
    { title: "round", of: (number) => run.trials.round[number], numeric: true },
    { title: "proposed by", of: (number) => run.trials.origin[number] },
    { title: "architecture", of: (number) => oneLine(run, number), wide: true },
  ];
}

function sorted(run, numbers) {
  const column = run.columns[run.sort.column];
  const sign = run.sort.down ? -1 : 1;
  const keyed = numbers.map((number) => [column.of(number), number]);
  keyed.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return (a === null) - (b === null) || i - j;
    return sign * (a < b ? -1 : a > b ? 1 : 0) || i - j;
  });
  return keyed.map(([, number]) => number);
}

function cellText(column, number) {
  const value = column.of(number);
  if (value === null || value === undefined) return "–";
  if (column.title === "trial" || column.title === "round") return value;
  if (column.margin) return "~" + withMargin(value, value - column.half(number), value + column.half(number));
  return column.numeric ? figure(value) : value;
}

function fillTable(run) {
  const numbers = sorted(run, run.trials.key.map((_, number) => number).filter((number) => run.shown[number]));
  run.table.replaceChildren(
    el("thead", {}, el("tr", {}, run.columns.map((column, at) => el("th", {
      class: column.numeric ? "n" : null,
      "aria-sort": at === run.sort.column ? (run.sort.down ? "descending" : "ascending") : "none",
    }, el("button", { type: "button", onclick: () => {
      run.sort = { column: at, down: run.sort.column === at && !run.sort.down };
      fillTable(run);
    } }, column.title + (at === run.sort.column ? (run.sort.down ? " ↓" : " ↑") : "")))))),
    el("tbody", {}, numbers.slice(0, run.limit).map((number) =>
      el("tr", { class: "row" + (number === run.chosen ? " chosen" : ""), "data-number": number, onclick: () => choose(run, number, true) },
        run.columns.map((column) => el("td", { class: column.numeric ? "n" : column.title === "key" ? "key" : column.wide ? "how" : null },
          cellText(column, number)))))));
  run.count.textContent = numbers.length + " of " + run.trials.key.length + " trials";
  run.more.hidden = numbers.length <= run.limit;
  run.more.textContent = "Show " + Math.min(ROWS_AT_A_TIME * 4, numbers.length - run.limit) + " more";
  if (!numbers.length) run.table.append(el("caption", { class: "empty" }, "No trial is like that."));
}

function toggle(run, name, text) {
  const button = el("button", { type: "button", "aria-pressed": "false", "data-filter": name }, text);
  button.addEventListener("click", () => {
    run.filter[name] = !run.filter[name];
    button.setAttribute("aria-pressed", String(run.filter[name]));
    applyFilters(run);
  });
  return button;
}

function trialsPanel(run) {
  run.filter = { state: "all", best: false, bound: false, words: [] };
  run.columns = columnsOf(run);
  run.sort = { column: 0, down: false };
  run.limit = ROWS_AT_A_TIME;
  run.table = el("table", { class: "trials" });
  run.count = el("span", { class: "count", "aria-live": "polite" });
  run.more = el("button", { type: "button", onclick: () => { run.limit += ROWS_AT_A_TIME * 4; fillTable(run); } });
  const states = ["all", ...new Set(run.trials.state)];
  const select = el("select", { "aria-label": "state" }, states.map((state) =>
    el("option", { value: state }, state === "all" ? "every state" : state)));
  select.addEventListener("change", () => { run.filter.state = select.value; applyFilters(run); });
  const search = el("input", { type: "search", placeholder: "stage1.depth=2, a key, a reason…", "aria-label": "search trials" });
  search.addEventListener("input", () => {
    run.filter.words = search.value.split(/[\s,;]+/).filter(Boolean);
    applyFilters(run);
  });
  const panel = el("section", { class: "panel" },
    el("h2", {}, "Every trial"),
    el("p", { class: "lead" }, "Filters hold for the plot of the front too. A trial's numbers are those of the search; ~ marks what was predicted when it was proposed, before anything of it was measured."),
    el("div", { class: "filters" }, search, select,
      toggle(run, "best", run.kind === "unfinished" ? "best so far" : "only the " + run.what),
      run.constraints.length ? toggle(run, "bound", "keeps " + run.constraints.join(" and ")) : null,
      run.count),
    el("div", { class: "scroll" }, run.table), el("p", {}), run.more);
  return panel;
}
