"""The console in a browser: argv is the case, the gateway's URL, a host's address, the gateway's folder and a folder for pictures."""
import sqlite3
import sys
import time

from browser import Api, Browser, everything, fingerprint, login, still, until

INITIAL = "Init-Passw0rd!1"


def admin(browser, api):
    page = browser.person()
    browser.sign_in(page, api.admin["access_id"], api.admin["access_key"])
    return page


def toast(page, text):
    page.locator(".toast", has_text=text).first.wait_for()


def state(page, word):
    page.locator("h1 .badge", has_text=word).wait_for()


def reveal(page):
    page.locator("#reveal").click()
    return page.locator("[data-value=password]").inner_text()


def make_target(page, browser, host, name):
    browser.visit(page, "/console/new/target", "form")
    page.locator("[data-field=name]").fill(name)
    page.locator("[data-field=host]").fill(host)
    page.locator("[data-field=ssh-username]").fill("root")
    page.locator("[data-field=ssh-password]").fill(INITIAL)
    page.get_by_role("button", name="Test connection").click()
    shown = page.locator(".print code").first.inner_text()
    assert shown == fingerprint(host), f"the console shows {shown} as the host's key"
    page.locator("#confirm-target").click()
    page.wait_for_url("**/console/new/secret**")
    still(page)


def first_use(browser, api, host, _folder):
    page = browser.person()
    page.goto(f"{browser.url}/console")
    page.get_by_label("Access ID").fill(api.admin["access_id"])
    page.get_by_label("Access key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("do not belong together").wait_for()
    browser.check(page, "refused sign-in")
    browser.sign_in(page, api.admin["access_id"], api.admin["access_key"])
    page.get_by_text("Three steps to the first rotated password").wait_for()
    browser.shoot(page, "first-steps")

    try:
        api.call("target-create-ssh", **{"name": "/demo/other", "host": host, "ssh-username": "root", "ssh-password": INITIAL, "fingerprint": ["SHA256:of-another-host"]})
        raise SystemExit("a target was made of a host that shows another key than the one compared")
    except AssertionError as refused:
        assert "another fingerprint" in str(refused), refused

    page.get_by_role("link", name="New target").click()
    page.wait_for_url("**/console/new/target")
    still(page)
    page.get_by_role("button", name="Test connection").click()
    page.get_by_text("This is needed.").first.wait_for()
    browser.check(page, "incomplete form")
    make_target(page, browser, host, "/demo/web-1")

    page.locator("[data-field=name]").fill("/demo/web-1/root")
    choices = page.locator(".choice b").all_inner_texts()
    assert choices[:4] == ["Password", "Target", "Key pair", "Enable secret"], choices
    page.locator("input[value=target]").check()
    page.get_by_role("button", name="Test connection").click()
    page.get_by_text("The rotation would work").wait_for()
    assert api.call("list-items")["items"] == [], "a test makes nothing"
    browser.shoot(page, "new-secret")
    page.get_by_role("button", name="Create secret").click()
    page.wait_for_url("**/console/secret/demo/web-1/root")
    state(page, "Not rotated yet")

    assert INITIAL not in everything(page), "no value is on the page before somebody asks"
    page.locator("#act-rotate").click()
    page.locator(".live .steps").wait_for()
    toast(page, "was rotated")
    state(page, "Settled")
    still(page)
    canary = api.call("rotated-secret-get-value", name="/demo/web-1/root")["value"]["password"]
    assert canary not in everything(page), "the value is on the page before it is revealed"
    page.locator("#copy-value").click()
    toast(page, "copied")
    assert page.evaluate("navigator.clipboard.readText()") == canary
    assert canary not in everything(page), "copying shows the value"
    password = reveal(page)
    assert password == canary
    assert login(host, password) == "root", "what is shown opens the account"
    assert login(host, INITIAL) is None, "the old password does not"
    page.get_by_text("Hidden again in").wait_for()
    page.locator("#reveal").wait_for(timeout=35_000)
    assert canary not in everything(page), "the value stays on the page, or in storage"
    actions = [(entry["action"], entry["object"]) for entry in api.call("audit-list", limit=100)["entries"]]
    assert actions.count(("get_rotated_secret_value", "/demo/web-1/root")) == 3, "each look is in the audit log"
    reveal(page)
    page.get_by_role("link", name="Secrets").first.click()
    page.wait_for_url("**/console/secrets")
    page.go_back()
    page.locator("#reveal").wait_for()
    assert canary not in everything(page), "going back shows the value again"
    assert not any(canary in url or "t-" + "0" * 8 in url for url in browser.addresses)
    cookie = next(one for one in page.context.cookies() if "volvelle" in one["name"])
    assert cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Strict", cookie
    assert cookie["value"] not in everything(page)

    other = browser.person()
    browser.sign_in(other, api.admin["access_id"], api.admin["access_key"])
    page.get_by_role("button", name="Your session").click()
    page.get_by_role("menuitem", name="Sign out everywhere").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out everywhere").click()
    page.get_by_text("You are signed out.").wait_for()
    other.get_by_role("link", name="Targets").first.click()
    other.get_by_text("Your session has ended").wait_for()


def repair(browser, api, host, _folder):
    page = admin(browser, api)
    api.call("target-create-ssh", **{"name": "/r/host", "host": host, "ssh-username": "root", "ssh-password": INITIAL})
    api.call("rotated-secret-create-ssh", **{"name": "/r/root", "target-name": "/r/host", "rotator-type": "password", "rotated-username": "root", "rotated-password": INITIAL})
    browser.visit(page, "/console/secret/r/root", "#act-rotate")
    page.locator("#act-rotate").click()
    state(page, "Settled")
    password = reveal(page)
    assert login(host, password, "echo root:Somebody-Else-9x | chpasswd") is not None
    page.locator("#act-verify").click()
    page.get_by_text("The target has another value").first.wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Close").last.click()
    page.locator("#act-repair").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("I know the password").click()
    dialog.get_by_label("Present password").fill("Somebody-Else-9x")
    browser.check(page, "repair dialog")
    dialog.get_by_role("button", name="Repair").click()
    toast(page, "is in order")
    state(page, "Settled")
    assert reveal(page) == "Somebody-Else-9x"
    page.locator("#act-rotate").click()
    toast(page, "was rotated")
    still(page)
    password = reveal(page)
    assert login(host, password, "id -un; echo root:Somebody-Else-9y | chpasswd") == "root"
    page.locator("#act-rotate").click()
    page.locator(".toast.bad").wait_for(timeout=120_000)
    browser.visit(page, "/console", ".trouble")
    page.get_by_text("1 secret needs you").wait_for()
    page.locator(".trouble").get_by_role("button", name="Repair").wait_for()
    browser.shoot(page, "trouble")


def keys(browser, api, host, folder):
    api.call("create-dfc-key", name="/keys/one", alg="AES256GCM")
    page = admin(browser, api)
    browser.visit(page, "/console/new/target", "form")
    field = page.locator("[data-field=key]")
    assert not field.is_visible(), "few need to think of a key"
    page.locator("summary", has_text="Locking, versions and key").click()
    field.fill("/keys/one")
    for name, value in [("name", "/k/host"), ("host", host), ("ssh-username", "root"), ("ssh-password", INITIAL)]:
        page.locator(f"[data-field={name}]").fill(value)
    page.get_by_role("button", name="Test connection").click()
    page.locator("#confirm-target").click()
    page.wait_for_url("**/console/new/secret**")
    still(page)
    assert api.call("target-get", name="/k/host")["protection_key_name"] == "/keys/one"
    page.locator("[data-field=name]").fill("/k/root")
    page.locator("input[value=target]").check()
    page.locator("summary", has_text="Locking, versions and key").click()
    page.locator("[data-field=key]").fill("/keys/one")
    page.get_by_role("button", name="Test connection").click()
    page.get_by_text("The rotation would work").wait_for()
    page.get_by_role("button", name="Create secret").click()
    page.wait_for_url("**/console/secret/k/root")
    page.get_by_role("link", name="/keys/one").click()
    page.get_by_text("It has no value").wait_for()
    browser.check(page, "a protection key")
    # The key of a fragment that this gateway has not got.
    database = sqlite3.connect(f"{folder}/volvelle.db", timeout=20)
    database.execute("""UPDATE items SET customer_check = '00',
        settings = json_set(settings, '$.protection', json('{"key":0,"customer":{"fragment":"cf-gone","check":"00"}}')) WHERE name = '/keys/one'""")
    database.commit()
    database.close()
    browser.visit(page, "/console", ".verdict-line")
    page.get_by_text("This gateway lacks the customer's fragment cf-gone").wait_for()
    browser.check(page, "a missing fragment")


def roles(browser, api, _host, _folder):
    api.call("create-secret", name="/team/a/key", value="the value of a")
    page = admin(browser, api)
    browser.visit(page, "/console/identities", "table")
    page.get_by_role("button", name="New API key").click()
    page.get_by_label("Path").fill("/people/ann")
    page.get_by_role("button", name="Create key").click()
    page.get_by_text("shown this once").wait_for()
    access_id, key = (page.get_by_role("dialog").locator("code").nth(n).inner_text() for n in (0, 1))
    page.get_by_role("button", name="I have kept it").click()
    page.wait_for_url("**/console/identity/people/ann")
    assert key not in everything(page), "the key is shown once"

    ann = browser.person()
    browser.sign_in(ann, access_id, key)
    ann.get_by_text("No secrets yet").wait_for()
    browser.check(ann, "overview of nobody")

    browser.visit(page, "/console/roles", ".cards")
    page.get_by_role("button", name="New role").click()
    page.get_by_label("Path").fill("/readers")
    page.get_by_role("button", name="Create role").click()
    page.wait_for_url("**/console/role/readers")
    page.get_by_role("button", name="Add a rule").click()
    page.get_by_role("dialog").get_by_label("Path").fill("/team/*")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.get_by_text("below /team/").wait_for()
    page.get_by_role("button", name="Give it to").click()
    page.get_by_role("combobox", name="Identity").fill("/people/ann")
    page.get_by_role("dialog").get_by_role("button", name="Give", exact=True).click()
    page.get_by_role("link", name="/people/ann").wait_for()
    browser.shoot(page, "role")

    browser.visit(ann, "/console/secrets", "tbody tr")
    ann.locator("tbody tr").first.press("Enter")
    ann.wait_for_url("**/console/secret/team/a/key")
    ann.locator("#reveal").click()
    assert ann.locator("[data-value=value]").inner_text() == "the value of a"

    browser.visit(page, "/console/who-may?path=/team/a/key", ".explained")
    page.get_by_text("because").first.wait_for()
    browser.shoot(page, "who-may")
    browser.visit(page, "/console/role/readers", ".rules")
    page.get_by_role("button", name="Take it from /people/ann").click()
    page.get_by_role("dialog").get_by_role("button", name="Take away").click()
    toast(page, "was taken away")
    ann.locator(".value button").first.click()
    browser.visit(ann, "/console/secret/team/a/key", ".problem")
    ann.get_by_text("Your roles do not allow this").wait_for()


def furnish(api, host, folder):
    """A gateway that looks as if it had been used for a month."""
    api.call("target-create-ssh", **{"name": "/prod/web-1", "host": host, "ssh-username": "root", "ssh-password": INITIAL, "description": "the first web server"})
    for n, (name, user) in enumerate([("app1", "app1"), ("app2", "app2"), ("ops", "ops"), ("deploy", "rot")]):
        api.call("rotated-secret-create-ssh", **{"name": f"/prod/web-1/{name}", "target-name": "/prod/web-1", "rotator-type": "password", "authentication-credentials": "use-target-creds", "rotated-username": user, "auto-rotate": True, "rotation-interval": 7 * (n + 1), "tags": ["web", "tier-1" if n < 2 else "tier-2"]})
        for _ in range(3 if n == 0 else 1):
            api.call("gateway-rotate-secret", name=f"/prod/web-1/{name}")
    api.call("target-create-linked", name="/branch/routers", hosts="127.0.0.1:1;Lisbon,127.0.0.1:2;Porto", type="ssh")
    for area in ("db", "mail", "backup", "ldap"):
        api.call("target-create-ssh", **{"name": f"/{area}/host", "host": "127.0.0.1", "port": "9", "ssh-username": "root", "ssh-password": "x"})
        for n in range(9):
            api.call("rotated-secret-create-ssh", **{"name": f"/{area}/node-{n + 1}/root", "target-name": f"/{area}/host", "rotator-type": "password", "authentication-credentials": "use-target-creds", "rotated-username": f"root{n}", "skip-dry-run": True, "auto-rotate": True, "rotation-interval": 4 + 3 * n})
    api.call("target-create-ssh", **{"name": "/legacy/host", "host": host, "ssh-username": "root", "ssh-password": "changed by somebody"})
    api.call("rotated-secret-create-ssh", **{"name": "/legacy/payroll/app", "target-name": "/legacy/host", "rotator-type": "password", "authentication-credentials": "use-target-creds", "rotated-username": "app2", "skip-dry-run": True, "auto-rotate": True, "rotation-interval": 10})
    try:
        api.call("gateway-rotate-secret", name="/legacy/payroll/app")
        raise SystemExit("a rotation with a wrong credential succeeded")
    except AssertionError as refused:
        assert "rotation_failed" in str(refused), refused
    for name in ("/api/stripe", "/api/maps", "/certs/wildcard"):
        api.call("create-secret", name=name, value="something", tags=["api"])
    api.call("create-role", name="/operators", description="People on call")
    for rule in ({"path": "/prod/*", "capability": ["read", "update"]}, {"path": "/db/*", "capability": ["read"]}, {"path": "/db/node-9/*", "capability": ["deny"]}):
        api.call("set-role-rule", **{"role-name": "/operators", **rule})
    api.call("auth-method-create-api-key", name="/people/ann")
    api.call("assoc-role-am", **{"role-name": "/operators", "am-name": "/people/ann"})
    store = sqlite3.connect(f"{folder}/volvelle.db", timeout=20)
    day = 86_400_000_000
    with store:
        store.execute("UPDATE rotations SET id = id + 1000")
        (begun, ids) = store.execute("SELECT MIN(started_at), GROUP_CONCAT(DISTINCT item) FROM rotations").fetchone()
        ids, last = ids.split(","), 0
        for back in range(29, 0, -1):
            for n in range(1 + (back * 7) % 5):
                last += 1
                worse = "failed" if (back * 5 + n) % 17 == 0 else "done"
                at, stages = begun - back * day, ""
                for step, stage in enumerate(["claimed", "preflighted", "staged", "applied", "verified", worse]):
                    at += (40 + 37 * ((last + step) % 7)) * 1000 * (1 + step % 3)
                    stages += f"{stage}@{at} "
                store.execute("""INSERT INTO rotations SELECT account, ?, ?, host, target, REPLACE(state, '"stage":"done"', ?), open, 'schedule', '', fence, lease_owner, lease_until, not_before,
                    ?, ?, ?, ? FROM rotations WHERE id = 1001""", (last, ids[last % len(ids)], f'"stage":"{worse}"', begun - back * day, at, "" if worse == "done" else "the host did not answer within 10 s", stages))
        store.execute("UPDATE counters SET last = last + 1000 WHERE family = 'rotation'")
        # Their value as if it had been taken over long ago.
        store.execute("UPDATE items SET status = 'succeeded', rotator = REPLACE(REPLACE(rotator, '\"NotRotated\"', '\"RotationSucceeded\"'), '\"last_rotation_at\":null', '\"last_rotation_at\":' || (created_at - (id * 5 % 28 + 1) * ?)), last_rotation_at = created_at - (id * 5 % 28 + 1) * ? WHERE status = 'not_rotated' AND id % 9 <> 0", (day, day))
        store.execute("UPDATE accounts SET content = content + 1")
    store.close()


PAGES = [
    ("overview", "/console", ".month"), ("secrets", "/console/secrets", "tbody tr"), ("secret", "/console/secret/prod/web-1/app1", ".timeline"), ("targets", "/console/targets", "table"), ("target", "/console/target/prod/web-1", ".prints"),
    ("new-target", "/console/new/target", "form"), ("new-secret-filled", "/console/new/secret?target=/prod/web-1", "form"), ("new-static", "/console/new/static", "form"), ("edit", "/console/edit/secret/prod/web-1/app1", "form"), ("roles", "/console/roles", ".cards"),
    ("role-operators", "/console/role/operators", ".rules"), ("identities", "/console/identities", "table"), ("identity", "/console/identity/people/ann?path=/db/node-9/root", ".explained"), ("audit", "/console/audit", "table"), ("report", "/console/report", "table"), ("nowhere", "/console/no/such/place", ".nothing"),
    ("missing", "/console/secret/no/such", ".problem"),
]


def tour(browser, api, host, folder):
    furnish(api, host, folder)
    door = browser.person()
    door.goto(f"{browser.url}/console")
    door.wait_for_selector(".signin-card")
    browser.shoot(door, "sign-in")
    page = admin(browser, api)
    for name, path, ready in PAGES:
        browser.visit(page, path, ready)
        browser.shoot(page, name)
    browser.visit(page, "/console/audit", "table")
    page.get_by_role("button", name="Verify the chain").click()
    page.get_by_text("The log is whole").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    assert "rotate_item" in open(download.value.path(), encoding="utf8").read()
    browser.visit(page, "/console/report", "table")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    report = open(download.value.path(), encoding="utf8").read()
    assert "/prod/web-1/app1" in report and report.count("\n") == 42, report
    keyboard(browser, page)
    narrow(browser, api)
    small(browser)


def keyboard(browser, page):
    browser.visit(page, "/console/secrets", "tbody tr")
    page.keyboard.press("/")
    page.keyboard.type("NODE-3")
    until(page, "document.querySelectorAll('tbody tr').length === 4")
    still(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/secret/db/node-3/root")
    assert page.locator("h1").inner_text().startswith("root")


def narrow(browser, api):
    """A phone, and a window at 200 % zoom, which is one of half the size."""
    for name, width, height in (("phone", 390, 844), ("zoomed", 640, 400)):
        page = browser.person(width, height)
        browser.sign_in(page, api.admin["access_id"], api.admin["access_key"])
        for where, path, ready in PAGES[:3] + PAGES[6:7] + PAGES[13:15]:
            browser.visit(page, path, ready)
            browser.check(page, f"{where} ({name})", ["target-size", "scrollable-region-focusable", "meta-viewport", "label", "button-name", "link-name"])
            page.screenshot(path=str(browser.shots / f"{where}-{name}.png"))
        page.context.close()


def small(browser):
    """How much travels."""
    fresh = browser.person()
    fresh.goto(f"{browser.url}/console")
    fresh.wait_for_selector(".signin-card")
    size = fresh.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).reduce((sum, one) => sum + one.encodedBodySize, 0)")
    assert size <= 200_000, f"{size} bytes"
    print(f"{size} bytes over the wire")


if __name__ == "__main__":
    case, url, host, folder, shots = sys.argv[1:6]
    api, browser = Api(url, folder), Browser(url, shots)
    started = time.time()
    try:
        {"first_use": first_use, "repair": repair, "keys": keys, "roles": roles, "tour": tour}[case](browser, api, host, folder)
    except BaseException:
        for n, context in enumerate(browser.chromium.contexts):
            for page in context.pages:
                page.screenshot(path=f"{shots}/failed-{case}-{n}.png")
        print("\n".join(sorted(set(browser.wrong))))
        raise
    browser.end()
    print(f"{case}: {time.time() - started:.1f} s\nthe case is complete")
