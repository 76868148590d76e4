// Elements and texts. Whatever a user named becomes a text node, never HTML.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null));
  return element;
}

export const byId = (id) => document.getElementById(id);

// A select of [value, text] pairs.
export function select(pairs, value, onChange, attributes = {}) {
  const options = pairs.map(([of, text]) =>
    el("option", { value: of, selected: of === value }, text));
  const made = el("select", { ...attributes, change: () => onChange(made.value) }, options);
  return made;
}

export function labelled(text, control) {
  return el("label", { class: "field" }, el("span", {}, text), control);
}

// A number in few digits, for reading.
export function short(value, digits = 5) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(digits - 2);
  return String(Number(value.toPrecision(digits)));
}

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

// Seconds since 1970 as local time: the day only if it is not today.
export function moment(seconds) {
  if (seconds == null) return "–";
  const time = new Date(seconds * 1000);
  const clock = time.toLocaleTimeString([], { hour12: false });
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return time.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`;
}

const two = (number) => String(number).padStart(2, "0");

// A point as text: a = 1, b = 2.
export function pointText(params) {
  return Object.entries(params ?? {})
    .map(([name, value]) => `${name} = ${short(value)}`)
    .join(", ");
}
