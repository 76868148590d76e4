// What the model has learnt: which parameters matter, and how well it predicts.

import { BLUE, SKY, colour, lines, plain } from "./charts.js";
import { el, labelled, select, short } from "./dom.js";
import { Picture, thinNote } from "./picture.js";

export function model(app) {
  const { objectives } = app.study;
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
  if (objectives.length > 1) {
    for (const picture of made) {
      const names = objectives.map(({ name }) => [name, name]);
      picture.options = { name: objectives[0].name };
      picture.controls.append(labelled("Objective",
        select(names, objectives[0].name, (name) => picture.choose({ name }))));
    }
  }
  return { title: "Model", pictures: made, element: el("div", { class: "cards" },
    made.map((picture) => picture.element)) };
}

function importance(columns) {
  const { parameter, first, total } = columns;
  const names = parameter.map((name) => plain(name));
  const bars = (name, values, errors, fill) => ({
    type: "bar", orientation: "h", name, y: names, x: values, marker: { color: fill },
    error_x: { type: "data", array: errors, color: colour("text"), thickness: 1.2, width: 3 },
    text: parameter.map((of, k) => lines(of, `${name}: ${short(values[k], 3)} ± ${short(errors[k], 2)}`)),
    textposition: "none", hoverinfo: "text",
  });
  return {
    traces: [
      bars("with others", total, columns.total_error, SKY),
      bars("alone", first, columns.first_error, BLUE),
    ],
    note: "The share of the model's variation that a parameter explains alone, and with others "
      + "(Sobol indices, with standard errors).",
    layout: {
      height: Math.max(260, 110 + 46 * names.length),
      barmode: "group",
      xaxis: { title: { text: "share of variance" }, rangemode: "tozero" },
      yaxis: { autorange: "reversed", type: "category", ticksuffix: " " },
      legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", traceorder: "reversed" },
    },
  };
}

function calibration(columns, facts) {
  const { trial, observed, predicted } = columns;
  const all = [...observed, ...predicted].filter((value) => value != null);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const pad = 0.08 * (high - low || Math.abs(high) || 1);
  const ends = [low - pad, high + pad]; // intervals may go beyond
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  return {
    traces: [
      { mode: "lines", x: ends, y: ends, hoverinfo: "skip",
        line: { color: colour("muted"), width: 1.2, dash: "dash" } },
      { mode: "markers", x: predicted, y: observed, hoverinfo: "text",
        text: trial.map((number, k) => lines(`trial ${number}`,
          `predicted ${short(predicted[k])}, 95 %: ${short(columns.low_95[k])} to ${short(columns.high_95[k])}`,
          `observed ${short(observed[k])}`)),
        error_x: { type: "data", symmetric: false, color: SKY, thickness: 1.3, width: 0,
          array: columns.high_95.map((high, k) => high - predicted[k]),
          arrayminus: columns.low_95.map((low, k) => predicted[k] - low) },
        marker: { size: 7, color: colour("hollow"), line: { color: colour("accent"), width: 1.4 } } },
    ],
    note: `${thinNote(columns, facts)}Predicted from the other trials: ${percent(facts.coverage_68)} of `
      + `what was observed lies in its 68 % interval, ${percent(facts.coverage_95)} in its 95 % interval.`,
    layout: {
      showlegend: false,
      xaxis: { title: { text: `predicted ${plain(facts.name)}` }, zeroline: false, range: ends },
      yaxis: { title: { text: `observed ${plain(facts.name)}` }, zeroline: false, range: ends },
      uirevision: facts.name,
    },
  };
}
