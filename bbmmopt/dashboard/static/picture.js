// Picture: a card whose numbers are asked for when it is seen, and again when they are old.

import { get } from "./api.js";
import { draw, erase, refit } from "./charts.js";
import { el } from "./dom.js";

export class Picture {
  // app: the page; kind: which numbers; part: what of the study they show (everything, trials,
  // told); render(columns, facts) gives { traces, layout, note, words }, where words tell what is
  // drawn to those who do not see it, besides the note.
  constructor(app, kind, title, { part = "trials", wide = false, about, render }) {
    Object.assign(this, { app, kind, part, render });
    this.options = {};
    this.seen = false;
    this.forget();
    this.controls = el("span", { class: "controls" });
    this.state = el("span", { class: "state" });
    this.plot = el("div", { class: "plot", id: `plot-${kind}`, role: "group", "aria-label": about });
    this.about = about;
    this.note = el("p", { class: "note" });
    this.element = el("section", { class: wide ? "card wide" : "card", "aria-label": title },
      el("header", {}, el("h2", {}, title), this.controls, this.state),
      el("div", { class: "scroll" }, this.plot), this.note);
  }

  // Ask for other numbers; what is drawn stays until they are there.
  choose(options) {
    this.options = { ...this.options, ...options };
    this.forget();
    return this.ask();
  }

  forget() {
    this.controller?.abort();
    clearTimeout(this.timer);
    Object.assign(this, { controller: null, have: 0, shown: -1, tried: -1, columns: {} });
  }

  show() {
    this.seen = true;
    refit(this.plot);
    this.update();
  }

  // What was asked for may have got lost while the server was away.
  retry() {
    this.tried = -1;
    this.update();
  }

  hide() {
    this.seen = false;
    clearTimeout(this.timer);
  }

  // Something in the study has changed, maybe.
  update() {
    if (!this.seen || this.controller) return;
    if (this.app.stamp[this.part] <= Math.max(this.shown, this.tried)) return;
    const rest = (this.ended ?? -Infinity) + 1500 * (this.seconds ?? 0) + 100 - performance.now();
    clearTimeout(this.timer);
    // What takes long is not computed all the time.
    if (this.shown >= 0 && rest > 0) this.timer = setTimeout(() => this.ask(), rest);
    else this.ask();
  }

  async ask() {
    if (!this.seen) return;
    clearTimeout(this.timer);
    if (!this.app.summary.total) {
      this.say("There are no trials yet.", false);
      return;
    }
    this.controller = new AbortController();
    const { signal } = this.controller;
    const tried = this.app.stamp[this.part];
    this.busy(true);
    try {
      const found = await get("picture", {
        study: this.app.study.name,
        kind: this.kind,
        options: JSON.stringify(this.options),
        have: this.have,
        shown: this.shown,
      }, signal);
      if (found.nothing) {
        erase(this.plot);
        this.say(found.nothing, false);
      } else {
        this.take(found);
      }
    } catch (error) {
      if (signal.aborted) return;
      this.say(error.message, true);
    }
    this.tried = tried;
    this.ended = performance.now();
    this.controller = null;
    this.busy(false);
    this.update();
  }

  // Rows that are alike were not sent again.
  take(found) {
    for (const [name, values] of Object.entries(found.columns)) {
      this.columns[name] = (this.columns[name] ?? []).slice(0, found.keep).concat(values);
    }
    this.have = found.version;
    this.shown = found.revision;
    this.seconds = found.seconds;
    this.facts = found.facts;
    this.redraw();
  }

  redraw() {
    if (this.shown < 0) return;
    const made = this.render(this.columns, this.facts, this);
    this.plot.style.minWidth = made.width ? `${made.width}px` : "";
    if (made.traces) draw(this.plot, made.traces, made.layout ?? {});
    else erase(this.plot);
    this.plot.setAttribute("aria-label", [`${this.about}.`, made.words].filter(Boolean).join(" "));
    this.say(made.note ?? "", false);
  }

  say(text, wrong) {
    this.note.textContent = text;
    this.note.classList.toggle("wrong", wrong);
  }

  busy(on) {
    this.element.classList.toggle("busy", on);
    const shown = this.shown < 0 ? "" : `revision ${this.shown}`;
    this.state.textContent = on && shown ? `${shown}, a newer one is being computed` : shown;
    if (on && !shown) this.state.textContent = "being computed";
  }
}

// How many of many are drawn, in words.
export function thinNote(columns, facts, which = "") {
  const drawn = new Set(columns.trial).size;
  return facts.trials > drawn ? `${drawn} of ${facts.trials} trials are drawn${which}. ` : "";
}
