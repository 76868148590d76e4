// Parallel coordinates: a line for each complete trial through its parameters and values.

import { STATES, colour, farWorse, lines, plain } from "./charts.js";
import { el, labelled, pointText, select, short } from "./dom.js";
import { Picture, thinNote } from "./picture.js";
import { toUnit } from "./space.js";

const SHADES = 12; // colours, so that thousands of lines are a dozen traces
const OFF = -0.13; // where a line runs that does not have a parameter
const BEYOND = 0.035; // how far past the end of its axis a value stands that is far worse

export function parallel(app) {
  const { objectives } = app.study;
  const seen = { by: objectives[0].name, share: 1 };
  const picture = new Picture(app, "parallel", "Parallel coordinates", {
    wide: true,
    about: "A line for each complete trial through its parameters and values",
    render: (columns, facts) => drawn(app.study, columns, facts, seen),
  });
  if (objectives.length > 1) {
    const names = objectives.map(({ name }) => [name, name]);
    picture.controls.append(labelled("Colour", select(names, seen.by, (name) => {
      seen.by = name;
      picture.redraw();
    })));
  }
  const words = el("output", {}, "all");
  const share = el("input", { type: "range", min: 1, max: 20, value: 20, input: () => {
    seen.share = Number(share.value) / 20;
    words.textContent = seen.share === 1 ? "all" : `best ${Math.round(100 * seen.share)} %`;
    picture.redraw();
  } });
  const field = labelled("Show", share);
  field.append(words);
  picture.controls.append(field);
  return picture;
}

function drawn(study, columns, facts, { by, share }) {
  const axes = [
    ...study.parameters.filter((p) => p.kind !== "fixed").map((p) => parameterAxis(p, columns)),
    ...study.objectives.map((of) => valueAxis(of, columns[`values.${of.name}`])),
  ];
  const objective = study.objectives.find(({ name }) => name === by);
  const sign = objective.direction === "maximize" ? 1 : -1;
  const values = columns[`values.${by}`];
  const ranked = values.map((_, k) => k).filter((k) => values[k] != null)
    .sort((a, b) => sign * (values[a] - values[b])); // worst first: the best are drawn on top
  if (!ranked.length) return { note: "No trial is complete yet." };
  const first = Math.floor((1 - share) * ranked.length);
  const traces = [];
  for (let shade = 0; shade < SHADES; shade += 1) {
    const part = ranked.filter((_, rank) =>
      rank >= first && shadeOf(rank, ranked.length) === shade);
    if (part.length) traces.push(trace(part, axes, columns, shade, ranked.length));
  }
  return {
    traces,
    width: axes.length * (axes.some(({ ticks }) => ticks.some(([, value]) =>
      String(value).length > 7 && typeof value === "string")) ? 112 : 74),
    words: `${ranked.length} trials, ${axes.length} axes.`,
    note: [thinNote(columns, facts).trim(), `Strong lines are the best in ${by}.`,
      ...axes.filter(({ beyond }) => beyond).map(({ name, beyond }) =>
        `${beyond} of ${name} far beyond the scale.`)].filter(Boolean).join(" "),
    layout: { ...dressed(axes), showlegend: false },
  };
}

const shadeOf = (rank, count) => Math.min(SHADES - 1, Math.floor((SHADES * rank) / count));

function trace(part, axes, columns, shade, count) {
  const [x, y, text] = [[], [], []];
  for (const k of part) {
    const params = Object.fromEntries(axes.map((axis) => [axis.name, axis.values?.[k]])
      .filter(([, value]) => value != null));
    const words = lines(`trial ${columns.trial[k]}`, pointText(params));
    axes.forEach((axis, at) => {
      x.push(at);
      y.push(axis.place(k));
      text.push(words);
    });
    x.push(null);
    y.push(null);
    text.push("");
  }
  return {
    x, y, text, hoverinfo: "text", mode: "lines",
    line: { color: shadeColour(shade), width: shade > SHADES - 3 ? 1.8 : 1 },
    opacity: (0.35 + (0.6 * shade) / SHADES) * Math.min(1, (200 / count) ** 0.4),
  };
}

// From grey to the colour of what is good, which stands out in light and dark.
function shadeColour(shade) {
  const t = (shade / (SHADES - 1)) ** 3;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [from, to] = dark ? [[74, 82, 96], [240, 228, 66]] : [[196, 203, 212], [0, 82, 140]];
  return `rgb(${from.map((c, i) => Math.round(c + t * (to[i] - c))).join(",")})`;
}

function parameterAxis(p, columns) {
  const values = columns[`params.${p.name}`] ?? [];
  const ticks = p.choices
    ? p.choices.map((choice, k) => [p.choices.length < 2 ? 0.5 : k / (p.choices.length - 1), choice])
    : [[0, p.low], [1, p.high]];
  const spread = p.choices ? 0.5 / p.choices.length : 0;
  return {
    name: p.name, ticks, values,
    // Trials of the same choice would hide each other.
    place: (k) => values[k] == null ? OFF
      : toUnit(p, values[k]) + spread * (((columns.trial[k] * 0.618) % 1) - 0.5) * 0.4,
    optional: p.when != null,
  };
}

// Over all values but those that are far worse, which stand beyond the end.
function valueAxis({ name, direction }, values) {
  const known = values.filter((value) => value != null);
  const sign = direction === "maximize" ? 1 : -1;
  const far = farWorse(known, sign);
  const within = known.filter((value) => !far(value));
  const [low, high] = [Math.min(...within), Math.max(...within)];
  const place = (value) => {
    if (value == null) return OFF;
    if (far(value)) return sign > 0 ? -BEYOND : 1 + BEYOND;
    return high > low ? (value - low) / (high - low) : 0.5;
  };
  return {
    name, values, ticks: [[0, low], [1, high]], place: (k) => place(values[k]),
    beyond: known.length - within.length, optional: false, isValue: true,
  };
}

function dressed(axes) {
  const annotations = [];
  axes.forEach((axis, at) => {
    for (const [place, value] of thin(axis.ticks)) {
      annotations.push({ x: at, y: place, text: plain(clipped(short(value, 4), 14)), xanchor: "left",
        xshift: 5, showarrow: false, font: { size: 11, color: colour("muted") },
        bgcolor: colour("panel"), borderpad: 1, opacity: 0.9 });
    }
    if (axis.optional) {
      annotations.push({ x: at, y: OFF, text: "not active", xanchor: "left", xshift: 5,
        showarrow: false, bgcolor: colour("panel"), borderpad: 1, opacity: 0.9,
        font: { size: 10, color: colour("muted") } });
    }
  });
  return {
    height: 400,
    margin: { l: 30, r: 84, t: 44, b: 16 },
    annotations,
    shapes: axes.map((axis, at) => ({ type: "line", x0: at, x1: at, y0: 0, y1: 1, layer: "above",
      line: { color: axis.isValue ? STATES.complete : colour("muted"), width: 1.3 } })),
    xaxis: { tickvals: axes.map((_, at) => at), ticktext: axes.map(({ name }) =>
      plain(clipped(name, 18))), side: "top", showgrid: false, zeroline: false, fixedrange: true,
      range: [-0.15, axes.length - 1 + 0.12], ticklen: 0,
      showline: false },
    yaxis: { visible: false, range: [axes.some(({ optional }) => optional) ? -0.2 : -0.07, 1.07],
      fixedrange: true },
  };
}

// At most nine labels along an axis.
const thin = (ticks) => ticks.filter((_, k) => k % Math.ceil(ticks.length / 9) === 0);
const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
