// Slices: the posterior and the acquisition over one or two parameters, the others held where their
// controls are.

import { axisOf, placeOf } from "./charts.js";
import { el, labelled, pointText, select, short } from "./dom.js";
import { Picture } from "./picture.js";
import { active, fromUnit, isNumber, outputs, places, toUnit } from "./space.js";
import { curve, surface } from "./surfaces.js";

const WAIT = 90; // milliseconds that a slider must rest

// An object for any names: in others, "constructor" would be there already.
const nothing = () => Object.create(null);

export function slices(app) {
  const made = new Slices(app);
  return { title: "Slices", pictures: made.pictures, element: made.element };
}

class Slices {
  constructor(app) {
    this.app = app;
    this.parameters = app.study.parameters.filter((p) => p.kind !== "fixed");
    this.byName = new Map(app.study.parameters.map((p) => [p.name, p]));
    this.axes = null; // [x, y], once the server has chosen or the user has
    this.chosen = nothing(); // what the user has set
    this.held = {}; // what the last picture held
    this.spread = "expected";
    this.posterior = new Picture(app, "posterior", "Posterior", {
      about: "What the model expects over the chosen parameters",
      render: (columns, facts) => this.drawn(columns, facts, true),
    });
    this.acquisition = new Picture(app, "acquisition", "Acquisition", {
      about: "How much each point promises over the chosen parameters",
      render: (columns, facts) => this.drawn(columns, facts, false),
    });
    this.pictures = [this.posterior, this.acquisition];
    this.output = app.study.objectives[0];
    this.addChoices();
    this.axisControls = el("div", { class: "controls" });
    this.heldControls = el("div", { class: "held", hidden: true });
    this.element = el("div", { class: "cards" },
      el("section", { class: "card wide", "aria-label": "Slice" }, this.axisControls,
        this.heldControls),
      this.posterior.element, this.acquisition.element);
    this.showAxes();
  }

  addChoices() {
    const { acquisitions } = this.app.study;
    const all = outputs(this.app.study);
    if (all.length > 1) {
      const names = all.map(({ name }) => [name, name]);
      this.posterior.options = { name: all[0].name };
      this.posterior.controls.append(labelled("Output", select(names, names[0][0], (name) => {
        this.output = all.find((output) => output.name === name);
        this.posterior.choose({ name });
      })));
    }
    this.posterior.controls.append(select(
      [["expected", "expected"], ["uncertainty", "uncertainty"]], "expected", (spread) => {
        this.spread = spread;
        this.posterior.redraw();
      }, { "aria-label": "What to draw of the posterior" }));
    const pairs = [["", "the study's own"], ...Object.keys(acquisitions).map((name) => [name, name])];
    this.acquisition.controls.append(select(pairs, "", (name) =>
      this.acquisition.choose({ acquisition: name || null }), {
      "aria-label": "Acquisition function", title: "Acquisition function" }));
  }

  showAxes() {
    const [x, y] = this.axes ?? ["", ""];
    const names = this.parameters.map(({ name }) => [name, name]);
    const first = this.axes ? [] : [["", "chosen by the model"]];
    this.axisControls.replaceChildren(
      labelled("Horizontal", select([...first, ...names], x, (to) => this.setAxes(to, y === to ? "" : y),
        { id: "slice-x" })),
      labelled("Vertical", select([["", "none: a curve"], ...names.filter(([of]) => of !== x)],
        y ?? "", (to) => this.setAxes(x || names.find(([of]) => of !== to)?.[0], to),
        { id: "slice-y" })),
      el("button", { type: "button", click: () => this.atBest() }, "Through the best trial"));
  }

  setAxes(x, y) {
    this.axes = [x, y];
    this.showAxes();
    this.ask();
  }

  atBest() {
    this.chosen = nothing();
    this.ask();
  }

  // Ask for both pictures with what is chosen now.
  ask() {
    const [x, y] = this.axes ?? [null, null];
    const drawn = [x, y].filter(Boolean);
    const values = { ...this.held, ...this.chosen };
    const matter = new Set(active(this.app.study.parameters, values, drawn).map(({ name }) => name));
    const fixed = Object.fromEntries(Object.entries(this.chosen).filter(([name]) =>
      matter.has(name) && !drawn.includes(name)));
    const options = { x: x || null, y: y || null, fixed };
    for (const picture of this.pictures) picture.choose(options);
  }

  drawn(columns, facts, isPosterior) {
    this.settle(facts);
    const of = (name) => (name == null ? null : this.byName.get(name));
    const view = { x: of(facts.x), y: of(facts.y), output: this.output, isPosterior,
      spread: this.spread, axisOf, placeOf };
    const made = facts.y == null ? curve(columns, facts, view) : surface(columns, facts, view);
    const notes = [
      isPosterior || !facts.next ? null : `Next: ${pointText(facts.next)}.`,
      made.said,
      columns.allowed?.includes(false) ? "Blank: ruled out by the constraints of the space." : null,
    ];
    const axes = [facts.x, facts.y].filter(Boolean).join(" and ");
    const held = Object.keys(facts.held).length ? `, with ${pointText(facts.held)}` : "";
    return { ...made, words: `Over ${axes}${held}.`, note: notes.filter(Boolean).join(" ") };
  }

  // Take over what the server chose: which axes, and where the others are held.
  settle(facts) {
    if (this.axes === null) {
      this.axes = [facts.x, facts.y ?? ""];
      this.showAxes();
    }
    const names = Object.keys(facts.held).join("\n");
    const values = JSON.stringify(facts.held);
    if (values === this.settled) return;
    this.settled = values;
    this.held = facts.held;
    // A control that is being moved is left alone.
    if (names !== this.names) {
      this.names = names;
      this.fields = Object.entries(facts.held).map(([name, value]) =>
        this.field(this.byName.get(name), this.chosen[name] ?? value));
      this.heldControls.replaceChildren(...this.fields.map(({ element }) => element));
      this.heldControls.hidden = !this.fields.length;
    } else {
      for (const field of this.fields) {
        if (!(field.name in this.chosen)) field.set(facts.held[field.name]);
      }
    }
  }

  field(p, value) {
    const caption = el("span", { title: p.name }, p.name);
    if (!isNumber(p)) {
      const made = select(p.choices.map((choice, k) => [String(k), String(choice)]),
        String(p.choices.indexOf(value)), (k) => this.hold(p.name, p.choices[Number(k)], 0),
        { "data-name": p.name });
      return { name: p.name, element: el("label", {}, caption, made),
        set: (to) => { made.value = String(p.choices.indexOf(to)); } };
    }
    const steps = places(p);
    const number = el("input", { type: "text", inputmode: "decimal", "aria-label": `${p.name}, exactly`,
      value: short(value, 6), change: () => {
        slider.value = Math.round(steps * toUnit(p, Number(number.value)));
        this.hold(p.name, number.value, 0);
      } });
    const slider = el("input", { type: "range", min: 0, max: steps, step: 1, "data-name": p.name,
      value: Math.round(steps * toUnit(p, value)), input: () => {
        const to = fromUnit(p, Number(slider.value) / steps);
        number.value = short(to, 6);
        this.hold(p.name, to, WAIT);
      } });
    return { name: p.name, element: el("label", {}, caption, slider, number), set: (to) => {
      slider.value = Math.round(steps * toUnit(p, to));
      number.value = short(to, 6);
    } };
  }

  hold(name, value, wait) {
    this.chosen[name] = value;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), wait);
  }
}
