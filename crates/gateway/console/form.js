// Forms drawn from the schemas of the operations: a new kind of target or a new parameter needs no change here.

import { fresh, h, icon } from "./dom.js";
import { peek, schemaOf } from "./api.js";
import { button, marked, problem, sentence } from "./widgets.js";

// What the pages ask for in their own way, or what means nothing to a person.
const HIDDEN = new Set(["token", "uid-token", "json", "skip-dry-run", "test-only", "fingerprint", "comment", "metadata", "item-custom-fields", "rotate-after-disconnect", "lock-during-sra-session"]);
const HIDDEN_GROUPS = new Set(["compatibility", "secure-access"]);
const GROUPS = { own: "", rotation: "When it rotates", "password-policy": "New passwords", locking: "Locking, versions and key" };
// Few need to think of it.
const TUCKED = { key: "locking", protection_key: "locking" };
const ACRONYMS = { ssh: "SSH", ttl: "TTL", url: "URL", ip: "IP", ips: "IPs", id: "ID", api: "API", jwt: "token", cmd: "command", dn: "DN", tls: "TLS", ca: "CA", am: "auth method" };

// What every kind has is called as people say it; what a connector declares is called as it declares it.
const LABELS = {
  name: "Path", "rotator-type": "What is rotated", "authentication-credentials": "Who makes the change",
  "auto-rotate": "Rotate by itself", "rotation-interval": "Every so many days", "rotation-hour": "Hour (UTC)", "rotation-cron": "Or by calendar (cron)", "rotation-time-zone": "Time zone of the calendar", "rotation-event-in": "Tell so many days before",
  "password-length": "Length", "use-lower-letters": "Lower-case letters", "use-capital-letters": "Capital letters", "use-numbers": "Numbers", "use-special-characters": "Special characters",
  delete_protection: "Protect from deletion", "max-versions": "Versions kept", "lock-on-read": "Check out when read", "lock-ttl": "Checked out for (minutes)", "rotate-on-unlock": "Rotate when checked in", "same-password": "One password for all hosts",
  key: "Protection key", protection_key: "Protection key",
};

// A choice may be spelled like a parameter and mean something else.
const CHOICES = { "use-user-creds": "The account itself", "use-target-creds": "The target's account", key: "Key pair", enable: "Enable secret" };

/** A wire name as a label. */
export function label(name) {
  return LABELS[name] || inWords(name);
}

function inWords(name) {
  const words = name.replace(/^(rotated|ssh)-(username|password)$/, "$2").replace(/^rotator-/, "").split(/[-_]/).map((word) => ACRONYMS[word] || word);
  const text = words.join(" ");
  return text[0].toUpperCase() + text.slice(1);
}

/** One field. `read` gives undefined where nothing was said. */
function field(name, given, required, value) {
  // A parameter that may be absent says so with a second type.
  const schema = { ...given, type: [].concat(given.type).find((type) => type !== "null") };
  const id = fresh(name);
  const help = schema.description ? h("p", { class: "help", id: `${id}-help` }, marked(sentence(schema.description.replace(/\s+/g, " ")))) : null;
  const wrong = h("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  const about = [help && `${id}-help`, `${id}-wrong`].filter(Boolean).join(" ");
  const common = { id, "data-field": name, "aria-describedby": about };
  const preset = value ?? schema.default ?? undefined;
  let input, node, read, rebase;
  if (schema["x-choices"] || schema.enum) {
    const choices = schema["x-choices"] || schema.enum.map((word) => ({ value: word, meaning: "" }));
    const picked = preset ?? choices[0]?.value;
    const radios = choices.map((choice, n) => h("label", { class: "choice" },
      h("input", { type: "radio", name: id, value: choice.value, checked: choice.value === picked, id: n === 0 ? id : null, "data-field": n === 0 ? name : null }),
      h("span", {}, h("b", {}, CHOICES[choice.value] || inWords(choice.value)), choice.meaning && h("span", { class: "help" }, sentence(choice.meaning)))));
    input = radios[0].querySelector("input");
    node = h("fieldset", { class: "field choices", "aria-describedby": `${id}-wrong` }, h("legend", {}, label(name)), radios, wrong);
    read = () => {
      const chosen = node.querySelector("input:checked")?.value;
      return chosen === value ? undefined : chosen;
    };
  } else if (schema.type === "boolean") {
    input = h("input", { ...common, type: "checkbox", checked: preset === true });
    let started = input.checked;
    rebase = () => { started = input.checked; };
    node = h("div", { class: "field" }, h("label", { class: "check" }, input, h("span", {}, label(name))), help, wrong);
    read = () => (input.checked === started ? undefined : input.checked);
  } else {
    const multiline = /key|cmd|command|certificate|pem|statement|payload|json/.test(name) && schema.type === "string" && !/name|algorithm|path|id$|^(protection_)?key$/.test(name);
    const secret = schema["x-secret"];
    if (multiline) input = h("textarea", { ...common, rows: 3, spellcheck: "false", autocomplete: "off", required, class: secret ? "mono veiled" : "mono" });
    else input = h("input", { ...common, type: secret ? "password" : schema.type === "integer" ? "number" : "text", autocomplete: secret ? "new-password" : "off", autocapitalize: "none", spellcheck: "false", required });
    if (schema.type === "array") input.placeholder = "separate several with commas";
    const text = Array.isArray(preset) ? preset.join(", ") : preset;
    if (text !== undefined && text !== null && text !== "" && !(schema.type === "integer" && value === undefined && text === 0)) input.value = text;
    if (value === undefined && typeof schema.default === "string" && schema.default.startsWith("default_")) input.value = "";
    const started = input.value;
    node = h("div", { class: "field" }, h("label", { for: id }, label(name), required && h("span", { class: "optional" }, "needed")), input, help, wrong);
    read = () => {
      if (input.value === started) return undefined;
      if (schema.type === "array") return input.value.split(",").map((word) => word.trim()).filter(Boolean);
      return input.value;
    };
  }
  return {
    name, node, input, read, rebase, known: value !== undefined,
    changed: () => read() !== undefined,
    complain(text) {
      wrong.hidden = !text;
      wrong.replaceChildren(...(text ? [icon("warn", 14), document.createTextNode(sentence(text))] : []));
      if (text) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
    },
  };
}

/**
 * The fields of an operation. `omit` are left out, `first` come first, `values` are what is there already.
 * Gives { node, values(), complain(error), on(name, work), fields }.
 */
export async function fieldsOf(operation, { omit = [], first = [], values = {}, require = [] } = {}) {
  const schema = await schemaOf(operation);
  const skip = new Set([...HIDDEN, ...omit]);
  const names = Object.keys(schema.properties).filter((name) => !skip.has(name) && !HIDDEN_GROUPS.has(schema.properties[name]["x-group"]));
  const rank = (name) => { const at = first.indexOf(name); return at < 0 ? 1000 + (schema.required?.includes(name) ? 0 : 1) : at; };
  names.sort((a, b) => rank(a) - rank(b));
  const fields = new Map();
  const groups = new Map(Object.keys(GROUPS).map((group) => [group, []]));
  for (const name of names) {
    const property = schema.properties[name];
    const made = field(name, property, Boolean(schema.required?.includes(name)) || require.includes(name), values[name]);
    fields.set(name, made);
    (groups.get(TUCKED[name] || property["x-group"] || "own") || groups.get("own")).push(made);
  }
  const trouble = h("div", { class: "form-trouble" });
  const node = h("div", { class: "fields" }, trouble, [...groups].filter(([, list]) => list.length).map(([group, list]) => (group === "own"
    ? list.map((one) => one.node)
    : h("details", { class: "group", open: group === "rotation" || list.some((one) => values[one.name] !== undefined) }, h("summary", {}, GROUPS[group]), h("div", { class: "fields" }, list.map((one) => one.node), group === "password-policy" && example(fields))))));
  return {
    node, fields,
    values() {
      const body = {};
      for (const [name, one] of fields) {
        const value = one.read();
        if (value !== undefined) body[name] = value;
      }
      return body;
    },
    clear() { trouble.replaceChildren(); for (const one of fields.values()) one.complain(""); },
    /** Whether every required field says something. */
    complete() {
      let whole = true;
      for (const one of fields.values()) {
        if (one.input.required && !one.input.value?.trim()) { one.complain("this is needed"); if (whole) one.input.focus(); whole = false; }
      }
      return whole;
    },
    /** Shows an error next to its field, or above the form. */
    complain(error) {
      // A connector names the parameter at the beginning, or by its whole wire name anywhere.
      const says = (name, text) => text && (name.includes("-") ? new RegExp(`(^|[^a-z-])${name}([^a-z-]|$)`).test(text) : text.startsWith(`${name} `));
      const names = [...fields.keys()].sort((a, b) => b.length - a.length);
      const config = error.code === "target_config";
      const named = error.field || (config && (names.find((name) => says(name, error.message)) || names.find((name) => says(name, error.hint)))) || null;
      const one = named && fields.get(named);
      if (one) {
        one.node.closest("details")?.setAttribute("open", "");
        one.complain([error.message, error.hint].filter(Boolean).join(". "));
        one.input.focus();
      } else {
        trouble.replaceChildren(problem(error));
        trouble.scrollIntoView({ block: "nearest" });
      }
    },
  };
}

const SETS = { "use-lower-letters": "abcdefghijklmnopqrstuvwxyz", "use-capital-letters": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "use-numbers": "0123456789", "use-special-characters": "!@#%^&*()-_=+,.?" };

function draw(letters) {
  // Rejection keeps every letter as likely as any other.
  const limit = 256 - (256 % letters.length);
  const byte = new Uint8Array(1);
  do crypto.getRandomValues(byte); while (byte[0] >= limit);
  return letters[byte[0] % letters.length];
}

/** An example of what a policy makes, drawn anew as it is changed. It is never used. */
export function sample(policy) {
  const sets = Object.keys(SETS).filter((name) => policy[name]).map((name) => SETS[name]);
  const length = Math.min(128, Math.max(0, Number(policy["password-length"]) || 0));
  if (!sets.length || length < sets.length) return "";
  for (let attempt = 0; attempt < 200; attempt++) {
    const text = Array.from({ length }, () => draw(sets.join(""))).join("");
    if (sets.every((set) => [...text].some((letter) => set.includes(letter)))) return text;
  }
  return "";
}

function example(fields) {
  const place = h("code", { class: "sample" });
  const note = h("span", { class: "help" });
  const defaults = { "password-length": 24, "use-lower-letters": true, "use-capital-letters": true, "use-numbers": true, "use-special-characters": true };
  const show = () => {
    const policy = { ...defaults };
    for (const name of Object.keys(defaults)) {
      const input = fields.get(name)?.input;
      if (input?.type === "checkbox") policy[name] = input.checked;
      else if (input?.value) policy[name] = input.value;
    }
    const text = sample(policy);
    place.textContent = text || "—";
    const letters = Object.keys(SETS).filter((name) => policy[name]).reduce((sum, name) => sum + SETS[name].length, 0);
    note.textContent = text ? `An example, never used: ${policy["password-length"]} characters, about ${Math.floor(policy["password-length"] * Math.log2(letters))} bits.` : "No password can be made under these rules.";
  };
  // What the account says stands in the fields that nobody has changed, so that the example is what will be made.
  const suggest = () => {
    for (const name of Object.keys(defaults)) {
      const one = fields.get(name);
      if (one?.input.type === "checkbox" && !one.known && one.read() === undefined) { one.input.checked = defaults[name]; one.rebase(); }
      if (one?.input.type === "number" && !one.known) one.input.placeholder = defaults[name];
    }
    show();
  };
  for (const name of Object.keys(defaults)) fields.get(name)?.input.addEventListener("input", show);
  suggest();
  peek("get-account-settings").then(({ general_settings: { password_policy: policy } }) => {
    for (const name of Object.keys(defaults)) defaults[name] = policy[name.replaceAll("-", "_")] ?? defaults[name];
    suggest();
  }).catch(() => { /* the usual defaults stay */ });
  return h("div", { class: "example", "aria-live": "polite" }, h("span", { class: "label" }, "Example"), place, button("", { sign: "refresh", kind: "plain", name: "Another example", onclick: show }), note);
}
