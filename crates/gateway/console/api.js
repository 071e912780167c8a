// The public API, with a cookie in the place of the token. No token is ever seen here.

/** What an operation refused, and what to do about it. */
export class Refused extends Error {
  constructor(status, body) {
    super(readable(body.error || "the gateway gave no reason"));
    this.status = status;
    this.code = body.code || "unknown";
    this.hint = body.hint || "";
    this.requestId = body.request_id || "";
    const named = /^([A-Za-z_-]{2,50}): ([\s\S]*)$/.exec(body.error || "");
    this.field = this.code === "bad_parameter" && named ? named[1] : null;
    if (this.field) this.message = named[2];
  }
}

// The wire's words are kept for old clients; people need only the last sentence of them.
function readable(text) {
  const old = /^Status \d+ .*?Message: (?:account id: \S+, access id: \S+\. )?(.*)$/s.exec(text);
  const short = (old ? old[1] : text).replace(/^(AlreadyExists|Conflict): /, "");
  return short.replace(/^unauthorized access for access id \S+$/, "your roles do not allow this")
    .replace(/^failed to obtain (\w+) (.*)$/s, "there is no $1 $2");
}

async function post(path, body, { by = "user", signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST", signal, cache: "no-store", credentials: "same-origin", redirect: "error",
      headers: { "content-type": "application/json", "x-volvelle-console": by },
      body: JSON.stringify(body || {}),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { error: "the gateway does not answer", code: "unreachable", hint: "is it running, and is the network up?" });
  }
  const text = await answer.text();
  let value;
  try { value = text ? JSON.parse(text) : {}; } catch { value = { error: "the gateway's answer makes no sense", code: "internal" }; }
  if (answer.ok) return value;
  const refused = new Refused(answer.status, value);
  if (refused.code === "unauthenticated" && !path.startsWith("/console/")) {
    document.dispatchEvent(new CustomEvent("signed-out"));
  }
  throw refused;
}

/** Calls an operation because a person did something. */
export const call = (operation, body, options) => post(`/${operation}`, body, options);

/** Calls an operation because the page wants to be up to date; it keeps no session alive. */
export const peek = (operation, body, options) => post(`/${operation}`, body, { ...options, by: "page" });

/** Begins a session. */
export const signIn = (id, key) => post("/console/sign-in", { "access-id": id, "access-key": key });

/** Ends it. */
export const signOut = () => post("/console/sign-out", {});

let document_;
/** The schemas of all operations: forms are drawn from them. */
export function schemas() {
  document_ ||= fetch("/openapi.json", { credentials: "omit" }).then((answer) => {
    if (!answer.ok) throw new Refused(answer.status, { error: "the list of operations cannot be read" });
    return answer.json();
  }).catch((error) => { document_ = undefined; throw error; });
  return document_;
}

/** The parameters of one operation. */
export async function schemaOf(operation) {
  const post = (await schemas()).paths[`/${operation}`]?.post;
  return post ? { summary: post.summary, ...post.requestBody.content["application/json"].schema } : null;
}

/** The kinds of target there are. */
export async function kinds() {
  const names = Object.keys((await schemas()).paths).map((path) => /^\/target-create-(.+)$/.exec(path)?.[1]);
  return names.filter(Boolean);
}

/** All pages of a list, up to `most` rows. */
export async function everything(operation, body, field, most = 5000, options) {
  const rows = [];
  let token = "";
  do {
    const page = await peek(operation, { ...body, "pagination-token": token }, options);
    rows.push(...page[field]);
    token = page.next_page;
  } while (token && rows.length < most);
  return rows;
}

let me_;
/** Who is signed in. */
export const me = () => me_;
/** Asks who is signed in. */
export async function whoAmI() {
  me_ = await peek("validate-token");
  return me_;
}
/** Forgets who was signed in. */
export const forgetMe = () => { me_ = undefined; };
