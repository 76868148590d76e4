// Talking to the server. Every request carries the token that came in the page's address.

const KEY = "bbmmopt-token";
const SILENT = 40_000; // milliseconds; the server gives a sign of life every 15 seconds

export class Refused extends Error {
  constructor(status, message, kind) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

// Names this page to the server, which drops what the page no longer wants to see.
const PAGE = crypto.getRandomValues(new Uint32Array(2)).join("");

let token = "";

// Take the token out of the address, where it could be read over a shoulder or copied along.
export function takeToken() {
  const hash = new URLSearchParams(location.hash.slice(1));
  token = hash.get("token") ?? sessionStorage.getItem(KEY) ?? "";
  sessionStorage.setItem(KEY, token);
  hash.delete("token");
  remember(hash);
}

// Keep what is looked at in the address, so that a reload shows it again.
export function remember(hash) {
  const text = hash.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname);
}

export async function get(name, given = {}, signal = undefined) {
  return answer(await send(address(name, given), { signal }));
}

export async function post(name, body) {
  const headers = { "Content-Type": "application/json" };
  return answer(await send(address(name), { method: "POST", headers, body: JSON.stringify(body) }));
}

// Call onNote with each note of the study's stream, until it ends or nothing is heard any more: a
// tunnel that broke while the computer slept tells nobody.
export async function follow(study, onNote, signal) {
  const silence = new AbortController();
  let timer = null;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENT);
  };
  heard();
  try {
    const both = AbortSignal.any([signal, silence.signal]);
    const response = await send(address("notes", { study }), { signal: both });
    if (!response.ok) await answer(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const parts = (buffer + value).split("\n\n");
      buffer = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ")) onNote(JSON.parse(part.slice(6)));
      }
    }
  } catch (error) {
    throw silence.signal.aborted ? unreachable() : error;
  } finally {
    clearTimeout(timer);
  }
}

const unreachable = () =>
  new Refused(0, "The dashboard does not answer: is it still running?", "unreachable");

function address(name, given = {}) {
  const query = new URLSearchParams({ page: PAGE });
  for (const [key, value] of Object.entries(given)) {
    for (const item of Array.isArray(value) ? value : [value]) query.append(key, item);
  }
  return `/api/${name}?${query}`;
}

async function send(where, options) {
  const headers = { ...options.headers, Authorization: `Bearer ${token}` };
  try {
    return await fetch(where, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

async function answer(response) {
  let found = {};
  try {
    found = await response.json();
  } catch {
    // told by its status alone
  }
  if (response.ok) return found;
  throw new Refused(response.status, found.error ?? `status ${response.status}`, found.kind);
}
