"""Opens the console again and again: argv is the gateway's address, an access id, and how often; the access key comes on standard
input. Prints bytes of the first visit, and the first contentful paint of each further one in milliseconds, as JSON."""
import json
import sys

from playwright.sync_api import sync_playwright

url, access_id, rounds = sys.argv[1:4]
BYTES = "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).reduce((sum, one) => sum + one.encodedBodySize, 0)"
with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
    page = chromium.new_page()
    page.goto(f"{url}/console")
    page.wait_for_selector(".signin-card")
    size = page.evaluate(BYTES)
    page.get_by_label("Access ID").fill(access_id)
    page.get_by_label("Access key").fill(sys.stdin.readline().strip())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#side", state="attached")
    paints = []
    for _ in range(int(rounds)):
        page.goto(f"{url}/console")
        page.wait_for_selector("#side", state="attached")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    print(json.dumps({"bytes": size, "paints": paints}))
