// What changes a study: a trial put in line, an outcome told, the runs stopped.

import { post } from "./api.js";
import { el, pointText, select, short } from "./dom.js";
import { active, isNumber, middle } from "./space.js";

// A dialog with a form. fill(form) puts its fields in; send() does the work and returns what to say.
function dialog(app, title, verb, { danger = false, lead, fields, send }) {
  const wrong = el("p", { class: "wrong", role: "alert" });
  const go = el("button", { type: "submit", class: danger ? "danger" : "main" }, verb);
  const form = el("form", { method: "dialog", submit: async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    go.disabled = true;
    try {
      const said = await send();
      made.close();
      app.say(said);
    } catch (error) {
      wrong.textContent = error.message;
    }
    go.disabled = false;
  } }, fields, wrong, el("div", { class: "buttons" },
    el("button", { type: "button", click: () => made.close() }, "Cancel"), go));
  const heading = `dialog-${Math.random().toString(36).slice(2)}`;
  const made = el("dialog", { "aria-labelledby": heading, close: () => made.remove() },
    el("h2", { id: heading }, title), lead ? el("p", { class: "muted" }, lead) : null, form);
  document.body.append(made);
  made.showModal();
}

let ids = 0;

function row(text, control, hint) {
  control.id = `field-${(ids += 1)}`;
  return [el("label", { for: control.id }, text), control, hint ? el("small", {}, hint) : null];
}

export function askToAdd(app) {
  const { parameters, rules, name: study } = app.study;
  const values = Object.fromEntries(parameters.map((p) => [p.name, middle(p)]));
  Object.assign(values, app.summary.best?.params);
  const fields = el("div", { class: "fields" });
  const controls = new Map(parameters.map((p) => [p.name, control(p, values, () => show())]));
  // Parameters come and go with what the others are.
  const show = () => fields.replaceChildren(...active(parameters, values)
    .filter((p) => p.kind !== "fixed").flatMap((p) => controls.get(p.name)).filter(Boolean));
  show();
  dialog(app, "Add a trial", "Put it in line", {
    lead: ["The next worker that asks gets this point first.", ...rules].join(" "),
    fields,
    send: async () => {
      const params = Object.fromEntries(active(parameters, values).map((p) => [p.name, values[p.name]]));
      const { done } = await post("enqueue", { study, params });
      return `Trial ${done.number} waits: ${pointText(done.params)}.`;
    },
  });
}

function control(p, values, changed) {
  if (!isNumber(p)) {
    const made = select(p.choices.map((choice, k) => [String(k), String(choice)]),
      String(Math.max(0, p.choices.indexOf(values[p.name]))), (k) => {
        values[p.name] = p.choices[Number(k)];
        changed();
      }, { name: p.name });
    return row(p.name, made);
  }
  const made = el("input", { name: p.name, type: "text", inputmode: "decimal", autocomplete: "off",
    value: values[p.name], input: () => {
      values[p.name] = made.value.trim();
    }, change: () => {
      // What depends on an integer depends on the number, not on its text.
      const number = Number(made.value);
      if (p.type === "integer" && made.value.trim() && Number.isSafeInteger(number)) {
        values[p.name] = number;
        changed();
      }
    } });
  return row(p.name, made, p.expected);
}

export function askToTell(app, trial) {
  const { objectives, constraints, name: study } = app.study;
  const outcome = { kind: "values", reason: "", values: {} };
  const fields = el("div", { class: "fields" });
  const field = (name, hint) => {
    const made = el("input", { name, type: "text", inputmode: "decimal", autocomplete: "off",
      value: outcome.values[name] ?? "", input: () => {
        outcome.values[name] = made.value;
      } });
    return row(name, made, hint);
  };
  const show = () => {
    const kinds = select([["values", "It has a value"], ["failed", "It failed"],
      ["pruned", "It was given up"]], outcome.kind, (kind) => {
      outcome.kind = kind;
      show();
    }, { name: "outcome" });
    const reason = el("input", { name: "reason", type: "text", value: outcome.reason, input: () => {
      outcome.reason = reason.value;
    } });
    const rest = outcome.kind === "values"
      ? [...objectives.flatMap(({ name, direction }) => field(name, `to ${direction}`)),
        ...constraints.flatMap(({ name, limit }) => field(name, `feasible if ${limit}`))]
      : row("Why", reason);
    fields.replaceChildren(...[...row("Outcome", kinds), ...rest].filter(Boolean));
  };
  show();
  dialog(app, `Trial ${trial.number}: what came out?`, "Tell", {
    lead: pointText(trial.params),
    fields,
    send: async () => {
      const body = { study, number: trial.number };
      if (outcome.kind === "values") body.values = outcome.values;
      else body[outcome.kind] = outcome.reason;
      const { done } = await post("tell", body);
      const values = Object.entries(done.values ?? {}).map(([name, value]) => `${name} = ${short(value)}`);
      return `Trial ${done.number} is ${done.state}: ${values.join(", ") || done.reason}.`;
    },
  });
}

export function askToStop(app) {
  const reason = el("input", { name: "reason", type: "text", value: "no more is needed" });
  dialog(app, `Stop the runs of ${app.study.name}?`, "Stop", {
    danger: true,
    lead: "Runs in all processes finish the trials that they have begun, and start no others. "
      + "A run that begins later begins as always.",
    fields: el("div", { class: "fields" }, row("Why", reason).filter(Boolean)),
    send: async () => {
      await post("stop", { study: app.study.name, reason: reason.value });
      return "The runs were told to stop.";
    },
  });
}
