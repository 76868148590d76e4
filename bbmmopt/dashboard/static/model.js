// What the model has learnt: which parameters matter, and how well it predicts.

import { calibration } from "./calibration.js";
import { SKY, colour, lines, plain } from "./charts.js";
import { el, labelled, select, short } from "./dom.js";
import { Picture } from "./picture.js";
import { outputs } from "./space.js";

const FAINT = "rgba(86,180,233,0.3)"; // of SKY, in light and dark

export function model(app) {
  const names = outputs(app.study).map(({ name }) => [name, name]);
  const made = [
    new Picture(app, "importance", "Importance of parameters", {
      part: "told",
      about: "How much of the variation each parameter explains",
      render: importance,
    }),
    new Picture(app, "calibration", "Leave one out", {
      part: "told",
      about: "What the model predicts for each trial from the others, against what was observed",
      render: calibration,
    }),
  ];
  if (names.length > 1) {
    const [first] = names[0];
    for (const picture of made) {
      picture.options = { name: first };
      picture.controls.append(labelled("Output", select(names, first, (name) => picture.choose({ name }))));
    }
  }
  return { title: "Model", pictures: made, element: el("div", { class: "cards" },
    made.map((picture) => picture.element)) };
}

function importance(columns, facts) {
  const { parameter, first, total } = columns;
  const names = parameter.map((name) => plain(name));
  const bars = (name, column, fill) => {
    // An index of 0 may be estimated as a little less.
    const values = columns[column].map((value) => Math.max(0, value));
    const errors = columns[`${column}_error`];
    return {
      type: "bar", orientation: "h", name, y: names, x: values,
      marker: { color: fill, line: { color: colour("muted"), width: 0.6 } },
      error_x: { type: "data", symmetric: false, array: errors, color: colour("text"),
        arrayminus: errors.map((error, k) => Math.min(error, values[k])), thickness: 1.2, width: 3 },
      text: parameter.map((of, k) => lines(of, `${name}: ${short(values[k], 3)} ± ${short(errors[k], 2)}`)),
      textposition: "none", hoverinfo: "text",
    };
  };
  const notes = ["Whiskers: one standard error.",
    facts.warped ? "Variance of targets as the model warps them." : null,
    facts.constrained
      ? "Over points that meet the constraints; what parameters share counts for each." : null];
  return {
    // What parameters do together is not defined where the constraints tie them to each other.
    traces: [...(facts.constrained ? [] : [bars("with others (total)", "total", FAINT)]),
      bars("by itself (first order)", "first", SKY)],
    note: notes.filter(Boolean).join(" "),
    words: parameter.map((name, k) =>
      `${name}: by itself ${short(Math.max(0, first[k]), 2)}${
        facts.constrained ? "" : `, with others ${short(Math.max(0, total[k]), 2)}`}`).join("; "),
    layout: {
      height: Math.max(260, 110 + 46 * names.length),
      barmode: "group",
      xaxis: { title: { text: "share of the variance" }, rangemode: "tozero" },
      yaxis: { autorange: "reversed", type: "category", ticksuffix: " " },
      legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", traceorder: "reversed" },
    },
  };
}
