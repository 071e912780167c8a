// New targets and secrets, and changes of what is there. Every form is drawn from what the gateway says an operation takes.

import { fill, h, icon } from "./dom.js";
import { call, kinds, peek, schemaOf } from "./api.js";
import { button, confirm, during, inUrl, into, secretUrl, sentence, toast } from "./widgets.js";
import { fieldsOf } from "./form.js";
import { prints } from "./actions.js";

const goTo = (path) => document.dispatchEvent(new CustomEvent("go", { detail: { path } }));
const heading = (title, back, word) => h("header", { class: "page-head" }, h("div", { class: "head-text" }, h("nav", { "aria-label": "Way back" }, h("ol", { class: "crumbs" }, h("li", {}, h("a", { href: back }, word)))), h("h1", {}, title)));

/** Chooses one of few, as tabs of radio buttons. */
function choose(name, choices, chosen, change) {
  return h("fieldset", { class: "segments" }, h("legend", { class: "hidden" }, name), choices.map(([value, word]) => h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => change(value) }), h("span", {}, word))));
}

const KINDS = { ssh: "SSH host", aws: "AWS", bmc: "BMC", ldap: "Directory", web: "Web hook", windows: "Windows", linked: "Linked hosts" };
const kindWord = (kind) => KINDS[kind] || (kind[0].toUpperCase() + kind.slice(1)).replaceAll("-", " ");

/** A new target, with its host key compared before anything is stored. */
export function newTarget(ctx) {
  ctx.title("New target");
  const place = h("div", {});
  let kind = ctx.query.get("kind");
  const draw = async () => {
    const all = await kinds();
    kind ||= all[0];
    const schema = await schemaOf(`target-create-${kind}`);
    const form = await fieldsOf(`target-create-${kind}`, { first: ["name", "host", "port", "hosts", "parent-target-name"], omit: ["rotate-on-unlock", "lock-on-read", "lock-ttl"] });
    form.fields.get("name").input.placeholder = "/prod/web-1";
    const outcome = h("div", {});
    const go = button("Test connection", { kind: "primary", type: "submit", sign: "target" });
    const node = h("form", { class: "form", novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      form.clear();
      fill(outcome);
      if (!form.complete()) return;
      await during(go, async () => {
        try {
          const tested = await call(`target-create-${kind}`, { ...form.values(), "test-only": true });
          fill(outcome, confirmTarget(kind, form, tested, outcome));
          outcome.scrollIntoView({ block: "nearest", behavior: "instant" });
        } catch (error) { form.complain(error); }
      });
    }, oninput: () => fill(outcome) }, all.length > 1 && choose("Kind of target", all.map((one) => [one, kindWord(one)]), kind, (next) => { kind = next; into(place, draw); }),
    h("p", { class: "dim" }, sentence(schema.summary.replace(/^Makes a target: /, "a target: "))), form.node, h("div", { class: "form-foot" }, go, h("a", { class: "button", href: "/console/targets" }, "Cancel")), outcome);
    return node;
  };
  into(place, draw, 8);
  return [heading("New target", "/console/targets", "Targets"), h("div", { class: "panel narrow-panel" }, place)];
}

function confirmTarget(kind, form, tested, outcome) {
  const keys = tested.host_keys || [], warnings = tested.warnings || [];
  const make = button(keys.length ? "It is the same: create the target" : warnings.length ? "Create it anyway" : "Create the target", { kind: "primary", sign: keys.length ? "shield" : "plus", onclick: () => during(make, async () => {
    try {
      const body = { ...form.values(), fingerprint: keys.map((one) => one.fingerprint) };
      await call(`target-create-${kind}`, body);
      toast(`Target ${body.name} was made`);
      const name = body.name.startsWith("/") ? body.name : `/${body.name}`;
      goTo(`/console/new/secret?target=${encodeURIComponent(name)}`);
    } catch (error) { fill(outcome); form.complain(error); }
  }) });
  make.id = "confirm-target";
  return h("section", { class: `inset ${warnings.length ? "warn" : ""}`, "aria-label": "Result of the test" },
    keys.length > 0 && [h("h2", {}, keys.length === 1 ? "The host answered. Is this its key?" : "The hosts answered. Are these their keys?"), h("p", {}, "Compare the fingerprint with the one on the host itself. From then on no other is accepted."), prints(keys)],
    !keys.length && !warnings.length && h("h2", {}, "The parameters are in order"),
    warnings.map((text) => h("p", { class: "strong" }, icon("warn"), " ", sentence(text))), h("div", { class: "row" }, make));
}

/** A new rotated secret; the connection is tested before it is stored. */
export function newSecret(ctx) {
  ctx.title("New rotated secret");
  const place = h("div", {});
  let targets = [], targetName = ctx.query.get("target") || "";
  const draw = async () => {
    targets = (await peek("target-list", {}, { signal: ctx.signal })).targets;
    if (!targets.length) return h("div", { class: "nothing" }, h("h2", {}, "First a target"), h("p", {}, "A rotated secret is an account on a target."), h("a", { class: "button primary", href: "/console/new/target" }, icon("plus"), h("span", {}, "New target")));
    targetName ||= targets[0].target_name;
    const target = targets.find((one) => one.target_name === targetName) || targets[0];
    const kind = target.target_type === "linked" ? target.attributes?.parent_target_type || targets.find((one) => one.target_name === target.parent_target_name)?.target_type : target.target_type;
    const form = await fieldsOf(`rotated-secret-create-${await secretKind(kind)}`, { omit: ["target-name", ...(target.target_type === "linked" ? [] : ["same-password"])], first: ["name", "rotator-type", "authentication-credentials", "rotated-username", "rotated-password", "key-data-base64", "description", "tags"] });
    form.fields.get("name").input.placeholder = `${target.target_name}/root`;
    const type = form.fields.get("rotator-type"), acting = form.fields.get("authentication-credentials");
    const suit = () => {
      // What a choice has no use for is not asked for.
      const chosen = type.read();
      const show = (name, yes) => { const one = form.fields.get(name); if (one) one.node.hidden = !yes; };
      show("rotated-username", chosen !== "target");
      show("rotated-password", !["target", "key"].includes(chosen));
      show("authentication-credentials", chosen !== "target");
      for (const name of ["key-data-base64", "key-algorithm", "public-key-remote-path"]) show(name, chosen === "key");
      show("rotator-custom-cmd", chosen !== "key");
    };
    type?.node.addEventListener("change", suit);
    suit();
    const body = () => {
      const values = form.values();
      for (const [name, one] of form.fields) if (one.node.hidden) delete values[name];
      return { ...values, "target-name": target.target_name, "rotator-type": type.read(), "authentication-credentials": acting?.read() };
    };
    const outcome = h("div", {});
    const select = h("select", { id: "target-of", onchange: () => { targetName = select.value; into(place, draw); } }, targets.map((one) => h("option", { value: one.target_name, selected: one === target }, `${one.target_name} (${one.target_type})`)));
    const attempt = (label, kind, sign, more, done) => {
      const node = button(label, { kind, sign, onclick: () => during(node, async () => {
        form.clear();
        fill(outcome);
        if (!form.complete()) return;
        try { await done(await call(`rotated-secret-create-${targetKind}`, { ...body(), ...more })); } catch (error) { form.complain(error); }
      }) });
      return node;
    };
    const targetKind = kind;
    const test = attempt("Test connection", "", "target", { "test-only": true }, (tested) => fill(outcome, h("section", { class: "inset good", role: "status" }, h("h2", {}, icon("check"), " The rotation would work"), (tested.notes || []).map((note) => h("p", {}, sentence(note))))));
    const make = attempt("Create secret", "primary", "plus", {}, (made) => {
      toast(`${made.name} was made; the connection works`);
      goTo(secretUrl(made.name.startsWith("/") ? made.name : `/${made.name}`));
    });
    return h("form", { class: "form", novalidate: true, onsubmit: (event) => { event.preventDefault(); make.click(); }, oninput: () => fill(outcome) },
      h("div", { class: "field" }, h("label", { for: "target-of" }, "Target"), select), form.node, h("div", { class: "form-foot" }, make, test, h("a", { class: "button", href: "/console/secrets" }, "Cancel"), h("button", { type: "submit", hidden: true, tabindex: "-1" }, "Create")), outcome);
  };
  into(place, draw, 10);
  return [heading("New rotated secret", "/console/secrets", "Secrets"), h("div", { class: "panel narrow-panel" }, place)];
}

/** A new static secret. */
export function newStatic(ctx) {
  ctx.title("New static secret");
  const place = h("div", {});
  into(place, async () => {
    const form = await fieldsOf("create-secret", { first: ["name", "value", "description", "tags"], omit: ["multiline_value", "format", "type"] });
    form.fields.get("name").input.placeholder = "/prod/api/key";
    const go = button("Create secret", { kind: "primary", type: "submit", sign: "plus" });
    return h("form", { class: "form", novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      form.clear();
      if (!form.complete()) return;
      await during(go, async () => {
        try {
          const made = await call("create-secret", form.values());
          toast(`${made.name} was made`);
          goTo(secretUrl(made.name.startsWith("/") ? made.name : `/${made.name}`));
        } catch (error) { form.complain(error); }
      });
    } }, form.node, h("div", { class: "form-foot" }, go, h("a", { class: "button", href: "/console/secrets" }, "Cancel")));
  });
  return [heading("New static secret", "/console/secrets", "Secrets"), h("div", { class: "panel narrow-panel" }, place)];
}

/** Changes a secret's settings; only what was changed is sent. */
export function editSecret(ctx) {
  const name = ctx.name;
  ctx.title(`Edit ${name}`);
  const place = h("div", {});
  into(place, async () => {
    const item = await peek("describe-item", { name }, { signal: ctx.signal });
    const rotated = item.item_type === "ROTATED_SECRET";
    const operation = rotated ? `rotated-secret-update-${await secretKind(await kindOf(item))}` : "update-item";
    const details = item.item_general_info.rotated_secret_details || {}, policy = item.item_general_info.password_policy || {};
    const values = {
      description: item.item_metadata || "", delete_protection: item.delete_protection, "lock-on-read": item.item_general_info.lock_on_read, "lock-ttl": item.item_general_info.lock_ttl, "rotate-on-unlock": item.item_general_info.rotate_on_unlock,
      [rotated ? "key" : "protection_key"]: item.protection_key_name || "",
      ...(rotated ? {
        "auto-rotate": item.auto_rotate, "rotation-interval": item.rotation_interval, "rotation-hour": details.rotation_hour, "rotation-cron": details.rotation_cron, "rotation-time-zone": details.rotation_time_zone,
        "password-length": policy.password_length, "use-lower-letters": policy.use_lower_letters, "use-capital-letters": policy.use_capital_letters, "use-numbers": policy.use_numbers, "use-special-characters": policy.use_special_characters,
        "max-versions": details.max_versions, "authentication-credentials": details.rotator_creds_type === "use-self-creds" ? "use-user-creds" : details.rotator_creds_type, "rotated-username": details.username || "", "rotator-custom-cmd": details.rotation_statement || "", "same-password": details.same_password,
      } : {}),
    };
    const form = await fieldsOf(operation, { omit: ["name", "new-name", "rotator-type", "keep-prev-version", "add-tag", "rm-tag", ...(item.linked_details ? [] : ["same-password"])], first: ["description", "authentication-credentials"], values });
    const tags = h("input", { id: "edit-tags", value: (item.item_tags || []).join(", "), autocomplete: "off" });
    const path = h("input", { id: "edit-name", value: name, autocomplete: "off", spellcheck: "false" });
    const go = button("Save", { kind: "primary", type: "submit", sign: "check" });
    return h("form", { class: "form", novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      form.clear();
      const wanted = tags.value.split(",").map((one) => one.trim()).filter(Boolean), there = item.item_tags || [];
      const body = { ...form.values(), name, "add-tag": wanted.filter((one) => !there.includes(one)), "rm-tag": there.filter((one) => !wanted.includes(one)) };
      if (path.value.trim() !== name) {
        body["new-name"] = path.value.trim();
        if (!(await confirm("Move the secret?", `It will be at ${path.value.trim()}. Programs that ask for ${name} will not find it any more, and other rules may apply there.`, "Move", { kind: "primary" }))) return;
      }
      await during(go, async () => {
        try {
          await call(operation, body);
          toast("Saved");
          goTo(`/console/secret${inUrl(body["new-name"] || name)}`);
        } catch (error) { form.complain(error); }
      });
    } }, h("div", { class: "field" }, h("label", { for: "edit-name" }, "Path"), path), h("div", { class: "field" }, h("label", { for: "edit-tags" }, "Tags"), tags), form.node, h("div", { class: "form-foot" }, go, h("a", { class: "button", href: secretUrl(name) }, "Cancel")));
  }, 10);
  return [heading(`Edit ${name.split("/").at(-1)}`, secretUrl(name), name), h("div", { class: "panel narrow-panel" }, place)];
}

/** The kind of rotated secret that a kind of target is for. */
async function secretKind(kind) {
  return (await schemaOf(`target-create-${kind}`))["x-secret-kind"] || kind;
}

async function kindOf(item) {
  const assoc = item.item_targets_assoc[0];
  if (assoc.target_type !== "linked") return assoc.target_type;
  const linked = await peek("target-get", { name: assoc.target_name });
  if (linked.attributes?.parent_target_type) return linked.attributes.parent_target_type;
  return (await peek("target-get", { name: linked.parent_target_name })).target_type;
}

/** The form that changes a target, for its page. */
export async function targetForm(ctx, found, done) {
  const kind = found.target_type;
  // What is stored is shown only to who may read it; without that, empty fields stay as they are.
  let kept = {};
  const schema = await schemaOf(`target-update-${kind}`);
  if (found.client_permissions.includes("read")) {
    const { value } = await call("target-get-details", { name: found.target_name }, { signal: ctx.signal });
    const block = Object.values(value)[0] || {};
    for (const [name, property] of Object.entries(schema.properties)) {
      const shown = block[property["x-details"] || name.replaceAll("-", "_")];
      if (shown !== undefined && !property["x-secret"] && typeof shown !== "object") kept[name] = shown;
    }
    if (block.hosts) kept.hosts = Object.entries(block.hosts).map(([host, text]) => (text ? `${host};${text}` : host)).join(",");
  }
  kept = { ...kept, description: found.comment || "", "parent-target-name": found.parent_target_name || "", delete_protection: found.delete_protection, key: found.protection_key_name || "" };
  const form = await fieldsOf(`target-update-${kind}`, { omit: ["name", "new-name", "keep-prev-version", "host-key", "rotate-on-unlock", "lock-on-read", "lock-ttl", "add-hosts", "rm-hosts", "type", ...(kind === "linked" ? ["parent-target-name"] : [])], first: ["host", "port", "hosts", "description"], values: kept });
  for (const one of form.fields.values()) if (schema.properties[one.name]["x-secret"]) one.input.placeholder = "unchanged";
  const go = button("Save", { kind: "primary", type: "submit", sign: "check" });
  return h("form", { class: "form", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    form.clear();
    await during(go, async () => {
      try {
        const answer = await call(`target-update-${kind}`, { ...form.values(), name: found.target_name });
        toast("Saved");
        (answer.warnings || []).forEach((text) => toast(text, "bad"));
        done();
      } catch (error) { form.complain(error); }
    });
  } }, form.node, h("div", { class: "form-foot" }, go, button("Cancel", { onclick: done })));
}
