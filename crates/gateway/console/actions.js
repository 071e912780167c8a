// What can be done with a secret or a target, the same from every page.

import { h, icon } from "./dom.js";
import { call } from "./api.js";
import { button, confirm, copyable, dialog, during, failed, problem, sentence, toast } from "./widgets.js";

/** Rotates now; the answer comes when it is over. */
export async function rotate(name) {
  try {
    await call("gateway-rotate-secret", { name });
    toast(`${name} was rotated, and the new value was seen to work`);
    return true;
  } catch (error) { failed(error); return false; }
}

const WORDS = { valid: "The stored value opens the account", invalid: "The target has another value", unknown: "It could not be found out" };

/** Asks the target whether the stored value opens the account; changes nothing. */
export async function verify(name) {
  try {
    const { hosts } = await call("rotated-secret-verify", { name });
    if (hosts.length === 1 && hosts[0].status === "valid") {
      toast(`The stored value opens the account (${hosts[0].why})`);
      return hosts;
    }
    await dialog("What the target says", (close) => [h("div", { class: "dialog-body" }, hosts.map((one) => h("div", { class: `verdict ${one.status}` }, icon(one.status === "valid" ? "check" : "warn", 18),
      h("div", {}, h("p", { class: "strong" }, one.host && `${one.host}: `, one.status === "invalid" ? sentence(one.why) : WORDS[one.status] || one.status), one.status !== "invalid" && h("p", {}, sentence(one.why)), one.status === "invalid" && h("p", { class: "dim" }, "Repair brings store and target together again."))))),
    h("footer", {}, button("Close", { kind: "primary", onclick: () => close() }))]);
    return hosts;
  } catch (error) { failed(error); return null; }
}

const MENDED = { fine: "The stored value opens the account", adopted: "Another stored value opens the account and is current now", reapplied: "A new value was set with the target's credential", out_of_sync: "No stored value opens the account" };

/** Repairs; if nothing stored opens the account, asks for the value somebody knows. Gives whether anything may have changed. */
export async function repair(name) {
  return dialog(`Repair ${name}`, (close) => {
    const outcome = h("div", {});
    const known = h("input", { type: "password", id: "known-value", autocomplete: "off", spellcheck: "false" });
    const go = button("Repair", { kind: "primary", type: "submit", sign: "wrench" });
    const form = h("form", { onsubmit: async (event) => {
      event.preventDefault();
      outcome.replaceChildren();
      await during(go, async () => {
        try {
          const body = known.value ? { name, "rotated-password": known.value } : { name };
          const { hosts } = await call("rotated-secret-repair", body);
          known.value = "";
          const well = hosts.every((one) => one.action !== "out_of_sync");
          outcome.append(h("ul", { class: "plain-list" }, hosts.map((one) => h("li", { class: `verdict ${well ? "valid" : "invalid"}` }, icon(well ? "check" : "warn", 18),
            h("div", {}, h("p", { class: "strong" }, one.host && `${one.host}: `, sentence(MENDED[one.action] || one.action)), one.why && h("p", {}, sentence(one.why)))))));
          if (well) { toast(`${name} is in order`); close(true); }
        } catch (error) { outcome.append(problem(error)); }
      });
    } },
    h("div", { class: "dialog-body" },
      h("p", {}, "Volvelle asks the target which stored value opens the account and makes it current. If none does and the target's own credential may act, it sets a new one."),
      h("details", { class: "group" }, h("summary", {}, "I know the password the account has now"), h("div", { class: "field" }, h("label", { for: "known-value" }, "Present password"), known, h("p", { class: "help" }, "It is tried on the target before it is stored."))),
      outcome),
    h("footer", {}, button("Close", { onclick: () => close(true) }), go));
    return form;
  });
}

/** Shows the host keys a target has now, and pins what a person has compared. */
export async function trust(name) {
  let shown;
  try { shown = await call("target-trust-host-key", { name }); } catch (error) { failed(error); return false; }
  return dialog("Is this the right host?", (close) => {
    const outcome = h("div", {});
    const go = button("It is the same: trust it", { kind: "primary", sign: "shield", onclick: () => during(go, async () => {
      try {
        for (const pin of shown.pins) await call("target-trust-host-key", { name, host: pin.address.replace(/:\d+$/, ""), fingerprint: pin.fingerprint });
        toast(`${name} is trusted again`);
        close(true);
      } catch (error) { outcome.replaceChildren(problem(error)); }
    }) });
    return [h("div", { class: "dialog-body" }, h("p", {}, "Compare the fingerprint with the one on the host itself. Somebody in the middle would show another one."), prints(shown.pins), outcome),
      h("footer", {}, button("Cancel", { onclick: () => close(false) }), go)];
  });
}

/** Fingerprints, and the command that shows them on the host. */
export function prints(pins) {
  return h("div", { class: "prints" }, pins.map((pin) => h("div", { class: "print" }, h("p", { class: "dim small" }, `${pin.address} · ${pin.algorithm}`), copyable(pin.fingerprint, "the fingerprint"))),
    h("p", { class: "help" }, "On the host: ", h("code", {}, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")));
}

/** Enables or disables. */
export async function setState(name, state) {
  try {
    await call("set-item-state", { name, "desired-state": state });
    toast(`${name} is ${state}`);
    return true;
  } catch (error) { failed(error); return false; }
}

/** Deletes a secret after a question. */
export async function removeSecret(name, rotated) {
  const text = rotated ? ["Its values and versions are deleted for good. The account on the target keeps the password it has; write it down first if nobody else knows it."] : ["Its values and versions are deleted for good."];
  if (!(await confirm(`Delete ${name}?`, text, "Delete"))) return false;
  try {
    await call(rotated ? "rotated-secret-delete" : "delete-item", { name });
    toast(`${name} was deleted`);
    return true;
  } catch (error) { failed(error); return false; }
}

/** The one thing that helps a secret in this state. */
export function help(row, after) {
  const run = (work) => async (event) => { await during(event.currentTarget, work); after(); };
  if (row.target_halted) return button("Trust host key", { sign: "shield", onclick: run(() => trust(row.target_name)) });
  if (row.state === "out_of_sync") return button("Repair", { sign: "wrench", onclick: run(() => repair(row.item_name)) });
  // A reason that names the command which helps: here is its button.
  if (/rotated-secret (repair|verify)/.test(row.last_rotation_error || "")) return button("Repair", { sign: "wrench", onclick: run(() => repair(row.item_name)) });
  if (row.state === "in_doubt") return button("Verify", { sign: "check", onclick: run(() => verify(row.item_name)) });
  if (row.state === "failed" || row.state === "overdue") return button("Rotate", { sign: "refresh", onclick: run(() => rotate(row.item_name)) });
  return null;
}
