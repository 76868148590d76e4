// The parameters of a study: which are active, and where a value lies between its bounds.

// Which parameters matter at these values. One that is drawn may take any value.
export function active(parameters, values, drawn = []) {
  const byName = new Map(parameters.map((p) => [p.name, p]));
  const known = new Map();
  const isActive = (name) => {
    if (!known.has(name)) {
      const needs = Object.entries(byName.get(name).when ?? {});
      known.set(name, needs.every(([parent, allowed]) =>
        isActive(parent) && (drawn.includes(parent) || allowed.includes(values[parent]))));
    }
    return known.get(name);
  };
  return parameters.filter((p) => isActive(p.name));
}

export const isNumber = (p) => p.type === "real" || p.type === "integer";

// Where a value lies, from 0 to 1.
export function toUnit(p, value) {
  if (!isNumber(p)) {
    const place = p.choices.findIndex((choice) => choice === value);
    return p.choices.length < 2 ? 0.5 : place / (p.choices.length - 1);
  }
  const [low, high, x] = [p.low, p.high, value].map(Number);
  if (low === high) return 0.5;
  if (p.log) return Math.log(x / low) / Math.log(high / low);
  return (x - low) / (high - low);
}

// The number at such a place, in few digits; an integer on its steps.
export function fromUnit(p, unit) {
  const [low, high] = [Number(p.low), Number(p.high)];
  const x = p.log ? low * (high / low) ** unit : low + unit * (high - low);
  if (p.type === "integer") {
    return Math.min(high, low + p.step * Math.round((x - low) / p.step));
  }
  return Math.min(high, Math.max(low, Number(x.toPrecision(6))));
}

// How many places a slider has.
export function places(p) {
  return p.type === "integer" && !p.log && p.levels <= 1000 ? p.levels - 1 : 1000;
}

// What the model predicts: objectives, and outcomes under a constraint, of which the good side is
// where it holds.
export function outputs({ objectives, constraints }) {
  return [...objectives, ...constraints.map(({ name, limit }) =>
    ({ name, direction: limit.includes(">") ? "maximize" : "minimize" }))];
}

// A value that a form starts with.
export const middle = (p) => (isNumber(p) ? p.middle : p.choices[0]);
