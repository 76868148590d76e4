// Learning curves, and who worked when.

import {
  BLUE, GREY, ORANGE, PURPLE, SKY, VERMILION, colour, lines, mark, pick, plain, where,
} from "./charts.js";
import { duration, el, labelled, short } from "./dom.js";
import { Picture, thinNote } from "./picture.js";

// Words, colour and hatching of a state, as in plot_curves and plot_timeline.
const LOOKS = {
  complete: ["complete", SKY, ""],
  pruned: ["stopped early", GREY, "."],
  failed: ["failed", VERMILION, "/"],
  retried: ["went wrong, was tried again", PURPLE, "|"],
  "taken over": ["lost, was taken over", "#ffffff", "x"],
  running: ["running", ORANGE, "\\"],
};

export function curves(app) {
  const seen = { log: false };
  const picture = new Picture(app, "curves", "Learning curves", {
    part: "everything",
    wide: true,
    about: "What each trial reported on its way",
    render: (columns, facts) => drawnCurves(columns, facts, seen),
  });
  const log = el("input", { type: "checkbox", change: () => {
    seen.log = log.checked;
    picture.redraw();
  } });
  picture.controls.append(labelled("Log scale", log));
  return { title: "Curves", pictures: [picture],
    element: el("div", { class: "cards" }, picture.element) };
}

export function timeline(app) {
  const picture = new Picture(app, "timeline", "Timeline", {
    wide: true,
    about: "Which worker ran which trial when",
    render: drawnTimeline,
  });
  return { title: "Timeline", pictures: [picture],
    element: el("div", { class: "cards" }, picture.element) };
}

function drawnCurves(columns, facts, { log }) {
  const { trial, kind, state } = columns;
  const isReport = (k) => kind[k] === "reported";
  const traces = Object.keys(LOOKS)
    .map((name) => oneState(columns, facts, name, where(columns, (k) => isReport(k) && state[k] === name)))
    .filter(Boolean);
  const best = where(columns, (k) => isReport(k) && trial[k] === facts.best);
  if (best.length) {
    traces.push({ ...path(columns, best, "best"), name: `best (trial ${facts.best})`,
      line: { color: BLUE, width: 2.6 } });
    const end = best.at(-1);
    traces.push({ ...path(columns, [end], "best"), mode: "markers", marker: mark("best"),
      showlegend: false });
  }
  const ends = where(columns, (k) => kind[k] === "forecast");
  if (ends.length) {
    traces.push({ ...path(columns, ends, "forecast"), name: "forecast of its end",
      mode: "markers",
      marker: { color: colour("hollow"), symbol: "square", size: 6, line: { color: GREY, width: 1.2 } },
      error_y: { type: "data", symmetric: false, color: GREY, thickness: 1.2, width: 3,
        array: ends.map((k) => (columns.high[k] ?? columns.value[k]) - columns.value[k]),
        arrayminus: ends.map((k) => columns.value[k] - (columns.low[k] ?? columns.value[k])) } });
  }
  return {
    traces,
    note: thinNote(columns, facts, ", the latest and the best"),
    words: `${new Set(trial).size} trials${best.length ? `, trial ${facts.best} the best` : ""}.`,
    layout: { height: 440, showlegend: true,
      xaxis: { title: { text: "step" }, zeroline: false },
      yaxis: { title: { text: `${plain(facts.name)} (${facts.direction}d)` }, zeroline: false,
        type: log ? "log" : "linear" } },
  };
}

// The curves of all trials in a state, as one line with gaps.
function oneState(columns, facts, name, part) {
  if (!part.length) return null;
  const { trial } = columns;
  const gaps = part.flatMap((k, at) => (at && trial[part[at - 1]] !== trial[k] ? [null, k] : [k]));
  const [words, color] = LOOKS[name];
  return { ...path(columns, gaps, words), name: words, opacity: 0.8, line: { color, width: 1.3 } };
}

function path({ trial, step, value }, part, what) {
  const isShort = part.filter((k) => k != null).length < 3;
  return {
    mode: isShort ? "lines+markers" : "lines", marker: { size: 5 }, hoverinfo: "text",
    x: part.map((k) => (k == null ? null : step[k])),
    y: part.map((k) => (k == null ? null : value[k])),
    text: part.map((k) => (k == null ? ""
      : lines(`trial ${trial[k]} (${what}), step ${step[k]}`, short(value[k])))),
  };
}

function drawnTimeline(columns, facts) {
  const { trial, attempt, worker, started, finished, state, row } = columns;
  const now = Math.max(facts.until, Date.now() / 1000);
  const local = (seconds) => seconds * 1000 - new Date(seconds * 1000).getTimezoneOffset() * 60000;
  const traces = Object.entries(LOOKS).map(([name, [words, fill, shape]]) => {
    const part = where(columns, (k) => state[k] === name);
    // Whoever has not been heard of for long is not drawn as if he still worked.
    const end = (k) => finished[k] ?? (facts.silent == null ? now : facts.until);
    return part.length && {
      type: "bar", orientation: "h", name: words, offset: -0.36, width: 0.72,
      y: pick(row, part),
      base: part.map((k) => local(started[k])),
      x: part.map((k) => Math.max(1, 1000 * (end(k) - started[k]))),
      text: part.map((k) => lines(`trial ${trial[k]}: ${words}`,
        attempt[k] > 1 ? `attempt ${attempt[k]}` : null,
        `${worker[k] ?? "no worker named"}, ${duration(end(k) - started[k])}`)),
      hoverinfo: "text", textposition: "none",
      // The line shows what took next to no time too.
      marker: { color: fill, line: { color: shape === "x" ? GREY : fill, width: 1 },
        pattern: { shape, fillmode: "overlay", fgcolor: "#1a1a1a", fgopacity: 0.5, size: 7,
          solidity: 0.15 } },
    };
  }).filter(Boolean);
  const rows = Math.max(...row) + 1;
  return {
    traces,
    note: thinNote(columns, facts, ", the latest") + silence(facts),
    words: `${new Set(trial).size} trials of ${facts.workers.length} `
      + `worker${facts.workers.length === 1 ? "" : "s"}.`,
    layout: {
      height: Math.max(220, 110 + 26 * rows),
      barmode: "overlay",
      showlegend: true,
      xaxis: { type: "date" },
      yaxis: { ...names(facts.workers), range: [rows - 0.4, -0.6], zeroline: false,
        showgrid: false, ticks: "" },
    },
  };
}

const silence = ({ silent }) =>
  (silent == null ? "" : `Running trials gave no sign of life for ${duration(silent)}.`);

// A name stands at the middle of its rows.
function names(workers) {
  let first = 0;
  const tickvals = workers.map(({ rows }) => {
    first += rows;
    return first - (rows + 1) / 2;
  });
  return { tickvals, ticktext: workers.map(({ label }) => plain(label)) };
}
