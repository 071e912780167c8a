// What auditors ask for: every privileged account, when its password was changed, and whether that is as the policy says.

import { h, icon } from "./dom.js";
import { me, peek } from "./api.js";
import { badge, button, csv, during, failed, into, nothing, panel, save, secretUrl, STATES, table, tag, toast } from "./widgets.js";
import { exact, instant, span, when } from "./time.js";

/** Lines on the page; the file has all of them. */
const SHOWN = 500;
/** Lines of the file. */
const MOST = 200_000;
const DAY = 86_400_000;

/** How old the password is, and whether that is as its schedule says. */
function judged(row, now) {
  const since = instant(row.last_rotation_date) || instant(row.creation_date);
  const age = (now - since) / DAY;
  if (row.state === "disabled") return { age, verdict: "disabled", tone: "quiet", word: "Disabled" };
  if (["out_of_sync", "in_doubt"].includes(row.state)) return { age, verdict: row.state, tone: "bad", word: STATES[row.state][0] };
  if (!row.auto_rotate) return { age, verdict: "no schedule", tone: "warn", word: "No schedule" };
  const next = instant(row.next_rotation_date);
  const late = next && next < now - 5 * 60_000;
  return late || row.state === "overdue" ? { age, verdict: "late", tone: "bad", word: "Late" } : { age, verdict: "in time", tone: "good", word: "In time" };
}

/** The compliance view. */
export function report(ctx) {
  ctx.title("Report");
  const place = h("div", { class: "stack" });
  const now = new Date();
  const all = async (most) => {
    const rows = [];
    let token = "", total = null;
    do {
      const page = await peek("item-search", { type: ["rotated-secret"], sort: "last", limit: 500, "pagination-token": token }, { signal: ctx.signal });
      rows.push(...page.items);
      total = page.total ?? total;
      token = page.next_page;
    } while (token && rows.length < most);
    return { rows, total: total ?? rows.length, whole: !token };
  };
  into(place, async () => {
    const { rows, total, whole } = await all(SHOWN);
    if (!rows.length) return nothing("report", "Nothing to report", "There is no rotated secret that you may know of.");
    const seen = rows.map((row) => ({ row, ...judged(row, now) }));
    const count = (verdict) => seen.filter((one) => one.verdict === verdict).length;
    const oldest = seen[0];
    return [
      h("ul", { class: "counts" }, [["In time", count("in time"), "good", "check"], ["Late", count("late"), "bad", "clock"], ["No schedule", count("no schedule"), "warn", "warn"], ["Out of sync or in doubt", count("out_of_sync") + count("in_doubt"), "bad", "cross"], ["Disabled", count("disabled"), "quiet", "off"]].map(([word, number, tone, sign]) => h("li", {}, h("div", { class: `count ${number ? tone : "quiet"}` }, h("span", { class: "count-word" }, icon(sign, 14), word), h("span", { class: "count-number" }, number.toLocaleString()))))),
      h("p", { class: "dim" }, `${total.toLocaleString()} privileged ${total === 1 ? "account" : "accounts"}; the oldest password is ${span(oldest.age * 86_400)} old. `, !whole && `The page shows and counts the ${rows.length} oldest; the file has all.`),
      panel("Privileged accounts", {}, table("Privileged accounts", [
        ["Account", "name", ({ row }) => h("a", { href: secretUrl(row.item_name) }, row.item_name)], ["Target", "", ({ row }) => row.target_name], ["State", "", ({ row }) => badge(row.state)], ["Last rotated", "nowrap", ({ row }) => when(row.last_rotation_date, { far: "date" })],
        ["Age", "nowrap", (one) => span(one.age * 86_400)], ["Policy", "nowrap", ({ row }) => (row.auto_rotate ? (row.rotation_interval ? `every ${row.rotation_interval} days` : "by calendar") : h("span", { class: "dim" }, "none"))], ["Next", "nowrap", ({ row }) => when(row.next_rotation_date, { far: "date", none: "—" })], ["Verdict", "", (one) => tag(one.word, one.tone)],
      ], seen)),
    ];
  }, 10);
  const file = button("CSV", { sign: "download", onclick: () => during(file, async () => {
    try {
      const { rows } = await all(MOST);
      save(`volvelle-report-${now.toISOString().slice(0, 10)}.csv`, "text/csv", csv([["account", "target", "kind", "state", "last rotated (UTC)", "age in days", "policy in days", "next rotation (UTC)", "last seen to work (UTC)", "verdict", "last error"],
        ...rows.map((row) => { const one = judged(row, now); return [row.item_name, row.target_name, row.kind, row.state, row.last_rotation_date, one.age.toFixed(1), row.auto_rotate ? row.rotation_interval : "", row.next_rotation_date, row.last_verified_date, one.verdict, row.last_rotation_error]; })]));
      toast(`${rows.length.toLocaleString()} accounts exported`);
    } catch (error) { failed(error); }
  }) });
  return [h("header", { class: "page-head" }, h("h1", {}, "Report"), h("div", { class: "row" }, file, button("Print", { sign: "print", onclick: () => print() }))), h("p", { class: "print-only" }, `${me().account_id} — made ${exact(now)} by ${me().auth_method_name}`), place];
}
