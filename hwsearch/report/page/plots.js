"use strict";
// Plots: figures come from Python; here they get the colours of the scheme and the page's filters.
const drawn = [];
const waiting = [];
let drawing = false;

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Plotly reads tags in texts: what is a run's is escaped.
function inert(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function hoverText(run, number) {
  run.hovers = run.hovers || [];
  if (run.hovers[number]) return run.hovers[number];
  const lines = stageLines(run, number).map(([stage, text]) => inert((stage + " " + text).trim()));
  run.hovers[number] = ["<b>" + run.trials.key[number] + "</b>", ...lines].join("<br>");
  return run.hovers[number];
}

function only(values, kept) {
  return Array.isArray(values) ? values.filter((_, at) => kept[at]) : values;
}

function shownTrace(plot, given) {
  const trace = { ...given, marker: { ...given.marker }, line: { ...given.line } };
  const colour = css("--c-" + trace.meta);
  trace.marker.color = colour;
  if (trace.marker.symbol === "circle" && trace.marker.line) trace.marker.line = { ...trace.marker.line, color: css("--panel") };
  if (trace.type === "scatter") trace.line.color = colour;
  if (trace.type !== "scatter") delete trace.line;
  for (const name of ["error_x", "error_y"]) if (trace[name]) trace[name] = { ...trace[name], color: colour + "90" };
  const numbers = trace.customdata;
  if (!numbers) return trace;
  const kept = numbers.map((number) => !plot.filtered || plot.run.shown[number]);
  if (kept.includes(false)) {
    for (const name of ["x", "y", "customdata"]) trace[name] = only(trace[name], kept);
    for (const name of ["error_x", "error_y"]) {
      if (!trace[name]) continue;
      for (const side of ["array", "arrayminus"]) trace[name][side] = only(trace[name][side], kept);
    }
    if (trace.mode) trace.mode = "markers"; // a line would join what are no neighbours
  }
  trace.text = trace.customdata.map((number) => hoverText(plot.run, number));
  trace.hovertemplate += "<br>%{text}<extra></extra>";
  return trace;
}

function chosenTrace(plot, data) {
  for (const trace of [...data].reverse()) {
    const at = trace.customdata ? trace.customdata.indexOf(plot.run.chosen) : -1;
    if (at >= 0) {
      return { type: "scatter", mode: "markers", x: [trace.x[at]], y: [trace.y[at]], hoverinfo: "skip",
        showlegend: false, marker: { size: 24, symbol: "circle-open", color: css("--ink"), line: { width: 1.5 } } };
    }
  }
  return null;
}

function render(plot) {
  const data = plot.figure.data.map((trace) => shownTrace(plot, trace));
  if (plot.marksChosen) {
    const chosen = chosenTrace(plot, data);
    if (chosen) data.push(chosen);
  }
  const ink = css("--ink");
  const narrow = plot.node.clientWidth < 480;
  const layout = { ...plot.figure.layout, autosize: true,
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: ink } };
  layout.legend = { ...layout.legend, font: { size: narrow ? 11 : 12 } };
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: css("--panel"), bordercolor: css("--line"),
    font: { color: ink, size: 12 } };
  for (const axis of ["xaxis", "yaxis"]) {
    layout[axis] = { ...layout[axis], linecolor: css("--line"), gridcolor: css("--line"), tickcolor: css("--line"),
      title: { ...layout[axis].title, font: { size: narrow ? 11.5 : 13 } } };
  }
  layout.modebar = { bgcolor: "rgba(0, 0, 0, 0)", color: css("--muted"), activecolor: ink };
  // Named one by one: plotly's own set has a button that sends the figure to a server.
  const config = { responsive: true, displaylogo: false, showTips: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  return Plotly.react(plot.node, data, layout, config);
}

// One after another, so that the page answers while it draws.
function drawNext() {
  const plot = waiting.shift();
  drawing = Boolean(plot);
  if (!plot) { performance.mark("all drawn"); document.documentElement.dataset.drawn = "all"; return; }
  render(plot).then(() => {
    if (!drawn.length) performance.mark("front drawn");
    drawn.push(plot);
    if (plot.onpick) plot.node.on("plotly_click", (event) => {
      const number = event.points[0].customdata;
      if (Number.isInteger(number)) plot.onpick(number);
    });
    setTimeout(drawNext, 0);
  });
}

function plotOf(run, figure, options) {
  const node = el("div", { class: "plot" + (options && options.tall ? " tall" : "") });
  if (figure.layout.height) node.style.height = figure.layout.height + "px";
  const plot = { run, figure, node, ...options };
  plot.queue = () => {
    if (drawn.includes(plot) || waiting.includes(plot)) return;
    waiting.push(plot);
    document.documentElement.dataset.drawn = "some";
    if (!drawing) { drawing = true; setTimeout(drawNext, 0); }
  };
  run.plots.push(plot);
  return node;
}

function redraw(condition) {
  for (const plot of drawn) if (condition(plot)) render(plot);
}
