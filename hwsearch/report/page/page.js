"use strict";
// The page: a tab for each run, and one that compares them.
function headerOf(run) {
  const head = run.header;
  const fact = (name, value, small) => el("div", {}, el("dt", {}, name), el("dd", {}, value, small ? el("small", {}, small) : null));
  return el("dl", { class: "facts" },
    fact("supernet", head.supernet, [head.weights, figure(head.space) + " architectures"].filter(Boolean).join(", ")),
    fact("device", head.device, head.hardware),
    fact("data", head.data, head.counted),
    fact("run", run.folder, "written " + head.date));
}

function showCard(run, number) {
  run.card.replaceChildren(...cardOf(run, number));
  run.load.replaceChildren(...loadOf(run, number));
  run.load.hidden = !run.members[number];
}

function choose(run, number, jump) {
  run.chosen = number;
  showCard(run, number);
  redraw((plot) => plot.run === run && plot.marksChosen);
  for (const node of run.view.querySelectorAll("[data-number]")) {
    node.classList.toggle("chosen", Number(node.dataset.number) === number);
  }
  if (jump) run.front.scrollIntoView({ behavior: "smooth", block: "start" });
}

function frontPanel(run) {
  const names = Object.keys(run.fronts);
  const plots = names.map((name) => plotOf(run, run.fronts[name], {
    tall: true, filtered: true, marksChosen: true, onpick: (number) => choose(run, number, false) }));
  const shown = Math.max(0, names.indexOf(run.across));
  const holder = el("div", {}, plots[shown]);
  let axes = null;
  if (names.length > 1) {
    axes = el("div", { class: "filters" }, el("span", { class: "how" }, "against"), names.map((name, at) => {
      const button = el("button", { type: "button", "aria-pressed": String(at === shown), "data-across": name }, name);
      button.addEventListener("click", () => {
        holder.replaceChildren(plots[at]);
        for (const each of axes.querySelectorAll("button")) each.setAttribute("aria-pressed", String(each === button));
        run.plots.find((plot) => plot.node === plots[at]).queue();
      });
      return button;
    }));
  }
  run.plots.forEach((plot) => { plot.later = plots.includes(plot.node) && plot.node !== plots[shown]; });
  run.card = el("aside", { class: "card", "aria-label": "the chosen subnet" });
  run.load = el("div", { class: "load" });
  const title = { front: "The front", candidates: "The candidates", unfinished: "What is best so far" }[run.kind];
  const text = { front: "Confirmed: timed together in a fresh process, with 95% intervals. Trials are as the search measured them.",
    candidates: "Non-dominated by predicted numbers; a predicted number enters no front.",
    unfinished: "As the search measured it: nothing is confirmed or exported yet." }[run.kind];
  run.front = el("section", { class: "panel" }, el("h2", {}, title),
    el("p", { class: "lead" }, text + " Click a point for its card."), axes,
    el("div", { class: "split" }, holder, run.card, run.load));
  return run.front;
}

function picksPanel(run) {
  if (!run.picks.length) return null;
  const versus = run.picks.some((pick) => pick.versus);
  const sure = run.picks.some((pick) => pick.sure !== null);
  const rows = run.picks.map((pick) => {
    const member = run.members[pick.number];
    const v = pick.versus;
    const number = (o) => member.numbers.find(([name]) => name === o.name);
    return el("tr", { class: "row", "data-number": pick.number, onclick: () => choose(run, pick.number, true) },
      el("td", { class: "wish" }, pick.wish, sure && pick.sure !== null ? el("div", { class: "how" }, percent(pick.sure) + " sure to keep it") : null),
      run.objectives.map((o) => {
        const [, value, low, high] = number(o);
        return el("td", { class: "n" }, (o.predicted ? "~" : "") + withMargin(value, low, high));
      }),
      versus ? el("td", { class: "n" }, v ? figure(Number(v.times.toPrecision(3))) + " ×" : "–") : null,
      versus ? el("td", { class: "n" }, v && v.points !== null ? [signed(v.points), el("div", { class: "how" }, signed(v.low) + " to " + signed(v.high))] : "–") : null,
      el("td", { class: "key" }, run.trials.key[pick.number]));
  });
  const first = run.objectives[0];
  const head = ["wish", ...run.objectives.map((o) => o.name + (o.unit ? " (" + o.unit + ")" : ""))];
  if (versus) {
    const cost = run.picks.find((pick) => pick.versus).versus.cost;
    const objective = run.objectives.find((o) => o.name === cost);
    head.push(objective.comparative + " than the largest", first.name + " against the largest");
  }
  head.push("key");
  return el("section", { class: "panel" }, el("h2", {}, "Which one should I ship?"),
    el("p", { class: "lead" }, run.kind === "candidates" ? "By predicted numbers: measured ones may order them otherwise." : versus ? "Differences to the supernet's largest subnet are paired over the search " + run.header.samples + ", with 95% intervals." : "The largest subnet was not measured in this run, so that nothing is compared with it."),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, head.map((text, at) =>
      el("th", { class: at && at < head.length - 1 ? "n" : null }, text)))), el("tbody", {}, rows))));
}

function tile(value, text) {
  return value === null ? null : el("div", { class: "tile" }, el("b", {}, value), el("span", {}, text));
}

function paidPanel(run) {
  const summary = run.summary;
  const panel = el("section", { class: "panel" }, el("h2", {}, "Did the search pay?"));
  if (!summary) {
    return append(panel, [el("p", { class: "empty" }, "The summary of a search is written at its end: this run has none.")]);
  }
  const knee = summary.at_knee;
  append(panel, [el("div", { class: "pair" },
    plotOf(run, summary.figure, {}),
    el("div", {}, el("div", { class: "tiles" },
      tile(percent(summary.share), summary.members + " of " + summary.evaluated + " evaluations are on the " + run.what
        + (summary.failed ? ", " + summary.failed + " failed" : "") + (summary.reused ? ", " + summary.reused + " reused" : "")),
      tile(figure(summary.hypervolume), "hypervolume (" + summary.units + ")"),
      tile(summary.random === null ? null : "~" + percent(summary.random), "of it by as many architectures drawn by chance, predicted"),
      tile(summary.uniform === null ? null : percent(summary.uniform), "of it by uniform scaling"),
      tile(summary.gain === null ? null : "+" + (100 * summary.gain).toPrecision(2) + "%", "of it by " + summary.horizon + " more evaluations, predicted"),
      knee ? tile(figure(knee.knee) + " vs " + figure(knee.uniform), knee.first + " at the knee's " + knee.second + ": the front, and uniform scaling, interpolated") : null)))]);
  return panel;
}

function archsPanel(run) {
  if (!run.order.length) return null;
  const shared = run.shared;
  const told = [];
  if (shared) {
    if (shared.same.length) {
      told.push(el("li", {}, "alike wherever active: ", shared.same.map(([name, option, n], at) =>
        [at ? ", " : "", el("b", {}, name + " = " + option), " (" + n + " of " + shared.n + ")"])));
    }
    if (shared.rising.length) told.push(el("li", {}, "grow with " + shared.along + ": ", el("b", {}, shared.rising.join(", "))));
    if (!told.length) told.push(el("li", {}, "the " + shared.n + " have no option in common, and no choice follows " + shared.along + " clearly"));
  }
  return el("section", { class: "panel" }, el("h2", {}, "What they look like"),
    el("p", { class: "lead" }, "One row for each, by " + (run.across === "trial" ? run.objectives[0].name : run.across) + ". " + archLegend(run)),
    precisionLegend(run),
    told.length ? el("ul", { class: "plain" }, told) : null,
    el("div", { class: "scroll" }, archPicture(run, run.order, (number) => choose(run, number, true), true)));
}

function importancePanel(run) {
  const found = run.importance.objectives;
  const panel = el("section", { class: "panel" }, el("h2", {}, "What each choice is worth"));
  if (!found.length) {
    return append(panel, [el("p", { class: "empty" }, "A model of what choices are worth needs " + run.importance.least + " trials with different values.")]);
  }
  return append(panel, [
    el("p", { class: "lead" }, "The change when a choice goes from its first option to its last and all others stay, on average over the trials: by an additive model that is fitted to them, not measured. Bars are 95% intervals of the model. Without interactions, it is a summary and no proof."),
    el("div", { class: "pair" }, found.map((each) => el("div", {},
      el("h3", {}, each.name, " ", el("span", { class: "how" }, "model of " + each.trials + " trials ranks those left out with a Kendall's tau of " + figure(Number(each.tau.toPrecision(2))))),
      plotOf(run, each.figure, {}))))]);
}

function forecastPanel(run) {
  const panel = el("section", { class: "panel" }, el("h2", {}, "Predicted against measured"));
  if (!run.forecasts.length) {
    return append(panel, [el("p", { class: "empty" }, "Nothing was predicted before it was measured.")]);
  }
  return append(panel, [
    el("p", { class: "lead" }, "What the search predicted when it proposed a trial, with the prediction's 95% interval, and what it then measured."),
    el("div", { class: "pair" }, run.forecasts.map((each) => el("div", {},
      el("h3", {}, each.name, " ", each.fit ? el("span", { class: "how" }, "last " + each.fit.n + ": " + percent(each.fit.covered) + " inside their intervals"
        + (each.fit.tau === null ? "" : ", Kendall's tau " + each.fit.tau.toFixed(2))) : null),
      plotOf(run, each.figure, { onpick: (number) => choose(run, number, true) }))))]);
}

function trustPanel(run) {
  const { scores, measuring } = run;
  const of = run.header.samples;
  const panel = el("section", { class: "panel" }, el("h2", {}, "How far the numbers can be trusted"));
  const parts = [];
  if (scores) {
    parts.push(el("div", {}, el("h3", {}, "Search " + of + " and report " + of),
      el("p", { class: "lead" }, "The search chose by the first and never saw the second. On report " + of + " the members differ by "
        + signed(scores.mean) + " " + scores.unit + " on average; " + scores.inside + " of " + scores.n + " scores of the search lie inside the report's interval."),
      plotOf(run, scores.figure, { onpick: (number) => choose(run, number, false) })));
  }
  if (measuring) {
    const half = Object.entries(measuring.half).map(([purpose, share]) => "±" + (100 * share).toPrecision(2) + "% (" + purpose + ")").join(", ");
    parts.push(el("div", {}, el("h3", {}, "Noise and drift of the timing"),
      el("p", { class: "lead" }, measuring.n + " timings in " + figure(Number(measuring.minutes.toPrecision(2))) + " min; median interval " + half
        + "; the anchor took " + signed(measuring.anchor) + "% against its baseline (median). Latencies are ratios to the anchor, so that its drift is taken out."),
      plotOf(run, measuring.figure, {}),
      measuring.warnings.length ? el("details", {}, el("summary", {}, "Warnings of the timing"), el("ul", { class: "plain" },
        measuring.warnings.map(([count, text]) => el("li", {}, count + " × such as: " + text)))) : null));
  }
  if (!parts.length) parts.push(el("p", { class: "empty" }, "This run has measured neither latencies nor scores on report " + of + "."));
  return append(panel, [el("div", { class: "pair" }, parts)]);
}

function settingsPanel(run) {
  return el("section", { class: "panel" }, el("details", {}, el("summary", {}, "Settings and versions"),
    el("table", {}, el("tbody", {}, run.header.settings.map(([name, value]) =>
      el("tr", {}, el("td", { class: "how" }, name), el("td", {}, value)))))));
}

function runView(run) {
  run.plots = [];
  run.best = new Set(run.order);
  run.shown = run.trials.key.map(() => true);
  run.chosen = run.picks.length ? run.picks[0].number : run.order.length ? run.order[0] : null;
  run.view = el("main", { "data-run": run.name }, headerOf(run), el("p", {}), run.notes.map((text) => el("p", { class: "note" }, text)),
    frontPanel(run), picksPanel(run), paidPanel(run), archsPanel(run), importancePanel(run), forecastPanel(run), trustPanel(run),
    trialsPanel(run), settingsPanel(run));
  fillTable(run);
  if (run.chosen === null) run.card.append(el("p", { class: "empty" }, "Nothing has been measured in full yet."));
  else showCard(run, run.chosen);
  return run.view;
}

function compareView(compare) {
  const holder = { plots: [], shown: [] };
  holder.view = el("main", {}, el("section", { class: "panel" }, el("h2", {}, "The fronts"),
    el("p", { class: "lead" }, compare.lead), plotOf(holder, compare.figure, { tall: true }),
    compare.notes.map((text) => el("p", { class: "note" }, text))),
    compare.transfers.map((each) => el("section", { class: "panel" },
      el("h2", {}, each.title), el("p", { class: "lead" }, each.lines[0]),
      el("ul", { class: "plain" }, each.lines.slice(1).map((text) => el("li", {}, text))),
      each.rows.length ? el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, each.head.map((text, at) => el("th", { class: at ? "n" : null }, text)))),
        el("tbody", {}, each.rows.map((row) => el("tr", {}, row.map((cell, at) =>
          el("td", { class: at ? "n" : "key" }, typeof cell === "number" || cell === null ? figure(cell) : cell))))))) : null)));
  return holder;
}

function toggleScheme(button) {
  const next = scheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.scheme = next;
  button.textContent = next === "dark" ? "Light" : "Dark";
  redraw(() => true);
}

function main() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.scheme = dark.matches ? "dark" : "light";
  const page = document.getElementById("page");
  const button = el("button", { type: "button", id: "scheme", "aria-label": "change between light and dark" }, dark.matches ? "Light" : "Dark");
  button.addEventListener("click", () => toggleScheme(button));
  dark.addEventListener("change", () => { if ((scheme() === "dark") !== dark.matches) toggleScheme(button); });
  page.append(el("header", { class: "top" }, el("div", {}, el("div", { class: "brand" }, "hwsearch report"), el("h1", {}, CONTENTS.title)), button));
  const views = [];
  if (CONTENTS.compare) views.push(["compared", compareView(CONTENTS.compare)]);
  for (const run of CONTENTS.runs) { runView(run); views.push([run.name, run]); }
  const tabs = el("div", { class: "tabs", role: "tablist" });
  const open = (at) => {
    views.forEach(([, holder], place) => { holder.view.hidden = place !== at; });
    tabs.querySelectorAll("button").forEach((tab, place) => tab.setAttribute("aria-selected", String(place === at)));
    for (const plot of views[at][1].plots) if (!plot.later) plot.queue();
  };
  views.forEach(([name], at) => tabs.append(el("button", { type: "button", role: "tab", onclick: () => open(at) }, name)));
  if (views.length > 1) page.append(tabs);
  for (const [, holder] of views) page.append(holder.view);
  page.append(el("footer", {}, "Made by hwsearch " + CONTENTS.version + ". This file loads nothing from a network."));
  open(0);
}

main();
