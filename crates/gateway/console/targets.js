// Where passwords are changed: hosts and systems, their host keys, and what is rotated on them.

import { fill, h, icon } from "./dom.js";
import { call, everything, me, peek } from "./api.js";
import { badge, button, confirm, during, failed, facts, into, more, nothing, panel, pathText, secretUrl, sentence, settled, table, tag, targetUrl, toast } from "./widgets.js";
import { prints, trust } from "./actions.js";
import { targetForm } from "./edit.js";
import { when } from "./time.js";

const goTo = (path) => document.dispatchEvent(new CustomEvent("go", { detail: { path } }));

/** The list of targets. */
export function targets(ctx) {
  ctx.title("Targets");
  const place = h("div", {});
  const search = h("input", { type: "search", class: "search", placeholder: "Search by name", "aria-label": "Search by name", "data-search": true, value: ctx.query.get("q") || "", autocomplete: "off", spellcheck: "false" });
  const mayCreate = me().may.targets.includes("create");
  const make = () => h("a", { class: "button primary", href: "/console/new/target" }, icon("plus"), h("span", {}, "New target"));
  const load = async () => {
    const rows = await everything("target-list", { filter: search.value.trim() }, "targets", 2000, { signal: ctx.signal });
    if (!rows.length) return search.value ? nothing("search", "Nothing matches") : nothing("target", "No targets yet", "A target says where a password is changed, and with which privileged credential.", mayCreate && make());
    return table("Targets", [
      ["Name", "name", (one) => h("a", { href: targetUrl(one.target_name) }, pathText(one.target_name))],
      ["Kind", "", (one) => tag(one.target_type)],
      ["Host key", "", (one) => (one.halted ? tag("Changed: stopped", "bad", "warn") : one.host_keys?.length ? tag(one.host_keys.length === 1 ? "Pinned" : `${one.host_keys.length} pinned`, "good", "shield") : h("span", { class: "dim" }, "—"))],
      ["Description", "wide-only", (one) => one.comment || h("span", { class: "dim" }, "—")],
      ["Changed", "wide-only", (one) => when(one.modification_date)],
    ], rows);
  };
  const show = () => into(place, load, 8);
  search.addEventListener("input", settled(() => { history.replaceState(null, "", `/console/targets${search.value ? `?q=${encodeURIComponent(search.value)}` : ""}`); show(); }));
  show();
  return [h("header", { class: "page-head" }, h("h1", {}, "Targets"), mayCreate && make()), h("div", { class: "filters" }, h("div", { class: "search-box" }, icon("search"), search, h("kbd", { "aria-hidden": "true" }, "/"))), place];
}

/** One target. */
export function target(ctx) {
  const name = ctx.name;
  ctx.title(name);
  const head = h("div", {}), about = h("div", {}), place = h("div", { class: "stack" });
  const load = async () => {
    const [found, used] = await Promise.all([peek("target-get", { name, "show-versions": true }, { signal: ctx.signal }), peek("item-search", { "target-name": name, limit: 100 }, { signal: ctx.signal })]);
    const may = found.client_permissions;
    const refresh = () => { if (ctx.alive()) into(place, load); };
    const edit = async () => { try { fill(about, await targetForm(ctx, found, refresh)); } catch (error) { failed(error); } };
    const check = button("Show host key", { sign: "shield", kind: found.halted ? "primary" : "", onclick: () => during(check, async () => { if (await trust(name)) refresh(); }) });
    fill(head, h("header", { class: "page-head" }, h("div", { class: "head-text" }, h("nav", { "aria-label": "Way back" }, h("ol", { class: "crumbs" }, h("li", {}, h("a", { href: "/console/targets" }, "Targets")))), h("h1", {}, name, " ", tag(found.target_type))),
      h("div", { class: "row" }, may.includes("update") && found.host_keys && check, h("a", { class: `button ${found.halted ? "" : "primary"}`, href: `/console/new/secret?target=${encodeURIComponent(name)}` }, icon("plus"), h("span", {}, "Rotated secret")),
        more("More", [may.includes("update") && { label: "Edit", sign: "edit", onclick: edit }, may.includes("delete") && { label: "Delete", sign: "trash", danger: true, onclick: remove }]))));
    fill(about, facts([["Description", found.comment], ["Parent", found.parent_target_name && h("a", { href: targetUrl(found.parent_target_name) }, found.parent_target_name)], ["Version", found.last_version], ["Protection key", found.protection_key_name], ["Made", when(found.creation_date)], ["Changed", when(found.modification_date)], ["Protected from deletion", found.delete_protection ? "yes" : ""]]));
    return [
      found.halted && h("div", { class: "problem" }, icon("warn", 18), h("div", {}, h("p", { class: "strong" }, "Everything on this target is stopped"), h("p", {}, sentence(found.halted)))),
      h("div", { class: "two" }, panel("About", { aside: may.includes("update") && button("Edit", { kind: "plain", onclick: edit }) }, about), found.host_keys && panel("Pinned host keys", {}, prints(found.host_keys))),
      panel("Rotated secrets here", {}, table("Rotated secrets here", [["State", "", (one) => badge(one.state)], ["Name", "name", (one) => h("a", { href: secretUrl(one.item_name) }, pathText(one.item_name))], ["What", "", (one) => one.rotator_type], ["Last rotated", "wide-only", (one) => when(one.last_rotation_date)], ["Next", "wide-only", (one) => when(one.next_rotation_date, { none: "on demand" })]], used.items, { empty: "Nothing is rotated on this target." })),
      panel("Versions", {}, table("Versions", [["Version", "", (one) => h("b", {}, one.version)], ["Made", "", (one) => when(one.creation_date)], ["By", "", (one) => h("code", {}, one.access_id || "—")]], found.target_versions || [])),
    ];
  };
  async function remove() {
    if (!(await confirm(`Delete ${name}?`, "The privileged credential stored with it is deleted for good. Secrets on it must be deleted first.", "Delete"))) return;
    try { await call("target-delete", { name }); toast(`${name} was deleted`); goTo("/console/targets"); } catch (error) { failed(error); }
  }
  into(place, load, 8);
  fill(head, h("header", { class: "page-head" }, h("h1", {}, name)));
  return [head, place];
}
