"use strict";
// Everything of a run reaches the page as text: nodes are made here, and no markup is parsed.
const CONTENTS = JSON.parse(document.getElementById("contents").textContent);
const SVG = "http://www.w3.org/2000/svg";

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  return append(node, children);
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return append(node, children);
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e12) return value.toExponential(1).replace("+", "");
  for (const [from, unit, suffix] of [[1e9, 1e9, " G"], [1e6, 1e6, " M"], [1e4, 1e3, " k"]]) {
    if (size >= from) return String(Number((value / unit).toPrecision(3))) + suffix;
  }
  return String(Number(value.toPrecision(4)));
}

function percent(share) {
  if (share > 0.995 && share < 1.0005) return share === 1 ? "100%" : ">99%";
  return share > 0 && share < 0.005 ? "<1%" : Math.round(100 * share) + "%";
}

function signed(value) {
  const text = String(Number(Math.abs(value).toPrecision(2)));
  return (value < 0 ? "−" : value > 0 ? "+" : "") + text;
}

function fromTo(low, high) {
  return low === null || high === null ? "" : figure(low) + " to " + figure(high);
}

function withMargin(value, low, high) {
  if (value === null || value === undefined) return "–";
  if (low === null || high === null || low === undefined) return figure(value);
  return figure(value) + " ±" + String(Number(Math.max(value - low, high - value).toPrecision(2)));
}

function copyButton(text) {
  const button = el("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

function codeBlock(title, text) {
  return el("div", {}, el("div", { class: "code" }, el("h3", {}, title), copyButton(text)), el("pre", {}, text));
}

// An architecture in lines, one for each stage: what is chosen in several blocks, in their order.
// What an elastic model keeps goes without saying.
function stageLines(run, number) {
  const stages = new Map();
  const without = new Map();
  const precisions = new Map();
  run.trials.indices[number].forEach((index, position) => {
    if (index < 0) return;
    const choice = run.choices[position];
    if (choice.precision !== null) {
      const option = choice.options[index];
      precisions.set(option, [...(precisions.get(option) || []), choice.precision]);
      return;
    }
    if (!stages.has(choice.stage)) stages.set(choice.stage, new Map());
    const stage = stages.get(choice.stage);
    if (isKeep(choice)) {
      if (choice.options[index] === "True") return;
      const name = [choice.block, choice.attribute.split(".").slice(0, -1).join(".")].filter(Boolean).join(".");
      without.set(choice.stage, [...(without.get(choice.stage) || []), name || choice.stage]);
    } else {
      if (!stage.has(choice.attribute)) stage.set(choice.attribute, []);
      stage.get(choice.attribute).push(choice.options[index]);
    }
  });
  const [most, ...others] = [...precisions].sort((a, b) => b[1].length - a[1].length);
  const mixed = most ? [["precision", [most[0], ...others.map(([option, blocks]) => option + " in " + blocks.join(" "))].join(", ")]] : [];
  return [...stages].map(([stage, attributes]) => {
    const texts = [...attributes].map(([name, options]) => name + " " + options.join(" "));
    if (without.has(stage)) texts.push("without " + without.get(stage).join(", "));
    return [stage, texts.join(" · ")];
  }).filter(([, text]) => text).concat(mixed);
}

// Whether a choice of an elastic model decides what stays and what is left out.
function isKeep(choice) {
  return choice.attribute.split(".").pop() === "keep" && choice.options.every((option) => option === "True" || option === "False");
}

function oneLine(run, number) {
  return stageLines(run, number).map(([stage, text]) => (stage ? stage + ": " : "") + text).join("; ");
}

function scheme() {
  return document.documentElement.dataset.scheme;
}
