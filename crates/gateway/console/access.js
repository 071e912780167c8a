// Who may do what: roles and their rules in words, identities and their keys, and the rules' own explanation.

import { fill, h } from "./dom.js";
import { call, everything, me, peek } from "./api.js";
import { button, confirm, copyable, dialog, during, failed, facts, into, inUrl, more, nothing, panel, problem, table, tag, toast } from "./widgets.js";
import { when } from "./time.js";

const goTo = (path) => document.dispatchEvent(new CustomEvent("go", { detail: { path } }));
const THINGS = { "item-rule": "secrets", "target-rule": "targets", "role-rule": "roles", "auth-method-rule": "identities", "search-rule": "the audit log", "reports-rule": "reports", "gw-reports-rule": "gateway reports" };
const VERBS = { read: "read", create: "make", update: "change", delete: "delete", list: "see", deny: "do nothing with" };
const roleUrl = (name) => `/console/role${inUrl(name)}`;
const identityUrl = (name) => `/console/identity${inUrl(name)}`;
const nested = (name) => (name.startsWith("/") ? name : `/${name}`);

function tabs(current) {
  return h("nav", { class: "tabs", "aria-label": "Access" }, [["/console/roles", "Roles"], ["/console/identities", "Identities"], ["/console/who-may", "Who may?"]].map(([href, word]) => h("a", { href, "aria-current": word === current ? "page" : null }, word)));
}
const frame = (title, current, aside, ...content) => [h("header", { class: "page-head" }, h("h1", {}, title), aside), tabs(current), content];

/** Where a rule's path reaches, in words. */
function where(path) {
  if (path === "/*" || path === "*") return "everywhere";
  if (path === "/self") return "those of their own";
  if (path.endsWith("/*")) return ["below ", h("code", {}, path.slice(0, -1))];
  if (path.endsWith("*")) return ["whose path begins with ", h("code", {}, path.slice(0, -1))];
  return ["at ", h("code", {}, path)];
}
const joined = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

/** A rule as a sentence. */
function inWords(rule) {
  const thing = THINGS[rule.type] || rule.type.replace("-rule", "");
  if (rule.capabilities.includes("deny")) return h("span", { class: "rule" }, tag("Never", "bad", "cross"), h("span", {}, "may touch ", h("b", {}, thing), " ", where(rule.path)));
  const verbs = rule.capabilities.filter((word) => word !== "list" || rule.capabilities.length === 1).flatMap((word) => (rule.type === "item-rule" && word === "update" ? ["change", "rotate"] : [VERBS[word] || word]));
  return h("span", { class: "rule" }, tag("May", "good", "check"), h("span", {}, joined(verbs), " ", h("b", {}, thing), " ", where(rule.path), rule.ttl > 0 && h("span", { class: "dim" }, ` for ${rule.ttl} minutes after it was set`)));
}

/** The list of roles. */
export function roles(ctx) {
  ctx.title("Roles");
  const place = h("div", {});
  const make = me().may.roles.includes("create") && button("New role", { kind: "primary", sign: "plus", onclick: () => newRole() });
  into(place, async () => {
    const rows = await everything("list-roles", {}, "roles", 2000, { signal: ctx.signal });
    if (!rows.length) return nothing("people", "No roles", "There is no role that you may know of.");
    return h("ul", { class: "cards" }, rows.map((one) => h("li", { class: "panel card" }, h("header", { class: "panel-head" }, h("h2", {}, h("a", { href: roleUrl(one.role_name) }, one.role_name)), h("span", { class: "dim" }, `${one.role_auth_methods_assoc.length} ${one.role_auth_methods_assoc.length === 1 ? "identity" : "identities"}`)),
      one.comment && h("p", { class: "dim" }, one.comment), h("ul", { class: "rules" }, one.rules.path_rules.slice(0, 4).map((rule) => h("li", {}, inWords(rule)))), one.rules.path_rules.length > 4 && h("p", { class: "dim small" }, `and ${one.rules.path_rules.length - 4} more`), !one.rules.path_rules.length && h("p", { class: "dim" }, "It grants nothing yet."))));
  }, 6);
  return frame("Access", "Roles", make, place);
}

function ask(title, fields, action, work) {
  return dialog(title, (close) => {
    const outcome = h("div", {}), go = button(action, { kind: "primary", type: "submit" });
    return h("form", { onsubmit: async (event) => {
      event.preventDefault();
      fill(outcome);
      const values = Object.fromEntries(new FormData(event.target));
      await during(go, async () => { try { close(await work(values, event.target)); } catch (error) { fill(outcome, problem(error)); } });
    } }, h("div", { class: "dialog-body" }, fields, outcome), h("footer", {}, button("Cancel", { onclick: () => close() }), go));
  });
}
const text = (name, label, { help, value = "", required = true, list } = {}) => h("div", { class: "field" }, h("label", { for: `ask-${name}` }, label), h("input", { id: `ask-${name}`, name, value, required, autocomplete: "off", autocapitalize: "none", spellcheck: "false", list }), help && h("p", { class: "help" }, help));

async function newRole() {
  const made = await ask("New role", [text("name", "Path", { help: "Such as /operators. What it may do is said on its page." }), text("description", "Description", { required: false })], "Create role", async (values) => { await call("create-role", values); return values.name; });
  if (made) goTo(roleUrl(nested(made)));
}

/** One role: its rules, and who has it. */
export function role(ctx) {
  const name = ctx.name;
  ctx.title(`Role ${name}`);
  const place = h("div", { class: "stack" });
  const load = async () => {
    const found = await peek("get-role", { name }, { signal: ctx.signal });
    const may = found.client_permissions.includes("update");
    const refresh = () => { if (ctx.alive()) into(place, load); };
    const tried = async (work, done) => { try { await work(); if (done) toast(done); refresh(); } catch (error) { failed(error); } };
    return [
      found.comment && h("p", { class: "lead dim" }, found.comment),
      panel("What it may do", { aside: may && button("Add a rule", { sign: "plus", onclick: () => ruleDialog(name).then((done) => done && refresh()) }) }, found.rules.path_rules.length ? h("ul", { class: "rules long" }, found.rules.path_rules.map((rule) => h("li", {}, inWords(rule), may && h("span", { class: "row" }, button("Change", { kind: "plain", name: `Change the rule on ${rule.path}`, onclick: () => ruleDialog(name, rule).then((done) => done && refresh()) }), button("Remove", { kind: "plain danger", name: `Remove the rule on ${rule.path}`, onclick: async () => { if (await confirm("Remove this rule?", [inWords(rule), "It takes effect at once, for everybody who has the role."], "Remove")) tried(() => call("delete-role-rule", { "role-name": name, path: rule.path, "rule-type": rule.type }), "The rule was removed"); } }))))) : h("p", { class: "dim" }, "It grants nothing yet.")),
      panel("Who has it", { aside: may && button("Give it to…", { sign: "plus", onclick: () => giveDialog(name).then((done) => done && refresh()) }) }, table("Who has it", [["Identity", "", (one) => h("a", { href: identityUrl(one.auth_method_name) }, one.auth_method_name)], ["Access ID", "", (one) => h("code", {}, one.auth_method_access_id)], ["Only with", "", (one) => Object.entries(one.auth_method_sub_claims || {}).map(([key, values]) => `${key} = ${[].concat(values).join(" or ")}`).join(", ") || h("span", { class: "dim" }, "—")],
        ["", "end", (one) => may && button("Take away", { kind: "plain danger", name: `Take it from ${one.auth_method_name}`, onclick: async () => { if (await confirm(`Take ${name} from ${one.auth_method_name}?`, "It takes effect at once.", "Take away")) tried(() => call("delete-assoc", { "assoc-id": one.assoc_id }), "The role was taken away"); } })]], found.role_auth_methods_assoc, { empty: "Nobody has it." })),
    ];
  };
  into(place, load, 6);
  const remove = { label: "Delete role", sign: "trash", danger: true, onclick: async () => { if (await confirm(`Delete the role ${name}?`, "Everybody who has it loses what it grants, at once.", "Delete")) try { await call("delete-role", { name }); toast("The role was deleted"); goTo("/console/roles"); } catch (error) { failed(error); } } };
  return frame(`Role ${name}`, "Roles", me().may.roles.includes("delete") && more("More", [remove]), place);
}

function ruleDialog(name, rule) {
  const words = ["read", "create", "update", "delete", "list", "deny"];
  return ask(rule ? "Change the rule" : "Add a rule", [
    h("div", { class: "field" }, h("label", { for: "ask-type" }, "About"), h("select", { id: "ask-type", name: "rule-type", disabled: Boolean(rule) }, Object.entries(THINGS).map(([type, word]) => h("option", { value: type, selected: rule?.type === type }, word)))),
    h("div", { class: "field" }, h("label", { for: "ask-path" }, "Path"), h("input", { id: "ask-path", name: "path", value: rule?.path || "/*", required: true, readonly: Boolean(rule), autocomplete: "off", spellcheck: "false" }), h("p", { class: "help" }, "* at the end stands for everything below, + for anything within one part.")),
    h("fieldset", { class: "field checks" }, h("legend", {}, "May"), words.map((word) => h("label", { class: "check" }, h("input", { type: "checkbox", name: "capability", value: word, checked: rule ? rule.capabilities.includes(word) : word === "read" || word === "list" }), h("span", {}, word === "deny" ? "deny: takes everything away, whatever other rules say" : word)))),
  ], rule ? "Save" : "Add", async (values, form) => {
    const capability = [...form.querySelectorAll("[name=capability]:checked")].map((one) => one.value);
    await call("set-role-rule", { "role-name": name, path: values.path || rule.path, "rule-type": values["rule-type"] || rule.type, capability });
    toast("The rule is in force");
    return true;
  });
}

async function giveDialog(name) {
  let all = [];
  try { all = await everything("auth-method-list", {}, "auth_methods", 1000); } catch (error) { failed(error); return false; }
  return ask(`Give ${name} to`, [h("datalist", { id: "ask-all" }, all.map((one) => h("option", { value: one.auth_method_name }))), text("am-name", "Identity", { list: "ask-all" })], "Give", async (values) => {
    await call("assoc-role-am", { "role-name": name, "am-name": values["am-name"] });
    toast("The role was given");
    return true;
  });
}

/** The list of identities. */
export function identities(ctx) {
  ctx.title("Identities");
  const place = h("div", {});
  const make = button("New API key", { kind: "primary", sign: "plus", onclick: newKey });
  into(place, async () => {
    const rows = await everything("auth-method-list", {}, "auth_methods", 2000, { signal: ctx.signal });
    return table("Identities", [
      ["Name", "name", (one) => h("a", { href: identityUrl(one.auth_method_name) }, one.auth_method_name)], ["Access ID", "", (one) => h("code", {}, one.auth_method_access_id)], ["Kind", "wide-only", (one) => tag(one.access_info.rules_type.replace("_", " "))],
      ["Roles", "", (one) => one.auth_method_roles_assoc.map((given, n) => [n > 0 && ", ", h("a", { href: roleUrl(given.role_name) }, given.role_name)]) || "—"],
      ["Expires", "wide-only", (one) => (one.access_info.access_expires ? when(new Date(one.access_info.access_expires * 1000)) : h("span", { class: "dim" }, "never"))], ["Key since", "wide-only", (one) => when(one.access_info.api_key_access_rules.modification_date)],
    ], rows, { empty: "There is no identity that you may know of." });
  }, 6);
  return frame("Access", "Identities", make, place);
}

/** A key is shown once: here, and nowhere again. */
function showKey(title, answer) {
  return dialog(title, (close) => [h("div", { class: "dialog-body" }, h("p", {}, "The key is shown this once and stored nowhere. Keep it in a safe place now."), facts([["Access ID", copyable(answer.access_id, "the access ID")], ["Access key", copyable(answer.access_key, "the access key")]])), h("footer", {}, button("I have kept it", { kind: "primary", onclick: () => close(true) }))], { size: "large" });
}

async function newKey() {
  const made = await ask("New API key", [text("name", "Path", { help: "Such as /ci/deploy. It can do nothing before it is given a role." }), text("description", "Description", { required: false }), text("bound-ips", "Only from", { required: false, help: "Networks such as 10.1.0.0/16, separated by commas; anywhere when left out." })], "Create key", (values) => call("auth-method-create-api-key", { ...values, "bound-ips": values["bound-ips"].split(",").map((one) => one.trim()).filter(Boolean) }));
  if (!made) return;
  const name = nested(made.name);
  await showKey(`Key of ${name}`, made);
  goTo(identityUrl(name));
}

/** One identity. */
export function identity(ctx) {
  const name = ctx.name;
  ctx.title(`Identity ${name}`);
  const place = h("div", { class: "stack" });
  const path = h("input", { id: "here", value: ctx.query.get("path") || "/", autocomplete: "off", spellcheck: "false" }), answer = h("div", {});
  const what = async () => { fill(answer); await into(answer, () => explained(ctx, { path: path.value || "/", "am-name": name }), 2); };
  const load = async () => {
    const found = await peek("auth-method-get", { name }, { signal: ctx.signal });
    const info = found.access_info;
    return [
      h("div", { class: "two" }, panel("About", {}, facts([["Access ID", copyable(found.auth_method_access_id, "the access ID")], ["Description", found.description], ["Only from", info.cidr_whitelist], ["Expires", info.access_expires ? when(new Date(info.access_expires * 1000)) : "never"], ["Tokens live", `${info.jwt_ttl} minutes`], ["Key since", when(info.api_key_access_rules.modification_date)]])),
        panel("Its roles", {}, table("Roles", [["Role", "", (one) => h("a", { href: roleUrl(one.role_name) }, one.role_name)], ["Rules", "", (one) => one.rules.path_rules.length]], found.auth_method_roles_assoc, { empty: "It has no role and can do nothing." }))),
      panel("What can it do here?", {}, h("form", { class: "inline", onsubmit: (event) => { event.preventDefault(); what(); } }, h("div", { class: "field" }, h("label", { for: "here" }, "Path of a secret"), path), button("Ask the rules", { type: "submit", sign: "search" })), answer),
    ];
  };
  into(place, load, 6).then(() => { if (ctx.query.get("path")) what(); });
  const reset = { label: "Reset the key", sign: "refresh", onclick: async () => {
    if (!(await confirm(`Reset the key of ${name}?`, "The present key stops working at once, and so do all sessions and tokens that it gave.", "Reset the key"))) return;
    try { const answer = await call("reset-access-key", { name }); const found = await peek("auth-method-get", { name }); await showKey(`New key of ${name}`, { access_id: found.auth_method_access_id, ...answer }); } catch (error) { failed(error); }
  } };
  const remove = { label: "Delete", sign: "trash", danger: true, onclick: async () => { if (await confirm(`Delete ${name}?`, "Its key and its tokens stop working at once.", "Delete")) try { await call("auth-method-delete", { name }); toast("The identity was deleted"); goTo("/console/identities"); } catch (error) { failed(error); } } };
  return frame(`Identity ${name}`, "Identities", more("More", [reset, remove]), place);
}

async function explained(ctx, body) {
  const { identities, complete } = await peek("explain-access", body, { signal: ctx.signal });
  return [identities.length ? h("ul", { class: "explained" }, identities.map((one) => h("li", {},
    h("p", {}, h("a", { href: identityUrl(one.auth_method_name) }, one.auth_method_name), " ", one.capabilities.length ? one.capabilities.map((word) => tag(word, "good")) : tag("nothing", "bad", "cross"), one.expired && tag("expired", "warn")),
    h("ul", { class: "because" }, one.reasons.map((why) => h("li", {}, why.denies ? "denied by " : "because ", h("a", { href: roleUrl(why.role_name) }, why.role_name), why.denies ? " with a rule on " : ` grants ${joined(why.capabilities)} on `, h("code", {}, why.rule_path), why.ends_at && [" until ", when(why.ends_at)])))))) : h("p", { class: "dim" }, "No rule speaks about this path: nobody may do anything there."),
  !complete && h("p", { class: "dim small" }, "There may be more: your roles do not let you see every role and identity.")];
}

/** Who may do what at a path, and why. */
export function whoMay(ctx) {
  ctx.title("Who may?");
  const path = h("input", { id: "who-path", value: ctx.query.get("path") || "", placeholder: "/prod/db/root", required: true, autocomplete: "off", spellcheck: "false", "data-search": true });
  const type = h("select", { id: "who-type" }, Object.entries(THINGS).slice(0, 5).map(([value, word]) => h("option", { value, selected: value === ctx.query.get("type") }, word)));
  const answer = h("div", {});
  const ask = () => {
    if (!path.value.trim()) return path.focus();
    history.replaceState(null, "", `/console/who-may?path=${encodeURIComponent(path.value.trim())}&type=${type.value}`);
    fill(answer);
    return into(answer, () => explained(ctx, { path: path.value.trim(), type: type.value }), 4);
  };
  if (path.value) ask();
  return frame("Access", "Who may?", null, panel("Who may do what, and why?", {}, h("form", { class: "inline", onsubmit: (event) => { event.preventDefault(); ask(); } }, h("div", { class: "field" }, h("label", { for: "who-type" }, "With"), type), h("div", { class: "field grow" }, h("label", { for: "who-path" }, "At the path"), path), button("Ask the rules", { kind: "primary", type: "submit", sign: "search" })), answer));
}
