"""A simulated Redfish service with the accounts of one BMC: sessions, Basic, privileges, ETags, lock-out, lengths, forced change.

Its resources carry what the DMTF schemas of ServiceRoot, SessionService, AccountService, ManagerAccount and Role require.
usage: redfish.py ADDRESS DIR, with PASSWORD in the environment; prints `ready`; ends with its standard input, which takes
`set USER FIELD JSON`, `rule NAME JSON`, `keep` and `back`.
"""
import base64
import copy
import json
import os
import secrets
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, DIR = sys.argv[1], sys.argv[2]
INITIAL = os.environ.pop("PASSWORD")
LOCK = threading.RLock()
ROOT, SERVICE = "/redfish/v1", "/redfish/v1/AccountService"
ROLES = {
    "Administrator": ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
    "Operator": ["Login", "ConfigureSelf", "ConfigureComponents"],
    "ReadOnly": ["Login", "ConfigureSelf"],
    "Auditor": ["Login", "ConfigureManager", "ConfigureSelf"],
}


def account(name, role):
    return {"name": name, "password": INITIAL, "role": role, "enabled": True, "locked": False, "change": False, "failures": 0,
            "all": 0, "version": 1, "types": ["Redfish", "IPMI"]}


ACCOUNTS = {"2": account("admin", "Administrator"), "3": account("ops", "Operator"), "5": account("app1", "Administrator"),
            "6": account("app2", "ReadOnly"), "7": account("snmp", "ReadOnly")}
ACCOUNTS["7"]["types"] = ["SNMP"]
RULES = {"threshold": 3, "shortest": 8, "longest": 20, "sessions": True, "keep_alive": True}
SESSIONS, SEEN, KEPT = {}, [], {}


def save():
    with open(os.path.join(DIR, "state.new"), "w") as file:
        json.dump({"accounts": ACCOUNTS, "rules": RULES, "sessions": len(SESSIONS), "seen": SEEN}, file)
    os.replace(os.path.join(DIR, "state.new"), os.path.join(DIR, "state.json"))


def by_name(name):
    return next((pair for pair in ACCOUNTS.items() if pair[1]["name"] == name), (None, None))


def check(name, password):
    """The id of the account that these open."""
    number, found = by_name(name)
    if found is None or not found["enabled"] or found["locked"] or "Redfish" not in found["types"]:
        return None
    if secrets.compare_digest(found["password"].encode(), password.encode()):
        found["failures"] = 0
        save()
        return number
    found["failures"] += 1
    found["all"] += 1
    if RULES["threshold"] and found["failures"] >= RULES["threshold"]:
        found["locked"] = True
    save()
    return None


def message(name, text, severity="Warning", args=()):
    return {"@odata.type": "#Message.v1_1_2.Message", "MessageId": f"Base.1.18.{name}", "Message": text,
            "MessageArgs": list(args), "MessageSeverity": severity, "Resolution": "None."}


def error(name, text, args=()):
    return {"error": {"code": "Base.1.18.GeneralError", "message": "A general error has occurred.",
                      "@Message.ExtendedInfo": [message(name, text, "Critical", args)]}}


def resource(path, kind, name, **more):
    return {"@odata.id": path, "@odata.type": kind, "Id": path.rsplit("/", 1)[1], "Name": name, **more}


def collection(path, kind, members):
    return {"@odata.id": path, "@odata.type": f"#{kind}.{kind}", "Name": kind, "Members@odata.count": len(members),
            "Members": [{"@odata.id": member} for member in members]}


def tag(entry):
    return f'W/"{entry["version"]}-{int(entry["locked"])}{int(entry["enabled"])}"'


def show(number):
    entry = ACCOUNTS[number]
    return resource(f"{SERVICE}/Accounts/{number}", "#ManagerAccount.v1_12_0.ManagerAccount", "User Account",
                    UserName=entry["name"], Password=None, RoleId=entry["role"], Enabled=entry["enabled"], Locked=entry["locked"],
                    AccountTypes=entry["types"], PasswordChangeRequired=entry["change"],
                    Links={"Role": {"@odata.id": f"{SERVICE}/Roles/{entry['role']}"}}, **{"@odata.etag": tag(entry)})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.request.settimeout(60)
        self.request.do_handshake()
        super().setup()

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not RULES["keep_alive"]:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.send_header("OData-Version", "4.0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, name="InsufficientPrivilege", status=403, text="There are insufficient privileges for the account."):
        self.answer(status, error(name, text))

    def caller(self):
        token = self.headers.get("X-Auth-Token")
        if token is not None:
            return SESSIONS.get(token, {}).get("account")
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        name, _, password = base64.b64decode(rest).decode().partition(":")
        return check(name, password)

    def handle_one(self, method):
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        path = self.path.rstrip("/") or "/"
        SEEN.append(f"{method} {path}")
        body = json.loads(text) if text else {}
        with LOCK:
            if path in ("/redfish", ROOT) and method == "GET":
                return self.answer(200, {"v1": f"{ROOT}/"} if path == "/redfish" else self.root())
            if path == f"{ROOT}/SessionService/Sessions" and method == "POST":
                return self.log_in(body)
            number = self.caller()
            if number is None:
                return self.answer(401, error("NoValidSession", "There is no valid session established with the implementation."))
            own = f"{SERVICE}/Accounts/{number}"
            sessions = path.startswith(f"{ROOT}/SessionService")
            if ACCOUNTS[number]["change"] and not sessions and not (path == own and method in ("GET", "PATCH")):
                return self.answer(403, error("PasswordChangeRequired", "The password provided for this account must be changed before "
                                              f"access is granted.  PATCH the Password property for this account located at {own}.", [own]))
            routes = {"GET": self.get, "PATCH": self.patch, "DELETE": self.delete}
            routes[method](path, number, ROLES[ACCOUNTS[number]["role"]], body)

    def root(self):
        return {"@odata.id": f"{ROOT}/", "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
                "RedfishVersion": "1.17.0", "UUID": "92384634-2938-2342-8820-489239905423",
                "AccountService": {"@odata.id": SERVICE}, "SessionService": {"@odata.id": f"{ROOT}/SessionService"},
                "Links": {"Sessions": {"@odata.id": f"{ROOT}/SessionService/Sessions"}}}

    def log_in(self, body):
        if not RULES["sessions"]:
            return self.answer(405, error("OperationNotAllowed", "The HTTP method is not allowed on this resource."))
        if len(SESSIONS) >= 8:
            return self.answer(503, error("SessionLimitExceeded", "The session establishment failed due to the number of simultaneous "
                                          "sessions exceeding the limit of the implementation."))
        number = check(body.get("UserName", ""), body.get("Password", ""))
        if number is None:
            return self.answer(401, error("ResourceAtUriUnauthorized", "While accessing the resource, the service received an "
                                          "authorization error 'unauthorized'."))
        token, name = secrets.token_urlsafe(24), secrets.token_hex(4)
        SESSIONS[token] = {"account": number, "name": name}
        save()
        path = f"{ROOT}/SessionService/Sessions/{name}"
        shown = resource(path, "#Session.v1_7_0.Session", "User Session", UserName=ACCOUNTS[number]["name"])
        if ACCOUNTS[number]["change"]:
            own = f"{SERVICE}/Accounts/{number}"
            shown["@Message.ExtendedInfo"] = [message("PasswordChangeRequired", "The password must be changed.", args=[own])]
        self.answer(201, shown, X_Auth_Token=token, Location=path)

    def get(self, path, number, rights, _):
        everything = "ConfigureUsers" in rights or "ConfigureManager" in rights
        if path == f"{ROOT}/SessionService":
            return self.answer(200, resource(path, "#SessionService.v1_1_9.SessionService", "Session Service", ServiceEnabled=True,
                                             SessionTimeout=600, Sessions={"@odata.id": f"{path}/Sessions"}))
        if path == SERVICE:
            return self.answer(200, resource(path, "#AccountService.v1_15_0.AccountService", "Account Service", ServiceEnabled=True,
                                             MinPasswordLength=RULES["shortest"], MaxPasswordLength=RULES["longest"],
                                             AccountLockoutThreshold=RULES["threshold"], AccountLockoutDuration=300,
                                             Accounts={"@odata.id": f"{path}/Accounts"}, Roles={"@odata.id": f"{path}/Roles"}))
        if path == f"{SERVICE}/Accounts":
            visible = [f"{path}/{n}" for n in ACCOUNTS if everything or n == number]
            return self.answer(200, collection(path, "ManagerAccountCollection", visible))
        parent, _, last = path.rpartition("/")
        if parent == f"{SERVICE}/Accounts" and last in ACCOUNTS:
            if not everything and last != number:
                return self.refuse()
            return self.answer(200, show(last), ETag=tag(ACCOUNTS[last]))
        if parent == f"{SERVICE}/Roles" and last in ROLES:
            return self.answer(200, resource(path, "#Role.v1_3_2.Role", "Role", AssignedPrivileges=ROLES[last], IsPredefined=True, RoleId=last))
        self.answer(404, error("ResourceMissingAtURI", f"The resource at the URI '{path}' was not found."))

    def patch(self, path, number, rights, body):
        parent, _, last = path.rpartition("/")
        if parent != f"{SERVICE}/Accounts" or last not in ACCOUNTS:
            return self.answer(404, error("ResourceMissingAtURI", "The resource was not found."))
        if "ConfigureUsers" not in rights and not (last == number and set(body) == {"Password"} and "ConfigureSelf" in rights):
            return self.refuse()
        entry = ACCOUNTS[last]
        expected = self.headers.get("If-Match")
        if expected is None:
            return self.answer(428, error("PreconditionRequired", "A precondition header or annotation is required."))
        if expected not in (tag(entry), "*"):
            return self.answer(412, error("PreconditionFailed", "The ETag supplied did not match the current ETag of the resource."))
        new = body.get("Password")
        if new is not None:
            if not RULES["shortest"] <= len(new) <= RULES["longest"] or new.isalpha():
                return self.answer(400, error("PropertyValueFormatError", f"The value '{new}' for the property Password is not a format "
                                              "that the property can accept.", [new, "Password"]))
            entry.update(password=new, change=False)
        if "Locked" in body:
            entry.update(locked=False, failures=0)
        entry["version"] += 1
        save()
        self.answer(200, show(last), ETag=tag(entry))

    def delete(self, path, number, *_):
        found = [token for token, session in SESSIONS.items() if session["name"] == path.rsplit("/", 1)[1]]
        for token in found:
            del SESSIONS[token]
        save()
        self.answer(204 if found else 404)

    def do_GET(self):
        self.handle_one("GET")

    def do_POST(self):
        self.handle_one("POST")

    def do_PATCH(self):
        self.handle_one("PATCH")

    def do_DELETE(self):
        self.handle_one("DELETE")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass


def command(line):
    word, _, rest = line.partition(" ")
    if word == "set":
        name, field, value = rest.split(" ", 2)
        by_name(name)[1].update({field: json.loads(value), "version": by_name(name)[1]["version"] + 1})
    elif word == "rule":
        name, value = rest.split(" ", 1)
        RULES[name] = json.loads(value)
    elif word == "keep":
        KEPT["accounts"] = copy.deepcopy(ACCOUNTS)
    elif word == "back":
        ACCOUNTS.update(copy.deepcopy(KEPT["accounts"]))
    save()
    return "done"


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("tls/cert.pem", "tls/key.pem")
server = Server((ADDRESS, 443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()
save()
print("ready", flush=True)
for line in sys.stdin:
    with LOCK:
        print(command(line.strip()), flush=True)
