// Is everything fine?

import { fill, h, icon } from "./dom.js";
import { me, peek } from "./api.js";
import { badge, into, keepFocus, marked, nothing, panel, pathText, secretUrl, sentence, STATES, tag } from "./widgets.js";
import { month, stageWord } from "./chart.js";
import { help } from "./actions.js";
import { when } from "./time.js";

const COUNTED = ["settled", "rotating", "in_doubt", "out_of_sync", "failed", "overdue", "new", "disabled"];
/** Secrets in trouble on the page; the list has all. */
const SHOWN = 8;
const URGENT = ["out_of_sync", "in_doubt", "failed", "overdue"];

/** The page one opens in the morning. */
export function overview(ctx) {
  ctx.title("Overview");
  const place = h("div", { class: "stack" });
  const holders = h("div", {});
  let seen = "";
  const ask = () => peek("account-overview", {}, { signal: ctx.signal });
  const load = async () => {
    const data = await ask();
    seen = JSON.stringify(data);
    return draw(ctx, data, holders, refresh);
  };
  const refresh = async () => {
    try {
      const data = await ask(), now = JSON.stringify(data);
      if (!ctx.alive() || now === seen) return;
      seen = now;
      keepFocus(place, () => fill(place, draw(ctx, data, holders, refresh)));
    } catch (error) { if (error.name !== "AbortError" && error.code !== "unauthenticated") console.warn(error.message); }
  };
  into(place, load, 8);
  if (me().may.audit.includes("read")) { askHolders(ctx, holders); ctx.every(30_000, () => askHolders(ctx, holders)); }
  ctx.every(30_000, refresh);
  return [h("header", { class: "page-head" }, h("h1", {}, "Overview")), place];
}

async function askHolders(ctx, place) {
  try {
    const { holders } = await peek("holder-list", {}, { signal: ctx.signal });
    fill(place, h("ul", { class: "holders" }, holders.map((one) => h("li", {}, icon("holder", 18), h("b", {}, `Holder ${one.index}`),
      tag(one.state === "up" ? "Up" : one.state === "quarantined" ? "Left out" : "Down", one.state === "up" ? "good" : "bad", one.state === "up" ? "check" : "warn"),
      h("span", { class: "dim small" }, one.state === "up" && one.round_trip_us !== null ? `${(one.round_trip_us / 1000).toFixed(1)} ms` : one.detail || "")))));
  } catch (error) { if (error.name !== "AbortError") fill(place, h("p", { class: "dim" }, sentence(error.message))); }
}

function draw(ctx, data, holders, refresh) {
  const total = Object.values(data.states).reduce((a, b) => a + b, 0);
  const holderPanel = me().may.audit.includes("read") && panel("Fragment holders", {}, holders);
  const lacking = (data.absent_customer_fragments || []).map(absent);
  if (!total) return [lacking, firstSteps(data.has_targets), holderPanel];
  const urgent = URGENT.reduce((sum, state) => sum + (data.states[state] || 0), 0);
  return [
    lacking,
    verdict(data.states, urgent, data.rotating.length),
    h("ul", { class: "counts" }, COUNTED.filter((state) => data.states[state] || state === "settled").map((state) => {
      const [word, tone, sign] = STATES[state];
      return h("li", {}, h("a", { href: `/console/secrets?state=${state}`, class: `count ${tone}` }, h("span", { class: "count-word" }, icon(sign, 14), word), h("span", { class: "count-number" }, (data.states[state] || 0).toLocaleString())));
    })),
    data.trouble.length > 0 && panel("Needs you", { aside: urgent > SHOWN && h("a", { href: `/console/secrets?${URGENT.map((state) => `state=${state}`).join("&")}&sort=state` }, `All ${urgent}`) }, h("ul", { class: "trouble" }, data.trouble.slice(0, SHOWN).map((row) => h("li", {},
      h("div", { class: "trouble-what" }, badge(row.state), h("a", { href: secretUrl(row.item_name) }, pathText(row.item_name))),
      h("p", { class: "trouble-why" }, marked(row.target_halted || row.last_rotation_error || STATES[row.state][3])),
      h("div", { class: "trouble-do" }, help(row, refresh)))))),
    data.rotating.length > 0 && panel("Running now", {}, h("ul", { class: "running" }, data.rotating.map((one) => h("li", {}, h("a", { href: secretUrl(one.item_name) }, pathText(one.item_name)), one.host && h("span", { class: "dim" }, one.host), h("span", { class: "badge busy moving" }, icon("refresh", 14), stageWord(one.stage)), when(one.started_at))))),
    panel("A month back, a month ahead", {}, month(data.past, data.coming)),
    h("div", { class: "two" }, panel("Oldest password", {}, data.oldest ? h("div", { class: "oldest" }, h("a", { href: secretUrl(data.oldest.item_name) }, pathText(data.oldest.item_name)),
      h("p", {}, "Last changed ", when(data.oldest.last_rotation_date || data.oldest.creation_date), data.oldest.last_rotation_date ? "" : " (when it was made here)"),
      h("p", { class: "dim" }, data.oldest.next_rotation_date ? ["Next rotation ", when(data.oldest.next_rotation_date)] : "It does not rotate by itself.")) : h("p", { class: "dim" }, "No rotated secret is enabled.")), holderPanel),
  ];
}

/** A customer's fragment that this gateway should have. */
function absent(one) {
  return h("div", { class: "verdict-line bad", role: "status" }, icon("warn", 22),
    h("div", {}, h("p", { class: "big" }, one.state === "wrong" ? `This gateway has another customer's fragment ${one.id}` : `This gateway lacks the customer's fragment ${one.id}`),
      h("p", { class: "dim" }, `What is sealed with ${one.protection_keys.join(", ")} is neither read, changed nor rotated here. Nothing is lost: give the gateway the fragment and start it again.`)));
}

function verdict(states, urgent, running) {
  const fine = urgent === 0;
  const rotated = Object.entries(states).filter(([state]) => state !== "static").reduce((sum, [, count]) => sum + count, 0);
  const worst = URGENT.filter((state) => states[state]).map((state) => `${states[state].toLocaleString()} ${STATES[state][0].toLowerCase()}`);
  return h("div", { class: `verdict-line ${fine ? "good" : "bad"}`, role: "status" }, icon(fine ? "shield" : "warn", 22),
    h("div", {}, h("p", { class: "big" }, fine ? "Everything is fine" : `${urgent.toLocaleString()} ${urgent === 1 ? "secret needs" : "secrets need"} you`),
      h("p", { class: "dim" }, fine ? `${rotated.toLocaleString()} rotated ${rotated === 1 ? "secret" : "secrets"}${running ? `, ${running} rotating now` : ""}.` : `${sentence(worst.join(", "))}`)));
}

function firstSteps(hasTargets) {
  const may = me().may;
  if (!may.items.includes("create") && !may.targets.includes("create")) {
    return nothing("secret", "No secrets yet", "There is nothing here that your roles let you see.");
  }
  const step = (n, done, title, text, link) => h("li", { class: done ? "done" : "" }, h("span", { class: "step-number", "aria-hidden": "true" }, done ? icon("check", 16) : n), h("div", {}, h("h3", {}, title), h("p", { class: "dim" }, text), link));
  return h("section", { class: "panel first", "aria-labelledby": "first" }, h("h2", { id: "first" }, "Three steps to the first rotated password"),
    h("ol", { class: "first-steps" },
      step(1, hasTargets, "Say where: a target", "A host or a system, and the privileged credential with which it is reached. Its host key is shown for you to compare.", h("a", { class: `button ${hasTargets ? "" : "primary"}`, href: "/console/new/target" }, icon("plus"), h("span", {}, "New target"))),
      step(2, false, "Say what: a rotated secret", "An account on the target, and when its password changes. The connection is tested before anything is stored.", h("a", { class: `button ${hasTargets ? "primary" : ""}`, href: "/console/new/secret" }, icon("plus"), h("span", {}, "New rotated secret"))),
      step(3, false, "Rotate", "Press Rotate on the secret's page and watch it: stored first, then changed, then proved.")));
}
