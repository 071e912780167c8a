// The shell: who is signed in, where one is, what is loaded for it.

import { announce, fill, h, icon, mark } from "./dom.js";
import { call, forgetMe, me, signOut, whoAmI } from "./api.js";
import { confirm, failed, more, nothing, problem, waiting } from "./widgets.js";
import { refreshTimes } from "./time.js";
import { signInPage } from "./signin.js";
import { overview } from "./overview.js";
import { secrets } from "./secrets.js";
import { secret } from "./secret.js";
import { editSecret, newSecret, newStatic, newTarget } from "./edit.js";
import { target, targets } from "./targets.js";
import { identities, identity, role, roles, whoMay } from "./access.js";
import { audit } from "./audit.js";
import { report } from "./report.js";

const root = document.getElementById("app");

const PLACES = [
  { path: "", title: "Overview", sign: "overview", view: overview },
  { path: "secrets", title: "Secrets", sign: "secret", view: secrets },
  { path: "targets", title: "Targets", sign: "target", view: targets },
  { path: "roles", title: "Access", sign: "people", view: roles },
  { path: "audit", title: "Audit log", sign: "audit", view: audit },
  { path: "report", title: "Report", sign: "report", view: report },
];

// The first match counts; what follows the word is the object's path.
const ROUTES = [
  ["new/target", newTarget, "targets"], ["new/secret", newSecret, "secrets"], ["new/static", newStatic, "secrets"],
  ["edit/secret/", editSecret, "secrets"],
  ["secret/", secret, "secrets"], ["target/", target, "targets"], ["role/", role, "roles"], ["identities", identities, "roles"],
  ["identity/", identity, "roles"], ["who-may", whoMay, "roles"],
  ...PLACES.map((place) => [place.path, place.view, place.path]),
];

let current; // { stop: AbortController, timers }

/** Goes somewhere in the console. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  if (!replace) scrollTo(0, 0);
  show();
  document.getElementById("main")?.focus({ preventScroll: true });
}

function theme() {
  const kept = localStorage.getItem("theme");
  document.documentElement.dataset.theme = kept === "dark" || kept === "light" ? kept : "";
  const button = document.getElementById("theme"), dark = shownTheme() === "dark";
  if (button) fill(button, icon(dark ? "sun" : "moon", 18), dark ? "Light" : "Dark");
}

function shownTheme() {
  const kept = document.documentElement.dataset.theme;
  return kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function shell() {
  const nav = h("nav", { class: "side", id: "side", "aria-label": "Console" },
    h("a", { class: "brand", href: "/console" }, mark(28), h("span", {}, "Volvelle")),
    h("ul", {}, PLACES.map((place) => h("li", {}, h("a", { href: place.path ? `/console/${place.path}` : "/console", "data-place": place.path }, icon(place.sign, 18), place.title)))),
    h("div", { class: "side-foot" },
      h("button", { type: "button", class: "plain", id: "theme", onclick: () => {
        localStorage.setItem("theme", shownTheme() === "dark" ? "light" : "dark");
        theme();
      } }),
      h("div", { class: "who" }, h("div", { class: "who-text" }, h("b", {}, me().auth_method_name), h("span", { class: "dim small" }, me().access_id)),
        more("Your session", [
          { label: "Sign out", sign: "out", onclick: () => leave(signOut) },
          { label: "Sign out everywhere", sign: "lock", onclick: everywhere },
        ]))));
  const toggle = h("button", { type: "button", class: "plain", "aria-label": "Menu", "aria-expanded": "false", "aria-controls": "side", onclick: () => {
    const open = nav.classList.toggle("open");
    toggle.setAttribute("aria-expanded", String(open));
  } }, icon("menu", 22));
  fill(root, h("a", { class: "skip", href: "#main" }, "Skip to the content"), h("header", { class: "top" }, toggle, h("a", { class: "brand", href: "/console" }, mark(24), "Volvelle")), nav,
    h("main", { id: "main", tabindex: "-1" }), h("div", { id: "toasts", class: "toasts" }), h("p", { id: "announce", class: "hidden", role: "status" }));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);

async function everywhere() {
  const sure = await confirm("Sign out everywhere?", ["Every session and every token of this identity ends at once: those of its programs too, which have to sign in again."], "Sign out everywhere");
  if (sure) leave(() => call("revoke-all-tokens"));
}

async function leave(how) {
  try {
    await how();
    await signOut().catch(() => {});
    door("You are signed out.");
  } catch (error) { failed(error); }
}

function door(note) {
  stop();
  forgetMe();
  document.querySelectorAll("dialog").forEach((node) => node.remove());
  document.title = "Sign in — Volvelle";
  fill(root, signInPage(enter, note));
}

function stop() {
  current?.stop.abort();
  current?.timers.forEach(clearInterval);
  current = undefined;
}

function place() {
  const path = location.pathname.replace(/^\/console\/?/, "").replace(/\/$/, "");
  for (const [word, view, area] of ROUTES) {
    if (word.endsWith("/") && path.startsWith(word)) {
      return { view, area, name: `/${path.slice(word.length).split("/").map(decodeURIComponent).join("/")}` };
    }
    if (path === word) return { view, area, name: "" };
  }
  return null;
}

function show() {
  stop();
  document.getElementById("side")?.classList.remove("open");
  const main = document.getElementById("main");
  const found = place();
  const abort = new AbortController();
  current = { stop: abort, timers: [] };
  const mine = current;
  const ctx = {
    name: found?.name || "",
    query: new URLSearchParams(location.search),
    signal: abort.signal,
    alive: () => current === mine,
    title(text) { document.title = `${text} — Volvelle`; announce(text); },
    /** Runs `work` now and then while the page is looked at. */
    every(ms, work) {
      mine.timers.push(setInterval(() => { if (!document.hidden) work(); }, ms));
    },
    leave(work) { abort.signal.addEventListener("abort", work, { once: true }); },
  };
  document.querySelectorAll("[data-place]").forEach((link) => {
    if (link.dataset.place === found?.area) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  });
  try {
    fill(main, found ? found.view(ctx) : [h("header", { class: "page-head" }, h("h1", {}, "Nowhere")), nothing("search", "There is nothing here", "The address may be mistyped.", h("a", { class: "button", href: "/console" }, "Overview"))]);
  } catch (error) { fill(main, problem(error)); }
}

async function enter() {
  await whoAmI();
  shell();
  theme();
  show();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/console']");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return;
  event.preventDefault();
  const same = link.getAttribute("href") === location.pathname + location.search;
  go(link.getAttribute("href"), { replace: same });
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    const search = document.querySelector("[data-search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); } else if (me()) { event.preventDefault(); go("/console/secrets"); }
  }
});
document.addEventListener("signed-out", () => { if (me()) door("Your session has ended. Sign in again to go on."); });
document.addEventListener("go", (event) => go(event.detail.path, event.detail));
addEventListener("popstate", () => { if (me()) show(); });

setInterval(refreshTimes, 15_000);

theme();
fill(root, h("div", { class: "boot" }, waiting(3)));
try { await enter(); } catch (error) {
  if (error.code === "unauthenticated") door();
  else fill(root, h("main", { id: "main", class: "signin" }, problem(error, () => location.reload())), h("div", { id: "toasts", class: "toasts" }));
}
