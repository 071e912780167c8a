#!/usr/bin/env python3
"""Plays `volvelle dev` for the testkit's own tests: just enough to be started, called, killed and stopped."""
import http.server, json, os, signal, sys

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
host, port = arguments["--listen"].split(":")
data = arguments["--data-dir"]
os.makedirs(data, exist_ok=True)
counter = os.path.join(data, "starts")
starts = int(open(counter).read()) + 1 if os.path.exists(counter) else 1
open(counter, "w").write(str(starts))
with open(os.path.join(data, "admin.json"), "w") as file:
    json.dump({"url": f"http://{host}:{port}", "access_id": "p-1", "access_key": "k"}, file)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/auth":
            right = (body["access-id"], body["access-key"]) == ("p-1", "k")
            self.answer(200 if right else 401, {"token": "t-1"} if right else {"error": "no"})
        elif body.get("token") != "t-1":
            self.answer(401, {"error": "no"})
        else:
            self.answer(200, {"starts": starts, "mark": os.environ.get("MARK"), "name": body.get("name")})

    def log_message(self, *_):
        print("request", self.path, flush=True)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
