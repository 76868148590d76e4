// The history of a study, and its points as parallel coordinates.

import { GREY, VERMILION, colour, farWorse, lines, mark, pick, plain, where } from "./charts.js";
import { el, labelled, select, short } from "./dom.js";
import { Picture, thinNote } from "./picture.js";
import { parallel } from "./parallel.js";

const MANY = 600; // trials

export function overview(app) {
  const made = [history(app), parallel(app)];
  return { title: "Overview", pictures: made, element: el("div", { class: "cards" },
    made.map((picture) => picture.element)) };
}

function history(app) {
  const { objectives } = app.study;
  const seen = { name: objectives[0].name, log: false };
  const picture = new Picture(app, "history", "History", {
    wide: true,
    about: "Each trial's value, and the best so far",
    render: (columns, facts) => drawn(columns, facts, seen),
  });
  if (objectives.length > 1) {
    const names = objectives.map(({ name }) => [name, name]);
    picture.controls.append(labelled("Objective", select(names, seen.name, (name) => {
      seen.name = name;
      picture.choose({ name });
    })));
    picture.options = { name: seen.name };
  }
  const log = el("input", { type: "checkbox", change: () => {
    seen.log = log.checked;
    picture.redraw();
  } });
  picture.controls.append(labelled("Log scale", log));
  return picture;
}

function drawn(columns, facts, { name, log }) {
  const values = columns[`values.${name}`];
  const sign = facts.direction === "maximize" ? 1 : -1;
  const isLog = log && values.every((value) => value == null || value > 0);
  const far = farWorse(values, sign);
  const many = values.length > MANY; // their outlines would hide each other
  const dot = { ...mark("observed", { scale: 0.5 }), color: GREY, line: { width: 0 } };
  const look = many ? dot : mark("observed");
  const { trial, state, feasible, best } = columns;
  const inScale = values.filter((value) => value != null && !far(value));
  const [low, high] = [Math.min(...inScale), Math.max(...inScale)];
  const edge = sign > 0 ? 0.02 : 0.98; // the bad one
  const traces = [];
  const add = (label, test, marker, atEdge = false) => {
    const chosen = where(columns, test);
    if (!chosen.length) return;
    traces.push({
      name: label,
      mode: "markers",
      x: pick(trial, chosen),
      y: atEdge ? chosen.map(() => edge) : pick(values, chosen),
      yaxis: atEdge ? "y2" : "y",
      text: chosen.map((k) => lines(`trial ${trial[k]}: ${label}`,
        values[k] == null ? null : `${name} = ${short(values[k])}`)),
      hoverinfo: "text",
      marker,
      cliponaxis: false,
    });
  };
  const told = (k) => state[k] === "complete" && values[k] != null;
  const tick = (fill) => ({ symbol: "line-ns-open", size: 11, color: fill, line: { width: 1.8 } });
  add("value", (k) => told(k) && feasible[k] && !far(values[k]), look);
  add("infeasible", (k) => told(k) && !feasible[k] && !far(values[k]),
    mark("infeasible", { scale: many ? 0.6 : 1 }));
  add("beyond the scale", (k) => told(k) && far(values[k]),
    { ...look, size: many ? 5 : 7.5, symbol: sign > 0 ? "triangle-down" : "triangle-up" }, true);
  add("failed", (k) => state[k] === "failed", tick(VERMILION), true);
  add("stopped early", (k) => state[k] === "pruned", tick(GREY), true);
  const reached = where(columns, (k) => best[k] != null);
  traces.push({
    name: "best so far",
    mode: "lines",
    line: { shape: "hv", color: colour("accent"), width: 2.4 },
    x: pick(trial, reached),
    y: pick(best, reached),
    text: reached.map((k) => lines(`best up to trial ${trial[k]}: ${short(best[k])}`)),
    hoverinfo: "text",
  });
  const last = reached.at(-1);
  const at = last == null ? -1 : values.findIndex((value, k) => value === best[last] && feasible[k]);
  if (at >= 0) {
    traces.push({ name: "best", mode: "markers", x: [trial[at]], y: [values[at]], marker: mark("best"),
      text: [lines(`best: trial ${trial[at]}`, `${name} = ${short(values[at])}`)], hoverinfo: "text" });
  }
  const pad = 0.06 * (high - low || Math.abs(high) || 1);
  const range = isLog ? undefined : [low - pad, high + pad];
  return {
    traces,
    words: at < 0 ? "" : `Best so far: ${name} = ${short(values[at])} in trial ${trial[at]}, at first `
      + `${short(best[reached[0]])}.`,
    note: thinNote(columns, facts) + (log && !isLog ? "Not all values are positive: no log scale." : ""),
    layout: {
      xaxis: { title: { text: "trial" }, rangemode: "tozero", zeroline: false },
      yaxis: { title: { text: `${plain(name)} (${facts.direction}d)` }, type: isLog ? "log" : "linear",
        zeroline: false,
        ...(range && inScale.length ? { range } : {}) },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      uirevision: `${name} ${isLog}`,
      showlegend: true,
    },
  };
}
