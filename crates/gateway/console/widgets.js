// Small pieces that every page uses: states, messages, dialogs, tables, things to copy.

import { announce, fill, fresh, h, icon } from "./dom.js";
import { Refused } from "./api.js";

/** How an item is doing: the word, the tone and the sign. A colour never says anything alone. */
export const STATES = {
  settled: ["Settled", "good", "check", "the stored value was seen to open the account"],
  new: ["Not rotated yet", "quiet", "clock", "it has the value it was made with"],
  rotating: ["Rotating", "busy", "refresh", "a rotation is under way"],
  overdue: ["Overdue", "warn", "clock", "its rotation was due and has not been done"],
  failed: ["Failed", "bad", "warn", "the last rotation failed; the value before still opens the account"],
  in_doubt: ["In doubt", "warn", "warn", "it is not known yet which stored value opens the account; Volvelle goes on asking"],
  out_of_sync: ["Out of sync", "bad", "cross", "no stored value opens the account: repair it"],
  disabled: ["Disabled", "quiet", "off", "it is not rotated until it is enabled"],
  static: ["Static", "quiet", "lock", "a value that people set"],
};

/** A state as a badge. */
export function badge(state) {
  const [word, tone, sign, meaning] = STATES[state] || [state, "quiet", "dot", ""];
  return h("span", { class: `badge ${tone}${state === "rotating" ? " moving" : ""}`, title: meaning }, icon(sign, 14), word);
}

/** Any word as a badge. */
export const tag = (word, tone = "quiet", sign) => h("span", { class: `badge ${tone}` }, sign && icon(sign, 14), word);

/** A button. */
export function button(label, { sign, kind = "", onclick, type = "button", title, disabled, name } = {}) {
  return h("button", { type, class: `button ${kind}`, onclick, title, disabled, "aria-label": name }, sign && icon(sign), label && h("span", {}, label));
}

/** Keeps a button busy while `work` runs; its width stays. */
export async function during(node, work) {
  if (node.getAttribute("aria-busy")) return;
  node.setAttribute("aria-busy", "true");
  node.disabled = true;
  try { return await work(); } finally {
    node.removeAttribute("aria-busy");
    node.disabled = false;
  }
}

/** What went wrong, and what to do about it. */
export function problem(error, retry) {
  if (!(error instanceof Refused)) console.error(error);
  const text = error instanceof Refused ? error.message : "the page made a mistake";
  return h("div", { class: "problem", role: "alert" }, icon("warn", 18),
    h("div", {}, h("p", { class: "strong" }, marked(text)), error.hint && h("p", {}, marked(error.hint)),
      error.requestId && error.status >= 500 && h("p", { class: "dim small" }, `Request ${error.requestId}`)),
    retry && button("Try again", { onclick: retry }));
}

/** A capital and a full stop. */
export function sentence(text) {
  const trimmed = String(text || "").trim();
  if (!trimmed) return "";
  const whole = /^(`|\/|volvelle )/.test(trimmed) ? trimmed : trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** A sentence in which what stands between backquotes is code. */
export const marked = (text) => sentence(text).split("`").map((part, n) => (n % 2 ? h("code", {}, part) : part));

/** Nothing is there, and what to do about it. */
export function nothing(sign, title, text, ...actions) {
  return h("div", { class: "nothing" }, h("div", { class: "nothing-sign" }, icon(sign, 28)), h("h2", {}, title), text && h("p", {}, text),
    actions.length > 0 && h("div", { class: "row" }, actions));
}

/** Grey bars where something will be. */
export function waiting(lines = 4, name = "Loading") {
  return h("div", { class: "waiting", role: "status" }, h("span", { class: "hidden" }, name), Array.from({ length: lines }, (_, n) => h("span", { class: `bar w${n % 4}` })));
}

/** Fills `place` with what `load` gives; grey bars before, the problem if there is one. Old content stays until then. */
export async function into(place, load, lines = 4) {
  if (!place.firstChild) fill(place, waiting(lines));
  place.setAttribute("aria-busy", "true");
  try {
    const content = await load();
    fill(place, content);
  } catch (error) {
    if (error.name !== "AbortError") fill(place, problem(error, () => { fill(place); into(place, load, lines); }));
  } finally { place.removeAttribute("aria-busy"); }
}

/** Draws `place` anew; whoever stood on something in it stands on the same thing afterwards. */
export function keepFocus(place, draw) {
  const on = place.contains(document.activeElement) ? document.activeElement : null;
  const same = (node) => on && node.tagName === on.tagName && node.getAttribute("href") === on.getAttribute("href") && node.textContent === on.textContent && node.getAttribute("aria-label") === on.getAttribute("aria-label");
  draw();
  if (on && !on.isConnected) [...place.querySelectorAll("a, button, input, summary")].find(same)?.focus({ preventScroll: true });
}

/** A panel with a heading. */
export function panel(title, { aside, id, wide } = {}, ...content) {
  const label = id || fresh("panel");
  return h("section", { class: `panel${wide ? " wide" : ""}`, "aria-labelledby": label },
    h("header", { class: "panel-head" }, h("h2", { id: label }, title), aside && h("div", { class: "row" }, aside)), content);
}

/** Labels and what they say. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== false && pair[1] !== "")
    .map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

/** A table; `columns` are [title, class, cell(row)]. */
export function table(name, columns, rows, { empty = "Nothing to show.", rowClass } = {}) {
  if (!rows.length) return h("p", { class: "dim pad" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": name }, h("table", {},
    h("caption", { class: "hidden" }, name),
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title || h("span", { class: "hidden" }, "Actions"))))),
    h("tbody", {}, rows.map((row) => h("tr", { class: rowClass?.(row) }, columns.map(([, kind, cell]) => h("td", { class: kind }, cell(row))))))));
}

/** A short message that goes away by itself; errors stay until they are closed. */
export function toast(text, tone = "good") {
  const place = document.getElementById("toasts");
  if (!place) return;
  const note = h("div", { class: `toast ${tone}`, role: tone === "bad" ? "alert" : "status" }, icon(tone === "bad" ? "warn" : "check", 18), h("p", {}, marked(text)),
    h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => note.remove() }, icon("cross")));
  place.append(note);
  while (place.children.length > 4) place.firstChild.remove();
  if (tone !== "bad") setTimeout(() => note.remove(), 6000);
}

/** Says that something did not work. */
export function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) console.error(error);
  toast(error instanceof Refused ? [error.field ? `${error.field}: ${error.message}` : error.message, error.hint].filter(Boolean).join(" — ") : "the page made a mistake", "bad");
}

/** Puts a text on the clipboard. The clipboard is the only place it goes to. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch { toast("the browser does not let the page use the clipboard", "bad"); }
}

/** A text with a button that copies it. */
export function copyable(text, what) {
  return h("span", { class: "copyable" }, h("code", {}, text),
    h("button", { type: "button", class: "plain", "aria-label": `Copy ${what}`, title: `Copy ${what}`, onclick: () => copy(text, sentence(what).slice(0, -1)) }, icon("copy")));
}

/** A dialog; `build(close)` gives its content. Resolves with what `close` was given. */
export function dialog(title, build, { size = "" } = {}) {
  return new Promise((resolve) => {
    const label = fresh("dialog");
    let result;
    const node = h("dialog", { class: `dialog ${size}`, "aria-labelledby": label });
    const close = (value) => { result = value; node.close(); };
    put(node, h("header", {}, h("h2", { id: label }, title), h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => close() }, icon("cross"))), build(close));
    node.addEventListener("close", () => { node.remove(); resolve(result); });
    document.body.append(node);
    node.showModal();
    node.querySelector("[autofocus]")?.focus();
  });
}
function put(node, ...children) { node.append(...children.flat().filter(Boolean)); }

/** Asks whether to do something that cannot be undone. */
export function confirm(title, text, action, { kind = "danger" } = {}) {
  return dialog(title, (close) => [
    h("div", { class: "dialog-body" }, [].concat(text).map((line) => (line instanceof Node ? line : h("p", {}, line)))),
    h("footer", {}, button("Cancel", { onclick: () => close(false) }), button(action, { kind, onclick: () => close(true) })),
  ]);
}

/** A list of actions behind a button with three dots. */
export function more(name, actions) {
  const list = actions.filter(Boolean);
  if (!list.length) return null;
  const id = fresh("menu");
  const items = list.map(({ label, sign, onclick, danger }) => h("button", { type: "button", role: "menuitem", class: danger ? "danger" : "", onclick: () => { hide(); onclick(); } }, icon(sign), label));
  const menu = h("div", { class: "menu", id, role: "menu", "aria-label": name, hidden: true }, items);
  const toggle = h("button", { type: "button", class: "button only", "aria-label": name, "aria-haspopup": "menu", "aria-expanded": "false", "aria-controls": id, onclick: () => (menu.hidden ? show() : hide()) }, icon("more"));
  const away = (event) => { if (!box.contains(event.target)) hide(); };
  function show() { menu.hidden = false; toggle.setAttribute("aria-expanded", "true"); items[0].focus(); document.addEventListener("pointerdown", away); }
  function hide() { menu.hidden = true; toggle.setAttribute("aria-expanded", "false"); document.removeEventListener("pointerdown", away); }
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); items[(at + step + items.length) % items.length].focus(); }
    if (event.key === "Escape" || event.key === "Tab") { hide(); toggle.focus(); }
  });
  const box = h("div", { class: "more" }, toggle, menu);
  return box;
}

/** The way to an object: its folders and its name. */
export function pathText(path) {
  const cut = path.lastIndexOf("/");
  return h("span", { class: "path" }, h("span", { class: "dim" }, path.slice(0, cut + 1)), h("b", {}, path.slice(cut + 1)));
}

/** An object's path in an address. */
export const inUrl = (path) => path.split("/").map(encodeURIComponent).join("/");
/** The address of a secret's page. */
export const secretUrl = (name) => `/console/secret${inUrl(name)}`;
/** The address of a target's page. */
export const targetUrl = (name) => `/console/target${inUrl(name)}`;

/** Calls `work` when nothing more was said for a while. */
export function settled(work, ms = 180) {
  let timer;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => work(...args), ms); };
}

/** A file for the user to keep. */
export function save(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce(`${name} saved`);
}

/** Rows as CSV. No cell begins as a formula. */
export function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
