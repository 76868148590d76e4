// The Pareto front of two objectives, or of two at a time of several.

import { colour, lines, mark, pick, plain, where } from "./charts.js";
import { el, labelled, select, short } from "./dom.js";
import { Picture, thinNote } from "./picture.js";

export function tradeoffs(app) {
  const { objectives } = app.study;
  const seen = { x: objectives[0], y: objectives[1] };
  const picture = new Picture(app, "pareto", "Pareto front", {
    wide: true,
    about: "Trials by their objectives, and those that no other beats",
    render: (columns, facts) => drawn(columns, facts, seen, objectives.length),
  });
  if (objectives.length > 2) {
    seen.by = objectives[2];
    const names = objectives.map(({ name }) => [name, name]);
    for (const [axis, words] of [["x", "Horizontal"], ["y", "Vertical"], ["by", "Colour"]]) {
      picture.controls.append(labelled(words, select(names, seen[axis].name, (chosen) => {
        seen[axis] = objectives.find(({ name }) => name === chosen);
        picture.redraw();
      })));
    }
  }
  const pictures = objectives.length === 2 ? [picture, belief(app)] : [picture];
  return { title: "Trade-offs", pictures,
    element: el("div", { class: "cards" }, pictures.map(({ element }) => element)) };
}

function drawn(columns, facts, { x, y, by }, count) {
  const [xs, ys] = [columns[`values.${x.name}`], columns[`values.${y.name}`]];
  const { trial, feasible } = columns;
  const isFront = columns.on_front;
  const words = (k) => lines(`trial ${trial[k]}`, ...Object.keys(columns)
    .filter((name) => name.startsWith("values."))
    .map((name) => `${name.slice(7)} = ${short(columns[name][k])}`));
  const traces = [];
  const add = (label, test, extra) => {
    const chosen = where(columns, test);
    if (!chosen.length) return;
    traces.push({ name: label, mode: "markers", x: pick(xs, chosen), y: pick(ys, chosen),
      text: chosen.map(words), hoverinfo: "text", ...extra });
  };
  add("dominated", (k) => feasible[k] && !isFront[k],
    { marker: { ...mark("observed", { scale: 0.8 }), opacity: 0.6 } });
  add("infeasible", (k) => !feasible[k], { marker: mark("infeasible") });
  const front = where(columns, (k) => isFront[k]).sort((a, b) => xs[a] - xs[b]);
  if (count === 2 && front.length) traces.push(steps(front, xs, ys, x, y));
  // A third objective is told by colour.
  const tinted = by && { color: front.map((k) => columns[`values.${by.name}`][k]),
    colorscale: "Viridis", reversescale: by.direction === "minimize",
    colorbar: { title: { text: titleOf(by), side: "right" }, thickness: 13, outlinewidth: 0 } };
  if (front.length) {
    traces.push({ name: "on the front", mode: "markers", x: pick(xs, front), y: pick(ys, front),
      text: front.map(words), hoverinfo: "text", marker: { ...mark("on the front"), ...tinted } });
  }
  const reference = facts.reference_point;
  if (reference) {
    const ink = colour("text");
    traces.push({ name: "reference point", mode: "markers", x: [reference[x.name]],
      y: [reference[y.name]], hoverinfo: "name", visible: "legendonly",
      marker: { symbol: "cross-thin-open", size: 11, color: ink, line: { width: 2, color: ink } } });
  }
  const from = facts.inferred ? ", from a reference point that was found from the front" : "";
  const volume = facts.hypervolume == null ? "" : `Hypervolume ${short(facts.hypervolume)}${from}. `;
  return {
    traces,
    note: `${thinNote(columns, facts)}${front.length} on the front. ${volume}`,
    words: `${front.length} of ${trial.length} trials on the front.`,
    layout: {
      height: 460,
      xaxis: { title: { text: titleOf(x) }, zeroline: false },
      yaxis: { title: { text: titleOf(y) }, zeroline: false },
      uirevision: `${x.name} ${y.name}`,
      showlegend: true,
    },
  };
}

function belief(app) {
  const [x, y] = app.study.objectives;
  return new Picture(app, "belief", "The front that the model expects", {
    wide: true,
    about: "Points on the front of the model, and where the true front may be",
    render: (columns) => believed(columns, x, y),
  });
}

function believed(columns, x, y) {
  const { kind, share, trial } = columns;
  const [xs, ys] = [columns[`values.${x.name}`], columns[`values.${y.name}`]];
  const reached = (of) => where(columns, (k) => kind[k] === "attained" && share[k] === of)
    .sort((a, b) => xs[a] - xs[b]);
  const [most, least] = [0.9, 0.1].map(reached);
  const line = { color: "rgba(86,180,233,0.5)", width: 1 };
  const traces = [];
  if (most.length && least.length) {
    traces.push({ ...steps(most, xs, ys, x, y), line },
      { ...steps(least, xs, ys, x, y), line, fill: "tonexty", fillcolor: "rgba(86,180,233,0.25)",
        name: "80 % band", showlegend: true });
  }
  const params = Object.keys(columns).filter((name) => name.startsWith("params."));
  const add = (name, label, marker) => {
    const chosen = where(columns, (k) => kind[k] === name);
    if (!chosen.length) return;
    traces.push({ name: label, mode: "markers", x: pick(xs, chosen), y: pick(ys, chosen), marker,
      hoverinfo: "text", text: chosen.map((k) => lines(trial[k] == null ? label : `trial ${trial[k]}`,
        ...[[x, xs], [y, ys]].map(([of, values]) => `${of.name} = ${short(values[k])}, 68 %: `
          + `${short(columns[`low.${of.name}`][k])} to ${short(columns[`high.${of.name}`][k])}`),
        ...params.filter((of) => columns[of][k] != null)
          .map((of) => `${of.slice(7)} = ${short(columns[of][k])}`))) });
  };
  add("expected", "expected front", { size: 5, color: colour("accent") });
  add("pending", "pending", mark("pending"));
  return {
    traces,
    note: "The true front lies in the band with 80 %. Point at one to see where it would be found.",
    words: `${where(columns, (k) => kind[k] === "expected").length} points.`,
    layout: {
      height: 420,
      xaxis: { title: { text: titleOf(x) }, zeroline: false },
      yaxis: { title: { text: titleOf(y) }, zeroline: false },
      showlegend: true,
    },
  };
}

const titleOf = ({ name, direction }) =>
  `${plain(name)} (${direction === "maximize" ? "large" : "small"} is good)`;

// The border of what the front beats: its points, and corners between them.
function steps(front, xs, ys, x, y) {
  const better = (direction) => (direction === "maximize" ? Math.min : Math.max);
  const [px, py] = [[], []];
  front.forEach((k, at) => {
    if (at) {
      const before = front[at - 1];
      px.push(better(x.direction)(xs[before], xs[k]));
      py.push(better(y.direction)(ys[before], ys[k]));
    }
    px.push(xs[k]);
    py.push(ys[k]);
  });
  return { name: "front", mode: "lines", x: px, y: py, hoverinfo: "skip", showlegend: false,
    line: { color: colour("text"), width: 1.4 } };
}
