// Leave one out: each trial as the model predicts it from all others, as plot_calibration draws it.

import { BLUE, GREY, SKY, VERMILION, colour, lines, pick, plain, where } from "./charts.js";
import { short } from "./dom.js";
import { thinNote } from "./picture.js";

const BEYOND = 1.959964; // standard deviations at the ends of the 95 % band
const MOST_NAMED = 12; // trials that get their number written beside them
const MANY = 150; // trials, from which on marks are smaller

export function calibration(columns, facts) {
  const { trial, observed, predicted, z, counts } = columns;
  const ends = view(columns);
  const small = trial.length > MANY;
  // What the model cuts off may be far out of the picture: it stands at its edge.
  const across = observed.map((value) => Math.min(Math.max(value, ends[0]), ends[1]));
  const text = trial.map((number, k) => lines(`trial ${number}`, `observed ${short(observed[k])}`,
    `predicted ${short(predicted[k])}, 95 %: ${short(columns.low_95[k])} to ${short(columns.high_95[k])}`,
    counts[k] ? null : "cut off by the model: does not count"));
  const marks = (name, symbol, color, test) => {
    const chosen = where(columns, test);
    return { name, mode: "markers", x: pick(across, chosen), y: pick(predicted, chosen),
      text: pick(text, chosen), hoverinfo: "text", cliponaxis: false,
      marker: { symbol, size: small ? 4.5 : 7, color, line: { color: colour("mark"), width: 1 } } };
  };
  const counted = where(columns, (k) => counts[k]);
  const bars = (level, width, color) => ({
    name: `${level} % band`, mode: "lines", hoverinfo: "skip", line: { color, width },
    x: counted.flatMap((k) => [across[k], across[k], null]),
    y: counted.flatMap((k) => [columns[`low_${level}`][k], columns[`high_${level}`][k], null]),
  });
  const isOut = (k) => counts[k] && Math.abs(z[k]) > BEYOND;
  const out = where(columns, isOut).sort((a, b) => Math.abs(z[b]) - Math.abs(z[a]));
  const said = coverage(facts);
  return {
    traces: [
      { name: "predicted = observed", mode: "lines", x: ends, y: ends, hoverinfo: "skip",
        line: { color: GREY, width: 1.2, dash: "dash" } },
      bars(95, small ? 0.8 : 1.2, BLUE),
      bars(68, small ? 2 : 3, SKY),
      marks("within 95 %", "circle", colour("hollow"), (k) => counts[k] && !isOut(k)),
      marks("beyond 95 %", "square", VERMILION, isOut),
      marks("cut off by the model", "x", "#b3b3b3", (k) => !counts[k]),
    ].filter(({ x }) => x.length),
    note: thinNote(columns, facts) + said,
    words: said,
    layout: {
      height: 420,
      showlegend: true,
      xaxis: { title: { text: `observed ${plain(facts.name)}` }, zeroline: false, range: ends },
      yaxis: { title: { text: "predicted without it" }, zeroline: false, range: ends },
      annotations: out.slice(0, MOST_NAMED).map((k) => ({ x: across[k], y: predicted[k],
        text: String(trial[k]), showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 3,
        font: { size: 11 } })),
      uirevision: facts.name,
    },
  };
}

// The same limits for both axes: values that count and predictions whole, bands in part.
function view({ observed, predicted, low_95, high_95, counts }) {
  const all = observed.map((_, k) => k);
  const counted = counts.includes(true) ? all.filter((k) => counts[k]) : all;
  const points = counted.flatMap((k) => [observed[k], predicted[k]]);
  const [low, high] = ends(points);
  const widths = pick(high_95, all).map((top, k) => top - low_95[k]).sort((a, b) => a - b);
  const span = high - low || widths[Math.floor(widths.length / 2)] || Math.abs(high) || 1;
  const [bottom, top] = ends(counted.flatMap((k) => [low_95[k], high_95[k]]));
  return [Math.max(low - 0.5 * span, Math.min(low, bottom)) - 0.04 * span,
    Math.min(high + 0.5 * span, Math.max(high, top)) + 0.04 * span];
}

const ends = (values) =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

function coverage({ coverage_68, coverage_95, n, of, rmse, nlpd }) {
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const several = `${of} trial${of === 1 ? "" : "s"}`;
  return `68 % bands hold ${percent(coverage_68)}, 95 % bands ${percent(coverage_95)} of `
    + `${n === of ? several : `${n} of ${several}`}. RMSE ${short(rmse, 3)}, NLPD ${short(nlpd, 3)}.`;
}
