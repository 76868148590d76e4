// The page: which study is shown, what of it, and whether that is still so.

import { follow, get, remember, takeToken } from "./api.js";
import { refit } from "./charts.js";
import { byId, el, pointText, short } from "./dom.js";
import { askToAdd, askToStop } from "./forms.js";
import { model } from "./model.js";
import { overview } from "./overview.js";
import { curves, timeline } from "./progress.js";
import { slices } from "./slices.js";
import { tradeoffs } from "./tradeoffs.js";
import { trials } from "./trials.js";

const AGAIN = 2000; // milliseconds until the server is tried again

// What all parts of the page know.
const app = {
  study: null, // its description
  summary: null, // how it stands
  stamp: { everything: 0, trials: 0, told: 0 },
  readOnly: false,
  say,
};

let views = [];
let current = null;
let following = null;

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const hash = () => new URLSearchParams(location.hash.slice(1));

async function begin() {
  takeToken();
  byId("study").addEventListener("change", () => open(byId("study").value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    current?.pictures.forEach((picture) => picture.redraw()));
  document.addEventListener("visibilitychange", () => {
    const name = byId("study").value;
    if (document.hidden) following?.abort();
    else if (app.study?.name === name) listen();
    else if (name) open(name);
  });
  for (;;) {
    try {
      const found = await get("studies");
      app.readOnly = found.read_only;
      byId("storage").textContent = found.storage;
      if (found.studies.length) {
        const wanted = [hash().get("study"), found.first, found.studies[0]];
        offer(found.studies);
        await open(wanted.find((name) => found.studies.includes(name)));
        return;
      }
      live("on", "waiting for a study");
      byId("main").replaceChildren(el("p", {}, "This storage holds no study yet: it will be shown "
        + "as soon as there is one."));
    } catch (error) {
      complain(error.message);
      live("off", "not connected");
      if (error.status === 401 || error.status === 403) return;
    }
    await wait(AGAIN);
  }
}

function offer(names) {
  const chooser = byId("study");
  const known = [...chooser.options].map((option) => option.value);
  if (names.length === known.length && names.every((name, k) => name === known[k])) return;
  const chosen = chooser.value;
  chooser.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  if (names.includes(chosen)) chooser.value = chosen;
  chooser.disabled = false;
}

// Show a study, from nothing.
async function open(name) {
  following?.abort();
  following = new AbortController();
  const { signal } = following;
  byId("study").value = name;
  while (!signal.aborted) {
    try {
      const { summary, ...study } = await get("study", { study: name }, signal);
      current?.pictures.forEach((picture) => picture.hide());
      views = [];
      current = null;
      app.study = study;
      take(summary);
      build();
      listen();
      return;
    } catch (error) {
      if (signal.aborted) return;
      complain(error.message);
      live("off", "not connected");
      if (error.kind !== "unreachable") return;
    }
    await wait(AGAIN);
  }
}

// The views that make sense of this study; those that are there already stay as they are.
function build() {
  const { objectives } = app.study;
  const wanted = [overview, slices, ...(objectives.length > 1 ? [tradeoffs] : []), model,
    ...(app.summary.reported ? [curves] : []), timeline, trials];
  views = wanted.map((make) => views.find(({ id }) => id === make.name)
    ?? { ...make(app), id: make.name });
  byId("tabs").hidden = false;
  byId("tabs").replaceChildren(...views.map((view) => el("button", { type: "button", role: "tab",
    id: `tab-${view.id}`, "aria-controls": "main", click: () => choose(view),
    keydown: (event) => step(event, view) }, view.title)));
  choose(views.find(({ id }) => id === hash().get("tab")) ?? views[0]);
  document.title = `${app.study.name} · bbmmopt`;
}

function choose(view) {
  current?.pictures.forEach((picture) => picture.hide());
  current = view;
  for (const { id } of views) {
    const isIt = id === view.id;
    byId(`tab-${id}`).setAttribute("aria-selected", String(isIt));
    byId(`tab-${id}`).tabIndex = isIt ? 0 : -1;
  }
  byId("main").setAttribute("aria-labelledby", `tab-${view.id}`);
  byId("main").setAttribute("role", "tabpanel");
  byId("main").replaceChildren(view.element);
  const kept = hash();
  kept.set("study", app.study.name);
  kept.set("tab", view.id);
  remember(kept);
  view.pictures.forEach((picture) => picture.show());
}

// Arrow keys go from tab to tab, Home and End to the first and the last.
function step(event, view) {
  const at = views.indexOf(view);
  const to = { ArrowRight: views[(at + 1) % views.length], ArrowLeft: views.at(at - 1),
    Home: views[0], End: views.at(-1) }[event.key];
  if (!to) return;
  event.preventDefault();
  choose(to);
  byId(`tab-${to.id}`).focus();
}

// Hear of whatever changes, and try again if the connection is lost.
async function listen() {
  following?.abort();
  following = new AbortController();
  const { signal } = following;
  let wasAway = false;
  const heard = (note) => {
    take(note);
    if (wasAway) current?.pictures.forEach((picture) => picture.retry());
    wasAway = false;
  };
  while (!signal.aborted) {
    try {
      await follow(app.study.name, heard, signal);
    } catch (error) {
      if (signal.aborted) return;
      wasAway = true;
      live("off", "not connected");
      complain(error.message);
      if (error.status === 401 || error.status === 404) return;
    }
    await wait(AGAIN);
  }
}

function take(note) {
  if (note.trouble) {
    live("off", "the storage cannot be read");
    complain(note.trouble);
    return;
  }
  complain("");
  offer(note.studies);
  if (note.generation !== app.study.generation) {
    open(note.study); // its space or its settings are others now
    return;
  }
  const isNew = note.reported !== app.summary?.reported;
  app.summary = note;
  app.stamp = note.stamp;
  summarise(note);
  live("on", "live", `, revision ${note.stamp.everything}`);
  if (isNew && views.length) build();
  current?.pictures.forEach((picture) => picture.update());
}

function summarise({ counts, total, best, stopped }) {
  const states = Object.entries(counts).filter(([, count]) => count)
    .map(([state, count]) => el("span", { class: `badge ${state}` }, el("b", {}, String(count)),
      ` ${state}`));
  const values = best && Object.entries(best.values).map(([name, value]) => `${name} = ${short(value)}`);
  byId("summary").hidden = false;
  const parts = [
    total ? states : el("span", {}, "no trials yet"),
    best && el("span", { class: "best", title: pointText(best.params) }, "best ",
      el("b", {}, values.join(", ")), ` in trial ${best.number}: ${pointText(best.params)}`),
    stopped && el("span", { class: "wrong" }, `asked to stop: ${stopped}`),
  ].flat().filter(Boolean);
  if (byId("actions")) {
    byId("summary").replaceChildren(...parts, byId("actions"));
    return;
  }
  byId("summary").replaceChildren(...parts, el("span", { class: "actions", id: "actions" },
    app.readOnly ? el("span", { class: "muted" }, "read only") : [
      el("button", { type: "button", class: "main", click: () => askToAdd(app) }, "Add a trial …"),
      el("button", { type: "button", class: "danger", click: () => askToStop(app) }, "Stop …"),
    ]));
}

// Only that it is live, or not, is read out to those who hear the page: not each revision.
function live(state, text, revision = "") {
  byId("live").parentElement.className = `live ${state}`;
  if (byId("live").textContent !== text) byId("live").textContent = text;
  byId("revision").textContent = revision;
}

function complain(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

let saying = null;

function say(text) {
  byId("said").textContent = text;
  byId("said").hidden = false;
  clearTimeout(saying);
  saying = setTimeout(() => { byId("said").hidden = true; }, 6000);
}

addEventListener("resize", () => current?.pictures.forEach(({ plot }) => plot && refit(plot)));
addEventListener("unhandledrejection", (event) => complain(String(event.reason?.message ?? event.reason)));

begin();
