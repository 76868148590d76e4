// What all pictures share: colours, theme, and how Plotly is called.

export const BLUE = "#0072B2";
export const SKY = "#56B4E9";
export const ORANGE = "#E69F00";
export const VERMILION = "#D55E00";
export const GREEN = "#009E73";
export const PURPLE = "#CC79A7";
export const GREY = "#888888";

export const STATES = {
  complete: BLUE, running: ORANGE, waiting: SKY, failed: VERMILION, pruned: GREY,
};

// How points look: shape, size, face and edge, as in bbmmopt/plots/style.py. INK is dark on light
// and light on dark, PAPER the other way round.
const [INK, PAPER] = ["mark", "hollow"];
export const MARKS = {
  observed: ["circle", 7.5, PAPER, INK],
  infeasible: ["square", 7.5, PURPLE, INK],
  "stopped early": ["triangle-down", 9, PAPER, INK],
  failed: ["x", 9, INK, PAPER],
  pending: ["triangle-up", 9.5, ORANGE, INK],
  "on the front": ["diamond", 9, SKY, INK],
  best: ["diamond", 9, SKY, INK],
  next: ["star", 17, VERMILION, "#ffffff"],
};

// The marker of a kind of point. Over a surface, which is the same in light and dark, ink is black.
export function mark(kind, { over = false, scale = 1 } = {}) {
  const [symbol, size, ...colours] = MARKS[kind];
  const fixed = { [INK]: "#1a1a1a", [PAPER]: "#ffffff" };
  const [face, edge] = colours.map((name) =>
    ([INK, PAPER].includes(name) ? (over ? fixed[name] : colour(name)) : name));
  return { symbol, size: size * scale, color: face, line: { color: edge, width: 1.1 } };
}

// A colour of the style sheet, which knows whether it is dark.
export const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Plotly reads some HTML in texts: a user's name must stay what it is.
export const plain = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export const lines = (...texts) => texts.filter((text) => text != null).map(plain).join("<br>");

const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
};

let loading = null;

// Plotly is five megabytes: loaded when the first picture is drawn.
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/plotly.min.js";
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => reject(new Error("Plotly could not be loaded.")));
    document.head.append(script);
  });
  return loading;
}

export async function draw(div, traces, layout) {
  await (await plotly()).react(div, traces, themed(layout), CONFIG);
  // Ticks and legend one by one say little to those who hear: the card tells it in words.
  for (const svg of div.querySelectorAll(".main-svg")) svg.setAttribute("aria-hidden", "true");
}

export function erase(div) {
  if (div.data) Plotly.purge(div);
}

export function refit(div) {
  if (div.data && div.offsetWidth) Plotly.Plots.resize(div);
}

// The layout with our colours and type, each axis dressed alike.
function themed(layout) {
  const axes = {};
  for (const [name, axis] of Object.entries({ xaxis: {}, yaxis: {}, ...layout })) {
    if (!/^[xy]axis\d*$/.test(name)) continue;
    axes[name] = {
      gridcolor: colour("grid"),
      linecolor: colour("line"),
      zerolinecolor: colour("line"),
      automargin: true,
      ...axis,
      ...(axis.title ? { title: { standoff: 8, ...axis.title } } : {}),
    };
  }
  return {
    height: 380,
    margin: { l: 56, r: 16, t: 34, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { align: "left", font: { size: 12 } },
    hovermode: "closest",
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" },
    uirevision: "kept",
    ...layout,
    ...axes,
  };
}

// The axis of a parameter: where its values lie, and how it is labelled.
export function axisOf(parameter) {
  const title = { text: plain(parameter.name) };
  if (parameter.choices) {
    return {
      title,
      tickvals: parameter.choices.map((_, k) => k),
      ticktext: parameter.choices.map((choice) => plain(choice)),
      range: [-0.5, parameter.choices.length - 0.5],
      zeroline: false,
    };
  }
  const ends = [Number(parameter.low), Number(parameter.high)];
  if (!parameter.log) {
    const whole = parameter.type === "integer" && ends[1] - ends[0] <= 12;
    return { title, range: ends, zeroline: false, ...(whole ? { dtick: parameter.step } : {}) };
  }
  const range = ends.map(Math.log10);
  return { title, type: "log", range, exponentformat: "power",
    ...(range[1] - range[0] > 2 ? { dtick: Math.ceil((range[1] - range[0]) / 7) } : {}) };
}

// Where a value of a parameter lies on that axis.
export const placeOf = (parameter, value) =>
  parameter.choices ? parameter.choices.findIndex((choice) => choice === value) : Number(value);

// Which values are so bad that the others would be squeezed: a fifth of them at most.
export function farWorse(values, sign) {
  const cost = values.filter((v) => v != null).map((v) => -sign * v).sort((a, b) => a - b);
  if (cost.length < 8) return () => false;
  const at = (share) => {
    const place = share * (cost.length - 1);
    const low = Math.floor(place);
    return cost[low] + (place - low) * ((cost[low + 1] ?? cost[low]) - cost[low]);
  };
  const limit = Math.max(at(0.75) + 1.5 * (at(0.75) - at(0.25)), at(0.8));
  return (value) => -sign * value > limit;
}

// The part of an array of values that is so, as x and y of a trace.
export function where(columns, test) {
  const chosen = [];
  for (let k = 0; k < (Object.values(columns)[0] ?? []).length; k += 1) if (test(k)) chosen.push(k);
  return chosen;
}

export const pick = (values, chosen) => chosen.map((k) => values[k]);
