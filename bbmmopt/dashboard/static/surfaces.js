// A curve with its bands, or a surface in colours, with the trials that lie there.

import { BLUE, SKY, VERMILION, colour, lines, mark as looks, plain } from "./charts.js";
import { short } from "./dom.js";

// A log acquisition falls by thousands near trials: what is e^-12 of the largest value is always
// told apart, what is e^-100 of it only if it is among the largest quarter.
const KEPT = 12;
const CUT = 100;
const PLAIN = ["upper confidence bound", "posterior mean"];

export function curve(columns, facts, view) {
  const { x, isPosterior, output } = view;
  const at = columns[`params.${x.name}`].map((value) => view.placeOf(x, value));
  const label = x.choices ? columns[`params.${x.name}`] : at.map((value) => short(value));
  const traces = isPosterior ? bands(columns, view, at, label) : [values(columns, facts, view, at, label)];
  const vertical = isPosterior && view.spread === "expected";
  if (vertical && facts.bound != null) {
    traces.push({ name: boundOf(facts, view), mode: "lines", hoverinfo: "name",
      x: [at[0], at.at(-1)], y: [facts.bound, facts.bound],
      line: { color: colour("text"), width: 1.5, dash: "dash" } });
  }
  const told = (mark) => mark.values?.[output.name] ?? mark.constraints[output.name];
  traces.push(...marks(facts, view, vertical ? told : () => null));
  const { next } = facts;
  const shapes = isPosterior || next?.[x.name] == null ? [] : [{ type: "line", yref: "paper", y0: 0, y1: 1,
    x0: view.placeOf(x, next[x.name]), x1: view.placeOf(x, next[x.name]),
    opacity: isOn(next, facts) ? 1 : 0.45, line: { color: VERMILION, width: 2, dash: "dot" } }];
  return {
    traces,
    layout: {
      shapes,
      showlegend: true,
      xaxis: view.axisOf(x),
      yaxis: { title: { text: plain(isPosterior ? titleOf(view) : facts.acquisition) },
        zeroline: false, ...(isPosterior ? {} : { range: visible(columns.value, facts) }) },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      uirevision: `${x.name}`,
    },
  };
}

function bands(columns, view, at, label) {
  const { median, low_68, high_68, low_95, high_95 } = columns;
  const words = median.map((value, k) => lines(`${view.x.name} = ${label[k]}`,
    `median ${short(value)}`, `68 %: ${short(low_68[k])} to ${short(high_68[k])}`,
    `95 %: ${short(low_95[k])} to ${short(high_95[k])}`));
  if (view.spread === "uncertainty") {
    const half = high_68.map((high, k) => (high - low_68[k]) / 2);
    return [line(view, "half of the 68 % band", at, half, words)];
  }
  if (view.x.choices) {
    const bar = (name, low, high, width, color) => ({ name, x: at, y: median, mode: "markers",
      hoverinfo: "text", text: words, marker: { size: 9, color: colour("accent") },
      error_y: { type: "data", symmetric: false, array: high.map((v, k) => v - median[k]),
        arrayminus: low.map((v, k) => median[k] - v), thickness: width, width: 0, color } });
    return [bar("95 % band", low_95, high_95, 5, SKY), bar("68 % band", low_68, high_68, 9, BLUE)];
  }
  const band = (name, low, high, fillcolor) => ({ name, x: [...at, ...at.toReversed()],
    y: [...high, ...low.toReversed()], fill: "toself", fillcolor, mode: "lines", hoverinfo: "skip",
    line: { width: 0, color: fillcolor } });
  return [band("95 % band", low_95, high_95, "rgba(86,180,233,0.22)"),
    band("68 % band", low_68, high_68, "rgba(86,180,233,0.4)"),
    line(view, "median", at, median, words)];
}

function values(columns, facts, view, at, label) {
  const words = columns.value.map((value, k) =>
    lines(`${view.x.name} = ${label[k]}`, `${facts.acquisition}: ${short(value)}`));
  return line(view, facts.acquisition, at, allowed(columns.value, columns), words);
}

const line = (view, name, x, y, text) => ({ name: plain(name), x, y, text, hoverinfo: "text",
  mode: view.x.choices ? "markers" : "lines", line: { color: colour("accent"), width: 2 },
  marker: { size: 9, color: colour("accent") } });

export function surface(columns, facts, view) {
  const { x, y, isPosterior } = view;
  const [xs, ys] = [columns[`params.${x.name}`], columns[`params.${y.name}`]];
  const [columnsOf, rowsOf] = [[...new Set(xs)], [...new Set(ys)]];
  const [column, row] = [index(columnsOf), index(rowsOf)];
  const numbers = allowed(isPosterior ? posteriorValues(columns, view) : columns.value, columns);
  const grid = (list) => {
    const made = rowsOf.map(() => columnsOf.map(() => null));
    list.forEach((value, k) => { made[row.get(ys[k])][column.get(xs[k])] = value; });
    return made;
  };
  const z = grid(numbers);
  const [low, high] = isPosterior ? extremes(numbers) : visible(numbers, facts, 0.25);
  const bright = isPosterior && view.spread === "expected" && view.output.direction === "minimize";
  const words = rowsOf.map((of, i) => columnsOf.map((at, j) => lines(`${x.name} = ${short(at)}`,
    `${y.name} = ${short(of)}`, `${isPosterior ? titleOf(view) : facts.acquisition}: ${short(z[i][j])}`)));
  const isCells = [x, y].some((p) => p.choices);
  const trace = {
    type: isCells ? "heatmap" : "contour",
    x: columnsOf.map((value) => view.placeOf(x, value)),
    y: rowsOf.map((value) => view.placeOf(y, value)),
    z, text: words, hoverinfo: "text", zmin: low, zmax: high, zauto: false,
    colorscale: isPosterior ? "Cividis" : "Viridis", reversescale: bright,
    colorbar: { title: { text: plain(isPosterior ? titleOf(view) : facts.acquisition), side: "right" },
      thickness: 13, outlinewidth: 0, ticklen: 3 },
    ...(isCells ? {} : { contours: { coloring: "heatmap" }, ncontours: 16,
      line: { width: 0.4, color: "rgba(0,0,0,0.35)" } }),
  };
  const isBound = isPosterior && view.spread === "expected" && facts.bound != null;
  const dashed = isBound ? level(columns.median, facts.bound, trace, grid)
    : level(columns.chance, 0.5, trace, grid);
  const traces = [trace, ...dashed, ...marks(facts, view, (mark) => view.placeOf(y, mark.y))];
  const { next } = facts;
  if (!isPosterior && next?.[x.name] != null && next?.[y.name] != null) {
    const on = isOn(next, facts);
    traces.push({ name: on ? "next" : "next, off this slice", mode: "markers",
      opacity: on ? 1 : 0.5, x: [view.placeOf(x, next[x.name])],
      y: [view.placeOf(y, next[y.name])], hoverinfo: "name", cliponaxis: false,
      marker: looks("next", { over: true }) });
  }
  const said = dashed.length ? `Dashed: ${isBound ? `the ${boundOf(facts, view)}`
    : "the constraints on outcomes have an even chance to hold"}.` : null;
  return { traces, said, layout: { xaxis: { ...view.axisOf(x), showgrid: false },
    yaxis: { ...view.axisOf(y), showgrid: false }, showlegend: true,
    uirevision: `${x.name} ${y.name}`, margin: { l: 56, r: 8, t: 34, b: 44 } } };
}

// Whether a point lies on the slice, and is not only projected onto it.
const isOn = (params, { held }) =>
  Object.entries(held).every(([name, value]) => params[name] === value);

// What the constraints of the space rule out stays blank.
const allowed = (numbers, columns) =>
  (columns.allowed ? numbers.map((value, k) => (columns.allowed[k] ? value : null)) : numbers);

const boundOf = ({ bound }, { output }) =>
  `bound ${output.direction === "maximize" ? "≥" : "≤"} ${short(bound)}`;

// A dashed line where values reach a level.
function level(numbers, at, { x, y }, grid) {
  if (!numbers || numbers.every((value) => value > at) || numbers.every((value) => value < at)) return [];
  return [{ type: "contour", x, y, z: grid(numbers),
    showscale: false, showlegend: false, hoverinfo: "skip",
    contours: { start: at, end: at, size: 1, coloring: "none" },
    line: { color: "#ffffff", width: 2, dash: "dash" } }];
}

const index = (values) => new Map(values.map((value, k) => [value, k]));

function posteriorValues(columns, { spread }) {
  if (spread === "expected") return columns.median;
  return columns.high_68.map((high, k) => (high - columns.low_68[k]) / 2);
}

const titleOf = ({ output, spread }) =>
  spread === "expected" ? output.name : `half of the 68 % band of ${output.name}`;

function extremes(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of numbers) {
    if (value == null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

// The range that is told apart.
function visible(numbers, { acquisition }, share = 0.4) {
  const [least, high] = extremes(numbers);
  let low = least;
  if (!PLAIN.includes(acquisition)) {
    const sorted = numbers.filter((value) => value != null).sort((a, b) => a - b);
    const at = (part) => sorted[Math.floor(part * (sorted.length - 1))] ?? least;
    const most = Math.max(at(share), Math.min(high - CUT, at(0.75)));
    low = Math.max(least, Math.min(most, high - KEPT));
  }
  const pad = 0.06 * (high - low) || 1;
  return [low - (low > least ? 0 : pad), high + pad];
}

// Trials: those off the slice fainter, as they are only projected onto it.
function marks(facts, view, height) {
  const kinds = {
    observed: (mark) => mark.state === "complete" && mark.feasible && !mark.best,
    infeasible: (mark) => mark.state === "complete" && !mark.feasible,
    "stopped early": (mark) => mark.state === "pruned",
    failed: (mark) => mark.state === "failed",
    pending: (mark) => ["running", "waiting"].includes(mark.state),
    [facts.objectives > 1 ? "on the front" : "best"]: (mark) => mark.best,
  };
  const made = [];
  for (const [name, isIt] of Object.entries(kinds)) {
    for (const on of [false, true]) {
      const part = facts.marks.filter((mark) => isIt(mark) && mark.on === on);
      if (!part.length) continue;
      const heights = part.map((mark) => height(mark) ?? null);
      const atEdge = heights.every((value) => value == null);
      made.push({
        name, mode: "markers", legendgroup: name,
        showlegend: on || !facts.marks.some((mark) => isIt(mark) && mark.on),
        x: part.map((mark) => view.placeOf(view.x, mark.x)),
        y: atEdge ? part.map(() => 0.02) : heights,
        yaxis: atEdge && view.y == null ? "y2" : "y",
        text: part.map((mark) => lines(`trial ${mark.number}, ${mark.state}${on ? "" : ", off this slice"}`,
          ...Object.entries({ ...mark.values, ...mark.constraints })
            .map(([of, value]) => `${of} = ${short(value)}`))),
        hoverinfo: "text", cliponaxis: false,
        opacity: on ? 1 : part.length > 150 ? 0.22 : 0.4,
        marker: looks(name, { over: view.y != null, scale: on ? 1 : 0.7 }),
      });
    }
  }
  return made;
}
