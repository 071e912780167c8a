// One secret: its value behind a door, how it is doing, what happened to it, who can read it.

import { announce, fill, h, icon } from "./dom.js";
import { call, me, peek } from "./api.js";
import { badge, button, copy, during, failed, facts, into, keepFocus, marked, more, nothing, panel, problem, secretUrl, sentence, table, tag, targetUrl, inUrl, waiting } from "./widgets.js";
import { line, lineLegend, progress, stageWord } from "./chart.js";
import { removeSecret, repair, rotate, setState, trust, verify } from "./actions.js";
import { instant, span, when } from "./time.js";

/** Seconds for which a value is shown. */
const SHOWN = 30;

/** The page of one secret. */
export function secret(ctx) {
  const name = ctx.name;
  ctx.title(name);
  const head = h("div", {}), body = h("div", { class: "stack" });
  const live = h("div", {}), history = h("div", {}), versions = h("div", {}), readers = h("div", {}), settings = h("div", {});
  const value = valuePanel(ctx, name);
  let item, row, drawn, built = false;

  async function load() {
    const [described, found] = await Promise.all([
      peek("describe-item", { name, "show-versions": true }, { signal: ctx.signal }),
      peek("item-search", { filter: name, path: name.slice(0, name.lastIndexOf("/")), limit: 100 }, { signal: ctx.signal }),
    ]);
    item = described;
    row = found.items.find((one) => one.item_name === name) || { state: "settled", item_name: name };
    if (!ctx.alive()) return;
    const now = JSON.stringify([item, row]);
    if (now !== drawn) keepFocus(head, draw);
    drawn = now;
  }

  function draw() {
    const rotated = item.item_type === "ROTATED_SECRET", may = item.client_permissions;
    fill(head, header(item, row, rotated, may));
    if (!built) {
      built = true;
      fill(body, h("div", { class: "two" }, value.node, panel(rotated ? "How it is doing" : "About", { aside: may.includes("update") && h("a", { href: `/console/edit/secret${inUrl(name)}` }, "Edit") }, settings)), live,
        rotated && panel("Rotations", { aside: lineLegend() }, history), panel("Versions", {}, versions), panel("Who can read this", { aside: h("a", { href: `/console/who-may?path=${encodeURIComponent(name)}` }, "Explain") }, readers));
      into(readers, () => whoReads(ctx, name), 3);
    }
    value.set(item, may);
    fill(settings, rotated ? doing(item, row) : facts([["Kind", isKey(item) ? "Protection key" : "Static secret"], ["Description", item.item_metadata], ["Tags", tags(item)], ...sealing(item), ["Made", when(item.creation_date)], ["Changed", when(item.modification_date)]]));
    fill(versions, versionTable(item));
    if (rotated) loadHistory();
  }

  async function loadHistory() {
    try {
      const { rotations } = await peek("rotation-list", { name, limit: 30 }, { signal: ctx.signal });
      fill(history, timeline(rotations));
      const open = rotations.filter((one) => !one.ended_at);
      fill(live, open.length > 0 && running(open));
      return open.length;
    } catch (error) { if (error.name !== "AbortError") fill(history, problem(error)); return 0; }
  }

  /** Looks often while something runs. */
  let watching;
  function watch() {
    clearInterval(watching);
    watching = setInterval(async () => { if (!ctx.alive()) clearInterval(watching); else await loadHistory(); }, 350);
  }
  async function act(work) {
    watch();
    try { await work(); } finally {
      clearInterval(watching);
      if (ctx.alive()) { value.forget(); await load().catch(failed); }
    }
  }
  ctx.leave(() => { clearInterval(watching); value.forget(); });

  function header(item, row, rotated, may) {
    const update = may.includes("update");
    const crumbs = name.split("/").slice(1, -1).map((part, n, all) => h("li", {}, h("a", { href: `/console/secrets?folder=${encodeURIComponent(`/${all.slice(0, n + 1).join("/")}/`)}` }, part)));
    const go = (label, sign, kind, work, id) => {
      const node = button(label, { sign, kind, onclick: () => during(node, () => act(work)) });
      node.id = id;
      return node;
    };
    const helping = row.target_halted ? "trust" : row.state === "out_of_sync" ? "repair" : "rotate";
    return h("header", { class: "page-head" },
      h("div", { class: "head-text" }, h("nav", { "aria-label": "Folders" }, h("ol", { class: "crumbs" }, h("li", {}, h("a", { href: "/console/secrets" }, "Secrets")), crumbs)), h("h1", {}, name.split("/").at(-1), " ", badge(row.state))),
      h("div", { class: "row" },
        rotated && update && helping === "trust" && go("Trust host key", "shield", "primary", () => trust(row.target_name), "act-trust"),
        rotated && update && go("Repair", "wrench", helping === "repair" ? "primary" : "", () => repair(name), "act-repair"),
        rotated && may.includes("read") && go("Verify", "check", "", () => verify(name), "act-verify"),
        rotated && update && go("Rotate now", "refresh", helping === "rotate" ? "primary" : "", () => rotate(name), "act-rotate"),
        more("More", [
          update && { label: "Edit", sign: "edit", onclick: () => goTo(`/console/edit/secret${inUrl(name)}`) },
          update && rotated && { label: item.is_enabled ? "Disable" : "Enable", sign: "off", onclick: () => act(() => setState(name, item.is_enabled ? "disabled" : "enabled")) },
          item.locking_info && { label: "Check in", sign: "lock", onclick: () => act(() => call("unlock-item", { name }).catch(failed)) },
          may.includes("delete") && { label: "Delete", sign: "trash", danger: true, onclick: async () => { if (await removeSecret(name, rotated)) goTo("/console/secrets"); } },
        ])));
  }

  into(body, async () => { await load(); return [...body.childNodes]; }, 10);
  fill(head, h("header", { class: "page-head" }, h("h1", {}, name.split("/").at(-1))));
  ctx.every(30_000, () => { if (built && !document.querySelector("[aria-busy=true]")) load().catch(() => {}); });
  return [head, body];
}

const goTo = (path) => document.dispatchEvent(new CustomEvent("go", { detail: { path } }));
const tags = (item) => item.item_tags?.length > 0 && h("span", { class: "tags" }, item.item_tags.map((one) => h("a", { class: "tag", href: `/console/secrets?tag=${encodeURIComponent(one)}` }, one)));

function doing(item, row) {
  const details = item.item_general_info.rotated_secret_details, target = item.item_targets_assoc[0], policy = item.item_general_info.password_policy;
  const schedule = details.rotation_cron ? `At ${details.rotation_cron} (${details.rotation_time_zone || "UTC"})` : item.auto_rotate ? `Every ${item.rotation_interval} ${item.rotation_interval === 1 ? "day" : "days"}` : "Only on demand";
  const classes = [["use_lower_letters", "a–z"], ["use_capital_letters", "A–Z"], ["use_numbers", "0–9"], ["use_special_characters", "special"]].filter(([key]) => policy[key]).map(([, word]) => word).join(" ");
  return [
    row.target_halted && h("div", { class: "problem" }, icon("warn", 18), h("div", {}, h("p", {}, marked(row.target_halted)))),
    details.last_rotation_error && h("div", { class: "problem" }, icon("warn", 18), h("div", {}, h("p", {}, marked(details.last_rotation_error)))),
    facts([
      ["Target", h("a", { href: targetUrl(target.target_name) }, target.target_name)],
      ["Account", details.username || (details.rotator_type === "target-rotator" && "the target's own")],
      ["Changes with", details.rotator_creds_type === "use-target-creds" ? "the target's credential" : "its own credential"],
      ["Last rotated", when(item.last_rotation_date)],
      ["Seen to work", when(details.last_verified_date)],
      ["Next rotation", item.is_enabled ? when(item.next_rotation_date, { none: "on demand" }) : h("span", { class: "dim" }, "disabled")],
      ["Schedule", schedule],
      ["New passwords", `${policy.password_length} characters: ${classes}`],
      ["Checked out", item.locking_info && `by ${item.locking_info.locked_by}`],
      ["Description", item.item_metadata],
      ["Tags", tags(item)],
      ...sealing(item),
    ]),
  ];
}

function running(open) {
  return h("section", { class: "panel live", "aria-label": "Running rotation" }, open.map((one) => h("div", {},
    h("p", { class: "strong" }, one.host ? `${one.host}: ` : "", "Rotation under way", h("span", { class: "dim" }, ` · ${one.cause} · `, when(one.started_at))), progress(one), one.message && h("p", { class: "dim small" }, sentence(one.message)))));
}

const CAUSES = { schedule: "on schedule", manual: "by hand", unlock: "after check-in", repair: "repair" };
const ENDS = { done: ["Rotated", "good", "check"], failed: ["Failed", "warn", "warn"], out_of_sync: ["Out of sync", "bad", "cross"] };

function timeline(rotations) {
  if (!rotations.length) return nothing("clock", "No rotation yet", "Press Rotate now, or wait for its schedule.");
  return h("ol", { class: "timeline" }, rotations.map((one) => {
    const [word, tone, sign] = ENDS[one.stage] || [stageWord(one.stage), "busy", "refresh"];
    const took = one.ended_at ? (instant(one.ended_at) - instant(one.started_at)) / 1000 : null;
    return h("li", { class: tone }, h("div", { class: "timeline-what" }, tag(word, one.ended_at ? tone : "busy moving", sign), when(one.started_at), h("span", { class: "dim" }, CAUSES[one.cause] || one.cause, one.requested_by && !["", "planner"].includes(one.requested_by) ? ` · ${one.requested_by}` : ""), one.host && h("code", {}, one.host)),
      line(one) || (took !== null && h("span", { class: "dim small" }, span(took))), one.message && h("p", { class: "timeline-why" }, marked(one.message)));
  }));
}

const KEPT = { Enabled: ["Current", "good"], Candidate: ["Candidate", "warn"], Grace: ["Still works", "quiet"], Retired: ["Retired", "quiet"], Rejected: ["Not on the target", "quiet"] };
function versionTable(item) {
  const hosts = (item.item_versions || []).some((one) => one.host);
  return table("Versions", [
    ["Version", "", (one) => h("b", {}, one.version)],
    hosts && ["Host", "", (one) => h("code", {}, one.host)],
    ["State", "", (one) => tag(...(KEPT[one.item_version_state] || [one.item_version_state]))],
    ["Made", "", (one) => when(one.creation_date)],
    ["Why", "", (one) => CAUSES[one.reason] || one.reason],
    ["By", "", (one) => h("code", {}, one.access_id || "—")],
    ["Seen to work", "", (one) => when(one.verified_at, { none: "—" })],
  ].filter(Boolean), item.item_versions || [], { empty: "No value is stored yet." });
}

async function whoReads(ctx, name) {
  const { identities, complete } = await peek("explain-access", { path: name }, { signal: ctx.signal });
  const readers = identities.filter((one) => one.capabilities.includes("read") && !one.expired);
  return [
    table("Who can read this", [
      ["Identity", "", (one) => h("a", { href: `/console/identity${inUrl(one.auth_method_name)}` }, one.auth_method_name)],
      ["Through", "", (one) => one.reasons.filter((why) => why.capabilities.includes("read")).map((why, n) => [n > 0 && ", ", h("a", { href: `/console/role${inUrl(why.role_name)}` }, why.role_name), " ", h("span", { class: "dim" }, why.rule_path)])],
      ["May also", "", (one) => one.capabilities.filter((word) => !["read", "list"].includes(word)).join(", ") || "—"],
    ], readers, { empty: complete ? "Nobody can read it." : "Nobody that you may know of can read it." }),
    !complete && h("p", { class: "dim small pad" }, "There may be others: your roles do not let you see every role and identity."),
  ];
}

const isKey = (item) => item.item_type === "AES256GCM";

/** What it is sealed with, as facts. */
function sealing(item) {
  const state = { missing: "missing here", wrong: "another one here" }[item.customer_fragment_state];
  return [["Protection key", item.protection_key_name && h("a", { href: secretUrl(item.protection_key_name) }, item.protection_key_name)],
    ["Customer's fragment", item.customer_fragment_id && [item.customer_fragment_id, state && h("span", { class: "badge bad" }, icon("warn", 14), state)]]];
}

/** The value: asked for only when somebody wants to see or copy it, and forgotten after a while. */
function valuePanel(ctx, name) {
  const place = h("div", { class: "value" });
  let timer, item, may = [], shown = false;
  const read = async () => {
    if (item.item_type === "ROTATED_SECRET") {
      const { value } = await call("rotated-secret-get-value", { name }, { signal: ctx.signal });
      return value.linked_hosts ? Object.entries(value.linked_hosts).flatMap(([host, own]) => Object.entries(own).map(([key, text]) => [key, text, host])) : Object.entries(value).map(([key, text]) => [key, text, ""]);
    }
    const values = await call("get-secret-value", { names: [name] }, { signal: ctx.signal });
    return [["value", values[name], ""]];
  };
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const isSecret = (key) => !["username", "user", "host", "public_key", "access_id", "application_id"].includes(key);

  function hidden() {
    clearInterval(timer);
    shown = false;
    if (!may.includes("read")) return fill(place, h("p", { class: "dim" }, icon("lock"), " Your roles do not let you read the value."));
    if (isKey(item)) return fill(place, h("p", { class: "dim" }, "It has no value: other things are sealed with it."));
    const has = item.item_type !== "ROTATED_SECRET" || item.last_version > 0;
    if (!has) return fill(place, h("p", { class: "dim" }, "No value is stored yet: it comes with the first rotation."));
    const reveal = button("Reveal", { sign: "eye", onclick: () => during(reveal, async () => { try { show(await read()); } catch (error) { failed(error); } }) });
    reveal.id = "reveal";
    const take = button("Copy", { sign: "copy", onclick: () => during(take, async () => {
      try {
        const fields = await read();
        const wanted = fields.filter(([key]) => isSecret(key));
        await copy(wanted.length === 1 ? text(wanted[0][1]) : wanted.map(([key, value, host]) => `${host ? `${host} ` : ""}${key}: ${text(value)}`).join("\n"), "The value was");
      } catch (error) { failed(error); }
    }) });
    take.id = "copy-value";
    fill(place, h("p", { class: "veil", "aria-label": "The value is hidden" }, "••••••••••••••••"), h("div", { class: "row" }, reveal, take), h("p", { class: "help" }, "Each look is written to the audit log. Copying does not show the value."));
  }

  function show(fields) {
    shown = true;
    let left = SHOWN;
    const hide = button("Hide", { sign: "hide", onclick: () => { hidden(); place.querySelector("#reveal")?.focus(); } });
    const clock = h("span", { class: "dim small" }, `Hidden again in ${left} s`);
    fill(place, h("dl", { class: "revealed" }, fields.map(([key, value, host]) => h("div", {}, h("dt", {}, host && h("code", {}, `${host} `), key), h("dd", {}, h("code", { class: isSecret(key) ? "shown" : "", "data-value": key }, text(value)), h("button", { type: "button", class: "plain", "aria-label": `Copy ${key}`, title: "Copy", onclick: () => copy(text(value), `The ${key} was`) }, icon("copy")))))),
      h("div", { class: "row" }, hide, clock));
    hide.focus();
    announce("The value is shown for 30 seconds");
    clearInterval(timer);
    timer = setInterval(() => { left--; clock.textContent = `Hidden again in ${left} s`; if (left <= 0) { hidden(); announce("The value is hidden again"); } }, 1000);
  }

  fill(place, waiting(2));
  return {
    node: panel("Value", {}, place),
    set(next, permissions) { const first = !item; item = next; may = permissions; if (first || (!shown && item.last_version !== next.last_version)) hidden(); },
    forget() { clearInterval(timer); if (shown && item) hidden(); },
  };
}

