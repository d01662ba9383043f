"use strict";
// Architectures as a picture: a row for each, a column for each block, heights and shades for options.
function slotsOf(run) {
  const slots = new Map();
  run.choices.forEach((choice, position) => {
    if (choice.precision !== null) return;
    const name = choice.stage + "\u0000" + choice.block;
    if (!slots.has(name)) slots.set(name, { stage: choice.stage, block: choice.block, positions: [] });
    slots.get(name).positions.push(position);
  });
  const found = [...slots.values()];
  // What is of a whole stage stands before its blocks.
  const precision = run.choices.map((_, position) => position).filter((position) => run.choices[position].precision !== null);
  const last = precision.length ? [{ stage: "precision", block: "", positions: precision, precision: true }] : [];
  const first = (slot) => found.findIndex((each) => each.stage === slot.stage);
  if (!run.elastic) return [...found, ...last];
  return [...found.map((slot, at) => [first(slot), slot.block ? 1 : 0, at, slot])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map(([, , , slot]) => slot), ...last];
}

// Few bits are low and coloured, float32 is a tall outline: both tell them apart.
const BITS = { "int4": [0.25, "--c-knee"], "int8": [0.5, "--c-second"], "int8-dynamic": [0.5, "--c-largest"],
  "fp16": [0.75, "--c-uniform"], "fp32": [1, "--c-trials"] };

function precisionBar(option, x, y, width, height) {
  const [part, colour] = BITS[option];
  const hollow = option === "fp32";
  const inset = hollow ? 0.5 : 0;
  return svg("rect", { x: x + inset, y: y + height * (1 - part) + inset, width: width - 2 * inset, height: height * part - 2 * inset,
    fill: hollow ? "none" : `var(${colour})`, stroke: hollow ? `var(${colour})` : "none", "stroke-width": 1 });
}

function precisionGlyph(run, number, slot, x, y, width, height) {
  const node = svg("g", {});
  const each = width / slot.positions.length;
  slot.positions.forEach((position, at) => {
    const index = run.trials.indices[number][position];
    const choice = run.choices[position];
    if (index < 0) return;
    const title = svg("title", {}, (choice.precision || "whole network") + ": " + choice.options[index]);
    node.append(svg("g", {}, title, precisionBar(choice.options[index], x + at * each, y, Math.max(each - 1.5, 2), height)));
  });
  return node;
}

function share(run, number, position) {
  const index = run.trials.indices[number][position];
  const last = run.choices[position].options.length - 1;
  return index < 0 ? null : last ? index / last : 0.5;
}

function slotTitle(run, number, slot) {
  return slot.positions.map((position) => {
    const index = run.trials.indices[number][position];
    const choice = run.choices[position];
    return choice.name + " = " + (index < 0 ? "not active" : choice.options[index]);
  }).join("\n");
}

// The bars of an elastic model's block: each a width or number of heads, as a share of the given model's.
function bars(run, slot) {
  return slot.positions.filter((position) => !isKeep(run.choices[position]));
}

function isLeftOut(run, number, position) {
  const choice = run.choices[position];
  return isKeep(choice) && choice.options[run.trials.indices[number][position]] === "False";
}

function keptGlyph(run, number, slot, x, y, width, height) {
  const node = svg("g", {}, svg("title", {}, slotTitle(run, number, slot)));
  const colour = slot.block ? "var(--c-front)" : "var(--c-uniform)";
  const shown = bars(run, slot);
  const each = width / Math.max(shown.length, 1);
  const outline = { fill: "none", stroke: "var(--c-trials)", "stroke-dasharray": "2 2", "stroke-width": 0.8 };
  if (!shown.length) {
    const out = slot.positions.some((position) => isLeftOut(run, number, position));
    node.append(svg("rect", { x, y, width, height, rx: 2, ...(out ? outline : { fill: colour }) }));
  }
  shown.forEach((position, at) => {
    const index = run.trials.indices[number][position];
    const place = { x: x + at * each, width: Math.max(each - (shown.length > 1 ? 1 : 0), 1) };
    if (index < 0) {
      node.append(svg("rect", { ...place, y, height, ...outline }));
      return;
    }
    const part = (run.choices[position].shares || [])[index];
    const tall = Math.max(1.5, height * (typeof part === "number" ? part : share(run, number, position)));
    node.append(svg("rect", { ...place, y, height, fill: colour, "fill-opacity": 0.14 }),
      svg("rect", { ...place, y: y + height - tall, height: tall, fill: colour }));
  });
  return node;
}

function glyph(run, number, slot, x, y, width, height) {
  if (slot.precision) return precisionGlyph(run, number, slot, x, y, width, height);
  if (run.elastic) return keptGlyph(run, number, slot, x, y, width, height);
  const shares = slot.positions.map((position) => share(run, number, position));
  const node = svg("g", {}, svg("title", {}, slotTitle(run, number, slot)));
  const known = shares.filter((value) => value !== null);
  if (!known.length) {
    node.append(svg("circle", { cx: x + width / 2, cy: y + height - 2, r: 1.5, fill: "var(--c-trials)", opacity: 0.6 }));
    return node;
  }
  const tall = height * (0.3 + 0.7 * known[0]);
  const shade = 0.22 + 0.78 * known[known.length > 1 ? 1 : 0];
  const colour = slot.block ? "var(--c-front)" : "var(--c-uniform)";
  node.append(svg("rect", { x, y: y + height - tall, width, height: tall, rx: 2.5, fill: colour, "fill-opacity": shade,
    stroke: colour, "stroke-width": 0.8 }));
  return node;
}

function placed(run, slots, cell, start) {
  let x = start;
  let stage = null;
  const stages = [];
  const columns = slots.map((slot) => {
    if (stage !== null && slot.stage !== stage) x += cell * 0.7;
    if (slot.stage !== stage) stages.push({ name: slot.stage || slot.positions.length && "", x });
    stage = slot.stage;
    const at = x;
    x += cell * parts(run, slot) + 3;
    stages[stages.length - 1].end = x;
    return at;
  });
  return { columns, stages, end: x };
}

// Columns that a slot takes.
function parts(run, slot) {
  if (slot.precision) return Math.max(1, 0.5 * slot.positions.length);
  return run.elastic ? Math.max(bars(run, slot).length, 1) : 1;
}

function rowLabels(run, number) {
  const member = run.members[number];
  return run.objectives.slice(0, 2).reverse().map((o) => {
    const value = member ? member.numbers.find(([name]) => name === o.name)[1] : run.trials.values[o.name][number];
    return value === null ? "–" : (o.predicted ? "~" : "") + figure(value) + (o.unit ? " " + o.unit : "");
  });
}

function archPicture(run, numbers, pick, labelled) {
  const slots = slotsOf(run);
  const all = slots.reduce((sum, slot) => sum + parts(run, slot), 0);
  const room = labelled ? Math.min(950, innerWidth - 250) : 330;
  const cell = run.elastic ? Math.max(6, Math.min(labelled ? 22 : 14, Math.floor((room - 3 * slots.length) / all)))
    : Math.max(14, Math.min(labelled ? 46 : 22, Math.floor(room / all) - 4));
  const left = labelled ? 172 : 0;
  const { columns, stages, end } = placed(run, slots, cell, left);
  const row = 36;
  const top = 22;
  const width = end + 6;
  const picture = svg("svg", { class: "archs", width, height: top + numbers.length * row + 4,
    viewBox: "0 0 " + width + " " + (top + numbers.length * row + 4), role: "img" });
  picture.append(svg("title", {}, "Architectures, one in each row"));
  for (const { name, x, end: right } of stages) {
    const room = Math.max(2, Math.floor((right - x) / 6.4));
    const label = name || "all";
    picture.append(svg("text", { x, y: 12, class: "faint" }, svg("title", {}, label), shortened(label, room, run.elastic)));
  }
  numbers.forEach((number, at) => {
    const y = top + at * row;
    const line = svg("g", { class: pick ? "line" : "" }, svg("rect", { x: 0, y, width, height: row,
      class: "hit" + (pick && number === run.chosen ? " chosen" : ""), "data-number": pick ? number : -1 }));
    if (pick) line.addEventListener("click", () => pick(number));
    picture.append(line);
    if (labelled) rowLabels(run, number).forEach((text, column) =>
      line.append(svg("text", { x: 74 + 72 * column, y: y + row - 10, "text-anchor": "end", "pointer-events": "none" }, text)));
    slots.forEach((slot, place) => line.append(glyph(run, number, slot, columns[place], y + 6, cell * parts(run, slot), row - 14)));
  });
  return picture;
}

// What tells layers apart is at the end of their paths.
function shortened(label, room, isPath) {
  if (label.length <= room) return label;
  if (isPath) return room < 4 ? "" : "…" + label.slice(label.length - room + 1);
  return label.slice(0, room - 1) + "…";
}

function precisionLegend(run) {
  const slot = slotsOf(run).find((each) => each.precision);
  if (!slot) return null;
  const options = run.choices[slot.positions[0]].options;
  const keys = options.map((option) => el("span", { class: "precision-key" },
    svg("svg", { width: 8, height: 14, "aria-hidden": "true" }, precisionBar(option, 0, 0, 8, 14)), " " + option));
  const blocks = slot.positions.map((position) => run.choices[position].precision).filter(Boolean);
  return el("p", { class: "lead" }, "Precision" + (blocks.length ? " of each block, from the left: " + blocks.join(", ") : "") + ". ", keys);
}

function archLegend(run) {
  if (run.elastic) {
    const inside = new Set(slotsOf(run).filter((slot) => slot.block && bars(run, slot).length > 1)
      .map((slot) => bars(run, slot).map((position) => run.choices[position].attribute).join(", ")));
    const order = inside.size === 1 ? "; within a block, from the left: " + [...inside][0] : "";
    return "Each bar is a number of channels, heads or neurons, as a share of the given model's: green those of a whole stage, blue "
      + "those inside a block" + order + ". Dashed outlines are left out. Point at a bar for its name.";
  }
  const told = { block: new Set(), stage: new Set() };
  for (const slot of slotsOf(run).filter((each) => !each.precision)) {
    const names = slot.positions.map((position) => run.choices[position].attribute);
    told[slot.block ? "block" : "stage"].add(names.length > 1 ? "height is " + names[0] + " and shade " + names[1] : "height and shade are " + names[0]);
  }
  const lines = [];
  if (told.stage.size) lines.push("Green is a whole stage: " + [...told.stage].slice(0, 4).join(", or ") + ". ");
  if (told.block.size) lines.push("Blue is a block: " + [...told.block].slice(0, 4).join(", or ") + ". ");
  return lines.join("") + "Low and pale is the first option, tall and dark the last; a dot stands where nothing is active.";
}
