// The audit log: searched, exported, and checked link by link.

import { fill, h, icon } from "./dom.js";
import { call, me, peek } from "./api.js";
import { button, csv, during, failed, into, problem, save, secretUrl, settled, table, tag, toast } from "./widgets.js";
import { when } from "./time.js";

/** Entries of one export. */
const MOST = 50_000;

/** The log. */
export function audit(ctx) {
  ctx.title("Audit log");
  const q = ctx.query;
  const fields = { actor: ["Who", "p-…"], action: ["What", "rotate_item"], object: ["On what", "/prod/db/root"] };
  const inputs = Object.fromEntries(Object.entries(fields).map(([name, [word, hint]]) => [name, h("input", { "aria-label": word, placeholder: `${word}: ${hint}`, value: q.get(name) || "", autocomplete: "off", spellcheck: "false", "data-search": name === "object" })]));
  const place = h("div", {}), verdict = h("div", {}), pager = h("div", { class: "pager" });
  let rows = [], next = "";
  const wanted = () => Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]).filter(([, value]) => value));
  const draw = () => [table("Audit entries", [
    ["When", "nowrap", (one) => when(one.at, { far: "short" })], ["Who", "", (one) => h("code", {}, one.actor || "volvelle")], ["What", "", (one) => one.action.replaceAll("_", " ")],
    ["On what", "name", (one) => (one.object.startsWith("/") && /item|secret|rotat/.test(one.action) ? h("a", { href: secretUrl(one.object) }, one.object) : one.object || h("span", { class: "dim" }, "—"))],
    ["Outcome", "", (one) => tag(one.outcome, one.outcome === "ok" ? "good" : "bad", one.outcome === "ok" ? "check" : "cross")], ["From", "wide-only", (one) => h("code", {}, one.remote || "—")], ["Detail", "wide-only", (one) => one.detail || h("span", { class: "dim" }, "—")], ["No.", "end wide-only", (one) => h("span", { class: "dim" }, one.seq)],
  ], rows, { empty: "No entry matches." })];
  const load = async () => {
    const page = await peek("audit-list", { ...wanted(), limit: 100 }, { signal: ctx.signal });
    rows = page.entries;
    next = page.next_page;
    fill(pager, next && older);
    return draw();
  };
  const older = button("Older entries", { onclick: () => during(older, async () => {
    try {
      const page = await peek("audit-list", { ...wanted(), limit: 100, "pagination-token": next }, { signal: ctx.signal });
      rows.push(...page.entries);
      next = page.next_page;
      fill(place, draw());
      fill(pager, next && older);
    } catch (error) { failed(error); }
  }) });
  const search = settled(() => { const text = new URLSearchParams(wanted()).toString(); history.replaceState(null, "", `/console/audit${text ? `?${text}` : ""}`); into(place, load, 10); }, 250);
  Object.values(inputs).forEach((input) => input.addEventListener("input", search));
  const check = button("Verify the chain", { sign: "shield", onclick: () => during(check, async () => {
    try {
      const answer = await call("audit-verify", {});
      fill(verdict, h("div", { class: `verdict-line ${answer.valid ? "good" : "bad"}`, role: "status" }, icon(answer.valid ? "shield" : "warn", 22), h("div", {}, h("p", { class: "big" }, answer.valid ? "The log is whole" : "The log was changed"), h("p", { class: "dim" }, answer.valid ? `All ${answer.entries.toLocaleString()} entries were computed again; each is chained to the one before.` : `Entry ${answer.broken_at} is not the one that was written. Compare with a backup, and find out who can write to the database.`))));
    } catch (error) { fill(verdict, problem(error)); }
  }) });
  const export_ = button("Export CSV", { sign: "download", onclick: () => during(export_, async () => {
    try {
      const all = [];
      let token = "";
      do {
        const page = await peek("audit-list", { ...wanted(), limit: 1000, "pagination-token": token }, { signal: ctx.signal });
        all.push(...page.entries);
        token = page.next_page;
      } while (token && all.length < MOST);
      save(`volvelle-audit-${new Date().toISOString().slice(0, 10)}.csv`, "text/csv", csv([["number", "at (UTC)", "who", "what", "on what", "outcome", "from", "detail", "hash"], ...all.map((one) => [one.seq, one.at, one.actor, one.action, one.object, one.outcome, one.remote, one.detail, one.hash])]));
      toast(`${all.length.toLocaleString()} entries exported${token ? ": the newest; narrow the search for older ones" : ""}`);
    } catch (error) { failed(error); }
  }) });
  into(place, load, 10);
  const all = me().may.audit.includes("read");
  return [h("header", { class: "page-head" }, h("h1", {}, "Audit log"), h("div", { class: "row" }, export_, all && check)), !all && h("p", { class: "dim" }, "Your roles let you see your own entries."), verdict, h("div", { class: "filters" }, h("span", { class: "search-box flat" }, icon("search")), Object.values(inputs)), place, pager];
}
