"""A browser that keeps count of what was wrong: what the policy forbade, what came from elsewhere, what axe found."""
import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import axe_playwright_python
from playwright.sync_api import sync_playwright

AXE = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LISTEN = """
window.forbidden = [];
document.addEventListener("securitypolicyviolation", (event) => window.forbidden.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Api:
    """The administrator's own client, beside the browser."""

    def __init__(self, url, folder):
        self.url = url
        self.admin = json.loads((pathlib.Path(folder) / "admin.json").read_text())
        self.token = self.call("auth", **{"access-id": self.admin["access_id"], "access-key": self.admin["access_key"]})["token"]

    def call(self, operation, **body):
        if operation != "auth":
            body["token"] = self.token
        request = urllib.request.Request(f"{self.url}/{operation}", json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{operation}: {error.code} {error.read().decode()}") from None


class Browser:
    """Chromium, and one person in it."""

    def __init__(self, url, shots):
        self.url, self.shots = url, pathlib.Path(shots)
        self.shots.mkdir(parents=True, exist_ok=True)
        self.playwright = sync_playwright().start()
        self.chromium = self.playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        self.wrong, self.addresses, self.checked = [], set(), []

    def person(self, width=1360, height=900, **more):
        """A context of its own: other cookies, other storage."""
        context = self.chromium.new_context(viewport={"width": width, "height": height}, color_scheme="light", reduced_motion="reduce", permissions=["clipboard-read", "clipboard-write"], **more)
        context.add_init_script(LISTEN)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("console", lambda message: self.said(message))
        page.on("request", lambda request: self.asked(request.url))
        return page

    def said(self, message):
        text = message.text
        if "Content Security Policy" in text or "TrustedScript" in text or "Trusted Type" in text:
            self.wrong.append(f"policy: {text}")
        elif message.type == "error" and not text.startswith("Failed to load resource"):
            self.wrong.append(f"console: {text}")

    def asked(self, url):
        self.addresses.add(url)
        if not url.startswith((self.url + "/", "blob:" + self.url)):
            self.wrong.append(f"asked another host: {url}")

    def sign_in(self, page, access_id, access_key):
        page.goto(f"{self.url}/console")
        page.get_by_label("Access ID").fill(access_id)
        page.get_by_label("Access key").fill(access_key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#side", state="attached")

    def visit(self, page, path, ready=None):
        page.goto(f"{self.url}{path}")
        if ready:
            page.wait_for_selector(ready)
        still(page)

    def check(self, page, name, only=None):
        """Counts what axe finds and what the policy forbade."""
        which = {"type": "rule", "values": only} if only else {"type": "tag", "values": RULES}
        found = page.evaluate(AXE + "; axe.run(document, {runOnly: %s})" % json.dumps(which))
        for one in found["violations"]:
            where = "; ".join(" ".join(map(str, node["target"])) for node in one["nodes"][:3])
            self.wrong.append(f"axe on {name}: {one['id']}: {one['help']}: {where}")
        self.wrong += [f"policy on {name}: {text}" for text in page.evaluate("window.forbidden")]
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 1:
            self.wrong.append(f"{name}: the page is {wide} px wider than the window")
        self.checked.append(name)

    def shoot(self, page, name):
        """The page in both colours, each checked."""
        for colours in ("light", "dark"):
            page.emulate_media(color_scheme=colours)
            still(page)
            self.check(page, f"{name} ({colours})", None if colours == "light" else ["color-contrast", "link-in-text-block"])
            page.screenshot(path=str(self.shots / f"{name}-{colours}.png"))
        page.emulate_media(color_scheme="light")

    def end(self):
        self.chromium.close()
        self.playwright.stop()
        print(f"{len(self.checked)} pages checked with axe, {len(self.wrong)} findings, {len(self.addresses)} addresses asked, all of the gateway")
        assert not self.wrong, "\n".join(sorted(set(self.wrong)))


def still(page):
    """Waits until nothing is loading any more."""
    until(page, "!document.querySelector('.waiting, main [aria-busy=true]')")


def until(page, holds, seconds=20):
    """Waits for an expression. The page's policy forbids the browser's own way of doing that, which is eval."""
    deadline = time.time() + seconds
    while not page.evaluate(holds):
        assert time.time() < deadline, f"never true: {holds}"
        page.wait_for_timeout(50)


def everything(page):
    """All that a script of the page could read: the document with what is typed in, and every kind of storage."""
    return page.evaluate("""async () => JSON.stringify([document.documentElement.outerHTML, [...document.querySelectorAll("input, textarea")].map((one) => one.value),
      {...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, await indexedDB.databases(), await caches.keys()])""")


def login(host, password, command="id -un"):
    """A login of OpenSSH's own client."""
    outcome = subprocess.run(
        ["sshpass", "-e", "ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1", f"root@{host}", command],
        env={"SSHPASS": password, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)
    return outcome.stdout.strip() if outcome.returncode == 0 else None


def fingerprint(host):
    """The host key, learned without Volvelle."""
    keys = subprocess.run(["ssh-keyscan", "-t", "ed25519", host], capture_output=True, text=True, timeout=60).stdout
    return subprocess.run(["ssh-keygen", "-lf", "-"], input=keys, capture_output=True, text=True, check=True).stdout.split()[1]
