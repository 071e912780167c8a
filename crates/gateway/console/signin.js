// The door.

import { h, icon, mark } from "./dom.js";
import { signIn } from "./api.js";
import { button, during, problem } from "./widgets.js";

/** The sign-in page; `done` is called when somebody is in. */
export function signInPage(done, note) {
  const id = h("input", { id: "access-id", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, placeholder: "p-…" });
  const key = h("input", { id: "access-key", name: "password", type: "password", autocomplete: "current-password", required: true });
  const trouble = h("div", { class: "signin-trouble" });
  const go = button("Sign in", { kind: "primary wide", type: "submit" });
  const form = h("form", {
    class: "signin-form", novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      trouble.replaceChildren();
      for (const field of [id, key]) field.toggleAttribute("aria-invalid", !field.value.trim());
      const missing = [id, key].find((field) => !field.value.trim());
      if (missing) return missing.focus();
      await during(go, async () => {
        try {
          await signIn(id.value.trim(), key.value.trim());
          key.value = "";
          await done();
        } catch (error) {
          key.value = "";
          if (error.code === "unauthenticated") {
            error.message = "this access ID and key do not belong together, or the key has expired";
            error.hint = "";
          }
          trouble.append(problem(error));
          key.focus();
        }
      });
    },
  },
  h("div", { class: "field" }, h("label", { for: "access-id" }, "Access ID"), id),
  h("div", { class: "field" }, h("label", { for: "access-key" }, "Access key"), key), trouble, go);
  queueMicrotask(() => id.focus());
  return h("main", { class: "signin", id: "main" },
    h("div", { class: "signin-card" },
      h("div", { class: "signin-mark" }, mark(56)),
      h("h1", {}, "Sign in to Volvelle"),
      note ? h("p", { class: "signin-note" }, icon("clock"), note) : h("p", { class: "dim" }, "Privileged passwords that change themselves, and are never lost."),
      form,
      h("p", { class: "dim small" }, "The administrator's first key is in the file ", h("code", {}, "admin.json"), " that the gateway wrote when it was started the first time.")));
}
