// The table of trials: filtered, sorted and cut into pages by the server.

import { get } from "./api.js";
import { duration, el, labelled, moment, select, short } from "./dom.js";
import { askToTell } from "./forms.js";

const SIZES = [["25", "25"], ["50", "50"], ["100", "100"], ["200", "200"]];
const STATES = ["complete", "running", "waiting", "failed", "pruned"];

export function trials(app) {
  const table = new Trials(app);
  return { title: "Trials", pictures: [table], element: table.element };
}

class Trials {
  constructor(app) {
    this.app = app;
    this.query = { sort: "number", descending: "1", state: [], text: "", start: 0, most: 50 };
    this.open = new Set();
    this.details = new Map(); // by number: what is shown, and of which row
    this.seen = false;
    Object.assign(this, { shown: -1, ended: 0, took: 0 });
    const { objectives, constraints, parameters } = app.study;
    const of = (part, list) => list.map(({ name, choices }) =>
      ({ sort: `${part}.${name}`, part, name, left: choices != null }));
    this.columns = [
      { sort: "number", name: "#" }, { sort: "state", name: "state", left: true },
      ...of("values", objectives), ...of("constraints", constraints), ...of("params", parameters),
      { sort: "worker", name: "worker", left: true }, { sort: "started", name: "started" },
      { sort: "seconds", name: "took" }, { sort: "phase", name: "chosen by", left: true },
      { sort: null, name: "reason", left: true },
    ];
    this.head = el("tr", {});
    this.body = el("tbody", {});
    this.pages = el("div", { class: "pages" });
    this.note = el("p", { class: "note", role: "status" });
    this.element = el("div", { class: "cards" },
      el("section", { class: "card wide", "aria-label": "Trials" },
        el("header", {}, el("h2", {}, "Trials"), this.filters()), this.note,
        el("div", { class: "scroll" }, el("table", {}, el("thead", {}, this.groups(), this.head),
          this.body)),
        this.pages));
  }

  filters() {
    const text = el("input", { type: "search", size: 27, placeholder: "number, worker, reason, a=1 …",
      "aria-label": "Find in trials", input: () => {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.choose({ text: text.value }), 200);
      } });
    const boxes = STATES.map((state) => {
      const box = el("input", { type: "checkbox", checked: true, change: () => {
        const on = STATES.filter((_, k) => boxes[k].control.checked);
        this.choose({ state: on.length === STATES.length ? [] : on.length ? on : ["none"] });
      } });
      const field = el("label", { class: "field" }, box, el("span", {}, state));
      return { control: box, field };
    });
    return el("span", { class: "controls" }, labelled("Find", text), boxes.map(({ field }) => field));
  }

  // A row over the header that says what belongs together.
  groups() {
    const words = { values: "objectives", constraints: "constraints", params: "parameters" };
    const cells = [];
    for (const { part } of this.columns) {
      const last = cells.at(-1);
      if (last && last.part === part) last.span += 1;
      else cells.push({ part, span: 1 });
    }
    return el("tr", { class: "group" }, el("td", {}), cells.map(({ part, span }) =>
      el("th", { colspan: span, scope: "colgroup" }, words[part] ?? "")));
  }

  choose(change) {
    this.query = { ...this.query, start: 0, ...change };
    this.ask();
  }

  show() {
    this.seen = true;
    this.ask();
  }

  hide() {
    this.seen = false;
    clearTimeout(this.again);
  }

  redraw() {}

  retry() {
    if (this.seen) this.ask();
  }

  update() {
    clearTimeout(this.again);
    if (!this.seen || this.app.stamp.trials <= this.shown) return;
    // A table of 100,000 is not sorted all the time.
    const rest = this.ended + 3 * this.took - performance.now();
    if (rest > 0) this.again = setTimeout(() => this.update(), rest);
    else this.ask();
  }

  async ask() {
    this.controller?.abort();
    this.controller = new AbortController();
    const { signal } = this.controller;
    const began = performance.now();
    try {
      const found = await get("trials", { study: this.app.study.name, ...this.query }, signal);
      this.shown = found.revision;
      this.ended = performance.now();
      this.took = this.ended - began;
      this.draw(found);
    } catch (error) {
      if (signal.aborted) return;
      this.note.textContent = error.message;
      this.note.classList.add("wrong");
    }
  }

  draw(found) {
    this.found = found;
    this.note.classList.remove("wrong");
    const of = found.matching === found.total ? "" : ` of ${found.total}`;
    const count = `${found.matching}${of} trial${found.matching === 1 ? "" : "s"}`;
    if (this.note.textContent !== count) this.note.textContent = count; // else it is read out again
    this.head.replaceChildren(el("td", {}), ...this.columns.map((column) => this.header(column)));
    this.body.replaceChildren(...found.rows.flatMap((row) => this.rows(row)));
    this.drawPages(found);
  }

  header({ sort, name, left }) {
    const isSorted = this.query.sort === sort;
    const down = this.query.descending === "1";
    const arrow = isSorted ? (down ? " ↓" : " ↑") : "";
    if (!sort) return el("th", { scope: "col", class: "muted" }, name);
    return el("th", { scope: "col", class: left ? "" : "number",
      "aria-sort": isSorted ? (down ? "descending" : "ascending") : null },
    el("button", { type: "button", title: "Sort", click: () =>
      this.choose({ sort, descending: isSorted && down ? "0" : isSorted ? "1" : "0" }) },
    name + arrow));
  }

  rows(row) {
    const isOpen = this.open.has(row.number);
    const more = el("button", { type: "button", class: "more", "aria-expanded": String(isOpen),
      "aria-label": `Details of trial ${row.number}`, click: () => this.toggle(row) },
    isOpen ? "▾" : "▸");
    const cells = this.columns.map((column) => this.cell(column, row));
    const made = [el("tr", { class: "trial", "data-number": row.number }, el("td", {}, more), cells)];
    if (isOpen) made.push(this.detailRow(row));
    return made;
  }

  cell({ sort, part, name, left }, row) {
    if (sort === "state") {
      const broken = row.feasible === false ? " (infeasible)" : "";
      return el("td", {}, el("span", { class: `badge ${row.state}` }, row.state + broken));
    }
    if (part) {
      const error = part === "values" ? row.standard_errors[name] : null;
      return this.value(row[part]?.[name], error, left);
    }
    if (sort === "number") return el("td", { class: "number" }, String(row.number));
    if (sort === "started") return el("td", { class: "number" }, moment(row.started));
    if (sort === "seconds") return el("td", { class: "number" }, duration(row.seconds));
    const text = sort ? row[sort] ?? "–" : row.reason ?? "";
    return el("td", { class: left ? "text" : "number", title: text }, text);
  }

  value(value, error, left) {
    const look = left ? "text" : "number";
    if (value == null) return el("td", { class: `${look} muted` }, "–");
    const text = error == null ? short(value) : `${short(value)} ± ${short(error, 2)}`;
    return el("td", { class: look, title: String(value) }, text);
  }

  toggle(row) {
    if (this.open.has(row.number)) this.open.delete(row.number);
    else this.open.add(row.number);
    this.draw(this.found);
    this.body.querySelector(`tr[data-number="${row.number}"] .more`)?.focus();
  }

  detailRow(row) {
    // What is unfolded stays so while others change.
    const of = JSON.stringify(row);
    if (this.details.get(row.number)?.of !== of) {
      const inside = this.details.get(row.number)?.inside ?? el("div", { class: "sticky" }, "…");
      this.details.set(row.number, { of, inside });
      this.fetchDetails(row, inside);
    }
    return el("tr", { class: "details" },
      el("td", { colspan: this.columns.length + 1 }, this.details.get(row.number).inside));
  }

  async fetchDetails(row, inside) {
    try {
      const found = await get("trial", { study: this.app.study.name, number: row.number });
      inside.replaceChildren(...this.told(found));
    } catch (error) {
      inside.replaceChildren(el("p", { class: "wrong" }, error.message));
    }
  }

  told(trial) {
    const facts = [["created", moment(trial.created)], ["started", moment(trial.started)],
      ["finished", moment(trial.finished)],
      ...Object.entries(trial.params).map(([name, value]) => [name, String(value)]),
      ...Object.entries(trial.values ?? {}).map(([name, value]) => [name, String(value)]),
      ...Object.entries(trial.attrs).map(([name, value]) => [name, JSON.stringify(value)])];
    const made = [el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))];
    if (trial.reason) made.push(reason(trial.reason));
    made.push(el("details", {}, el("summary", {}, "Why this point was chosen"),
      el("pre", {}, trial.explanation)));
    if (["running", "waiting"].includes(trial.state) && !this.app.readOnly) {
      made.push(el("p", {}, el("button", { type: "button",
        click: () => askToTell(this.app, trial) }, "Tell what came out …")));
    }
    return made;
  }

  drawPages({ start, rows, matching }) {
    const { most } = this.query;
    const go = (text, label, to, on) => el("button", { type: "button", "aria-label": label,
      disabled: !on, click: () => this.choose({ start: to }) }, text);
    const last = Math.max(0, Math.floor((matching - 1) / most) * most);
    this.pages.replaceChildren(
      go("«", "First page", 0, start > 0),
      go("‹", "Previous page", Math.max(0, start - most), start > 0),
      el("span", {}, matching ? `${start + 1} to ${start + rows.length} of ${matching}` : "none"),
      go("›", "Next page", start + most, start + most < matching),
      go("»", "Last page", last, start + most < matching),
      labelled("Rows", select(SIZES, String(most), (size) => this.choose({ most: Number(size) }))));
  }
}

// The last line says what went wrong; the traceback before it is folded.
function reason(text) {
  const all = text.trim().split("\n");
  if (all.length === 1) return el("p", { class: "wrong" }, text);
  return el("details", { class: "reason" }, el("summary", { class: "wrong" }, all.at(-1)),
    el("pre", {}, text));
}
