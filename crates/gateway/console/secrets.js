// All secrets: a tree of folders, and a table that is searched, filtered, sorted and paged by the gateway.

import { fill, h, icon } from "./dom.js";
import { kinds, me, peek } from "./api.js";
import { badge, button, nothing, pathText, problem, secretUrl, settled, STATES, targetUrl, waiting } from "./widgets.js";
import { when } from "./time.js";

const PAGE = 50;
const COLUMNS = [["state", "State"], ["name", "Name"], [null, "Target"], ["last", "Last rotated"], ["next", "Next"]];
const SHOWN_STATES = ["settled", "rotating", "in_doubt", "out_of_sync", "failed", "overdue", "new", "disabled", "static"];

/** The list of secrets. */
export function secrets(ctx) {
  ctx.title("Secrets");
  const q = ctx.query;
  const asked = {
    filter: q.get("q") || "", path: q.get("folder") || "", state: q.getAll("state"), kind: q.get("kind") || "", "target-name": q.get("target") || "",
    tag: q.get("tag") || "", sort: q.get("sort") || "name", descending: q.get("way") === "down",
  };
  let tokens = [""], at = 0, total = null, turn = 0;
  const body = h("div", { class: "list-body" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "States" });
  const pager = h("div", { class: "pager" });

  const search = h("input", { type: "search", class: "search", placeholder: "Search by name", "aria-label": "Search by name", value: asked.filter, "data-search": true, autocomplete: "off", spellcheck: "false" });
  const kind = h("select", { "aria-label": "Kind of target" }, h("option", { value: "" }, "Any kind"));
  const target = h("input", { class: "narrow", placeholder: "Target", "aria-label": "Target", value: asked["target-name"], autocomplete: "off", list: "target-names", spellcheck: "false" });
  const names = h("datalist", { id: "target-names" });
  const tag = h("input", { class: "narrow", placeholder: "Tag", "aria-label": "Tag", value: asked.tag, autocomplete: "off", spellcheck: "false" });
  kinds().then((all) => { kind.append(...all.filter((one) => one !== "linked").map((one) => h("option", { value: one }, one))); kind.value = asked.kind; }).catch(() => {});

  const change = () => { tokens = [""]; at = 0; total = null; load(); };
  search.addEventListener("input", settled(() => { asked.filter = search.value.trim(); change(); }));
  tag.addEventListener("input", settled(() => { asked.tag = tag.value.trim(); change(); }, 350));
  target.addEventListener("input", settled(async () => {
    asked["target-name"] = target.value.trim();
    change();
    try { fill(names, (await peek("target-list", { filter: target.value.trim() }, { signal: ctx.signal })).targets.slice(0, 20).map((one) => h("option", { value: one.target_name }))); } catch { /* only a help */ }
  }, 350));
  kind.addEventListener("change", () => { asked.kind = kind.value; change(); });

  function remember() {
    const out = new URLSearchParams();
    if (asked.filter) out.set("q", asked.filter);
    if (asked.path) out.set("folder", asked.path);
    for (const state of asked.state) out.append("state", state);
    if (asked.kind) out.set("kind", asked.kind);
    if (asked["target-name"]) out.set("target", asked["target-name"]);
    if (asked.tag) out.set("tag", asked.tag);
    if (asked.sort !== "name") out.set("sort", asked.sort);
    if (asked.descending) out.set("way", "down");
    const text = out.toString();
    history.replaceState(null, "", `/console/secrets${text ? `?${text}` : ""}`);
  }

  async function load({ quiet = false } = {}) {
    const mine = ++turn;
    remember();
    body.setAttribute("aria-busy", "true");
    if (!body.firstChild) fill(body, waiting(10));
    try {
      const answer = await peek("item-search", { ...asked, limit: PAGE, "pagination-token": tokens[at] }, { signal: ctx.signal });
      if (mine !== turn) return;
      if (answer.total !== undefined) total = answer.total;
      tokens[at + 1] = answer.next_page;
      draw(answer);
      if (answer.states) drawChips(answer.states);
    } catch (error) {
      if (mine === turn && error.name !== "AbortError" && !quiet) fill(body, problem(error, () => load()));
    } finally { if (mine === turn) body.removeAttribute("aria-busy"); }
  }

  let counts = {};
  function drawChips(states) {
    // With a state chosen the gateway counts only that one; the others keep what was counted before.
    counts = asked.state.length ? { ...counts, ...states } : states;
    fill(chips, SHOWN_STATES.filter((state) => counts[state] || asked.state.includes(state)).map((state) => {
      const on = asked.state.includes(state);
      return h("button", { type: "button", class: `chip ${STATES[state][1]}`, "aria-pressed": String(on), title: STATES[state][3], onclick: () => {
        asked.state = on ? asked.state.filter((one) => one !== state) : [...asked.state, state];
        drawChips({});
        change();
      } }, icon(STATES[state][2], 14), STATES[state][0], counts[state] !== undefined && h("span", { class: "chip-count" }, counts[state].toLocaleString()));
    }));
  }

  function draw(answer) {
    const filtered = asked.filter || asked.path || asked.state.length || asked.kind || asked["target-name"] || asked.tag;
    if (!answer.items.length && at === 0) {
      fill(pager);
      fill(body, filtered
        ? nothing("search", "Nothing matches", "No secret has all that is asked for.", button("Clear the filters", { onclick: () => document.dispatchEvent(new CustomEvent("go", { detail: { path: "/console/secrets", replace: true } })) }))
        : nothing("secret", "No secrets yet", "A rotated secret is an account on a target whose password Volvelle changes and keeps.", me().may.items.includes("create") && h("a", { class: "button primary", href: "/console/new/secret" }, icon("plus"), h("span", {}, "New rotated secret"))));
      return;
    }
    const had = document.activeElement?.closest?.("tr")?.dataset.name;
    const heads = COLUMNS.map(([key, title]) => {
      if (!key) return h("th", { scope: "col", class: "wide-only" }, title);
      const on = asked.sort === key;
      return h("th", { scope: "col", "aria-sort": on ? (asked.descending ? "descending" : "ascending") : null, class: key === "last" ? "wide-only" : "" },
        h("button", { type: "button", class: "sort", onclick: () => { if (on) asked.descending = !asked.descending; else { asked.sort = key; asked.descending = false; } change(); } }, title, on && icon(asked.descending ? "down" : "up", 14)));
    });
    const rows = answer.items.map((row, n) => h("tr", { "data-name": row.item_name, tabindex: n === 0 ? "0" : "-1" },
      h("td", {}, badge(row.state)),
      h("td", { class: "name" }, h("a", { href: secretUrl(row.item_name), tabindex: "-1" }, pathText(row.item_name)), row.item_tags.length > 0 && h("span", { class: "tags" }, row.item_tags.slice(0, 4).map((one) => h("span", { class: "tag" }, one)))),
      h("td", { class: "wide-only" }, row.target_name ? h("a", { href: targetUrl(row.target_name), tabindex: "-1" }, row.target_name) : h("span", { class: "dim" }, "—")),
      h("td", { class: "wide-only" }, row.item_type === "STATIC_SECRET" ? h("span", { class: "dim" }, "—") : when(row.last_rotation_date)),
      h("td", {}, row.next_rotation_date ? when(row.next_rotation_date) : h("span", { class: "dim" }, row.item_type === "STATIC_SECRET" ? "—" : "on demand"))));
    fill(body, h("table", { class: "rows", onkeydown: keys, onclick: open }, h("caption", { class: "hidden" }, "Secrets"), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)));
    if (had) body.querySelector(`tr[data-name="${CSS.escape(had)}"]`)?.focus();
    const from = at * PAGE;
    fill(pager, h("span", { class: "dim", role: "status" }, `${(from + 1).toLocaleString()}–${(from + answer.items.length).toLocaleString()}${total !== null ? ` of ${total.toLocaleString()}` : ""}`),
      button("", { sign: "left", kind: "only", name: "Previous page", disabled: at === 0, onclick: () => { at--; load().then(top); } }),
      button("", { sign: "right", kind: "only", name: "Next page", disabled: !answer.next_page, onclick: () => { at++; load().then(top); } }));
  }
  const top = () => { body.querySelector("tbody tr")?.focus({ preventScroll: true }); scrollTo({ top: 0 }); };

  function open(event) {
    const row = event.target.closest("tbody tr");
    if (row && !event.target.closest("a, button") && !getSelection().toString()) row.querySelector("a").click();
  }
  function keys(event) {
    const row = event.target.closest("tbody tr");
    if (!row) return;
    const move = (to) => { if (to) { event.preventDefault(); row.tabIndex = -1; to.tabIndex = 0; to.focus(); } };
    if (event.key === "ArrowDown" || event.key === "j") move(row.nextElementSibling);
    else if (event.key === "ArrowUp" || event.key === "k") move(row.previousElementSibling);
    else if (event.key === "Home") move(row.parentNode.firstElementChild);
    else if (event.key === "End") move(row.parentNode.lastElementChild);
    else if (event.key === "Enter") { event.preventDefault(); row.querySelector("a").click(); }
    else if (event.key === "PageDown" && tokens[at + 1]) { event.preventDefault(); at++; load().then(top); }
    else if (event.key === "PageUp" && at > 0) { event.preventDefault(); at--; load().then(top); }
  }
  search.addEventListener("keydown", (event) => { if (event.key === "ArrowDown") { event.preventDefault(); body.querySelector("tbody tr")?.focus(); } });

  const choose = (folder) => { asked.path = folder === "/" ? "" : folder; mark(); change(); };
  const tree = h("ul", { class: "tree", role: "tree", "aria-label": "Folders" });
  const mark = () => tree.querySelectorAll("[role=treeitem]").forEach((node) => node.setAttribute("aria-selected", String(node.dataset.folder === (asked.path || "/"))));
  folderTree(ctx, tree, asked.path, choose).then(mark);
  load();
  ctx.every(60_000, () => load({ quiet: true }));

  return [
    h("header", { class: "page-head" }, h("h1", {}, "Secrets"), me().may.items.includes("create") && h("div", { class: "row" }, h("a", { class: "button", href: "/console/new/static" }, icon("plus"), h("span", {}, "Static")), h("a", { class: "button primary", href: "/console/new/secret" }, icon("plus"), h("span", {}, "Rotated secret")))),
    h("div", { class: "with-tree" }, h("nav", { class: "folders", "aria-label": "Folders" }, tree),
      h("div", { class: "list" }, h("div", { class: "filters" }, h("div", { class: "search-box" }, icon("search"), search, h("kbd", { "aria-hidden": "true" }, "/")), kind, target, names, tag), chips, body, pager)),
  ];
}

async function children(ctx, folder) {
  const all = [];
  let token = "";
  do {
    const page = await peek("folder-list", { path: folder, "pagination-token": token }, { signal: ctx.signal });
    all.push(...page.folders);
    token = page.next_page;
  } while (token && all.length < 2000);
  return all;
}

/** A tree that is asked for as it is opened; what was chosen is open from the start. */
async function folderTree(ctx, root, chosen, choose) {
  const node = (folder, name, level) => {
    const list = h("ul", { role: "group", hidden: true });
    const row = h("li", { role: "treeitem", "data-folder": folder, "aria-level": level, "aria-expanded": "false", "aria-selected": "false", tabindex: "-1" },
      h("span", { class: "tree-row", onclick: (event) => { event.stopPropagation(); if (event.target.closest(".twist")) toggle(); else { focus(row); choose(folder); if (list.hidden) toggle(); } } },
        h("span", { class: "twist" }, icon("right", 14)), icon("folder", 16), h("span", { class: "tree-name" }, name)), list);
    let loaded = false;
    async function toggle() {
      const opening = list.hidden;
      if (opening && !loaded) {
        loaded = true;
        const inner = await children(ctx, folder).catch(() => { loaded = false; return []; });
        fill(list, inner.map((one) => node(one, one.slice(folder.length, -1), level + 1).row));
        row.classList.toggle("leaf", inner.length === 0);
      }
      list.hidden = !opening || !list.firstChild;
      row.setAttribute("aria-expanded", String(!list.hidden));
    }
    row.toggleFolder = toggle;
    row.choose = () => choose(folder);
    return { row, toggle, list };
  };
  const focus = (row) => { root.querySelectorAll("[role=treeitem]").forEach((one) => { one.tabIndex = -1; }); row.tabIndex = 0; row.focus({ preventScroll: true }); };
  const top = h("li", { role: "treeitem", "data-folder": "/", "aria-level": 1, "aria-selected": "true", tabindex: "0" }, h("span", { class: "tree-row all", onclick: () => { focus(top); choose("/"); } }, icon("secret", 16), h("span", { class: "tree-name" }, "All secrets")));
  top.choose = () => choose("/");
  fill(root, top);
  root.addEventListener("keydown", (event) => {
    const row = event.target.closest("[role=treeitem]");
    if (!row) return;
    const seen = [...root.querySelectorAll("[role=treeitem]")].filter((one) => !one.parentNode.closest("ul[hidden]"));
    const at = seen.indexOf(row), open = row.getAttribute("aria-expanded") === "true";
    const act = { ArrowDown: () => seen[at + 1] && focus(seen[at + 1]), ArrowUp: () => seen[at - 1] && focus(seen[at - 1]), ArrowRight: () => !open && row.toggleFolder?.(), ArrowLeft: () => (open ? row.toggleFolder() : row.parentNode.closest("[role=treeitem]") && focus(row.parentNode.closest("[role=treeitem]"))), Enter: () => row.choose(), " ": () => row.choose() }[event.key];
    if (act) { event.preventDefault(); event.stopPropagation(); act(); }
  });
  try {
    let level = (await children(ctx, "/")).map((one) => node(one, one.slice(1, -1), 1));
    root.append(...level.map((one) => one.row));
    for (let depth = 0; chosen && depth < 20; depth++) {
      const next = level.find((one) => chosen.startsWith(one.row.dataset.folder));
      if (!next) break;
      await next.toggle();
      if (next.row.dataset.folder === chosen) break;
      level = [...next.list.children].map((row) => ({ row, toggle: row.toggleFolder, list: row.querySelector("ul") }));
    }
  } catch (error) { if (error.name !== "AbortError") root.append(h("li", { class: "dim small pad" }, "The folders cannot be listed.")); }
}
