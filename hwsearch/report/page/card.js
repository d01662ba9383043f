"use strict";
// The card of what was clicked: numbers with their intervals, the files, the lines that load them.
function numbersTable(rows) {
  return el("table", {}, el("tbody", {}, rows.map(([name, value, low, high, unit, how]) =>
    el("tr", {},
      el("td", {}, name),
      el("td", { class: "n" }, (how === "predicted" ? "~" : "") + figure(value) + (unit ? " " + unit : ""),
        low === null ? null : el("div", { class: "how" }, fromTo(low, high))),
      el("td", {}, how === "predicted" ? el("span", { class: "badge predicted" }, how) : el("span", { class: "how" }, how))))));
}

function trialNumbers(run, number) {
  const forecast = run.trials.forecast[number] || {};
  const rows = [];
  for (const objective of run.objectives) {
    const value = run.trials.values[objective.name][number];
    const how = objective.source === "measured" ? "measured by the search" : objective.source;
    if (value !== null) rows.push([objective.name, value, null, null, objective.unit, how]);
    if (forecast[objective.name]) {
      const [mean, deviation] = forecast[objective.name];
      rows.push([objective.name, mean, mean - 1.96 * deviation, mean + 1.96 * deviation, objective.unit, "predicted"]);
    }
  }
  return rows;
}

function cardOf(run, number) {
  const member = run.members[number];
  const knee = run.picks.length && run.picks[0].number === number;
  const state = run.trials.state[number];
  const nodes = [
    el("div", {},
      knee ? el("span", { class: "badge knee" }, "knee") : null,
      member ? el("span", { class: "badge" + (run.kind === "candidates" ? " predicted" : "") }, run.kind === "candidates" ? "candidate" : "on the front")
        : el("span", { class: "badge plain" }, state),
      el("span", { class: "how" }, "trial " + number)),
    el("p", { class: "key" }, run.trials.key[number]),
  ];
  if (run.trials.reason[number]) nodes.push(el("p", { class: "note" }, run.trials.reason[number]));
  nodes.push(numbersTable(member ? member.numbers : trialNumbers(run, number)));
  if (member && member.probability !== null) {
    nodes.push(el("p", { class: "how" }, "on the front with a probability of " + percent(member.probability) + " (bootstrap)"));
  }
  nodes.push(el("h3", {}, "Architecture"), el("div", { class: "scroll" }, archPicture(run, [number], null, false)),
    el("table", {}, el("tbody", {}, stageLines(run, number).map(([stage, text]) =>
      el("tr", {}, el("td", { class: "how" }, stage), el("td", {}, text))))));
  if (member) {
    nodes.push(el("h3", {}, "Files"), el("p", {}, el("code", {}, member.path), el("br", {}),
      el("span", { class: "how" }, member.files.join(", "))));
  }
  return nodes;
}

function loadOf(run, number) {
  const member = run.members[number];
  if (!member) return [];
  return [el("div", { class: "pair" }, member.load.map(([title, text]) => codeBlock(title, text)))];
}
