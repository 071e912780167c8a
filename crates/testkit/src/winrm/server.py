"""A simulator of Windows Remote Management: HTTP and HTTPS, NTLM with sealed messages, the shell's five operations.

NTLM is that of pyspnego, which pypsrp uses against real hosts. PowerShell is NOT run: a script is known by its first line, and what it
would do to the accounts of a host is done to a table. So the protocol is tested here, and the scripts' text is not.
usage: server.py ADDRESS DIR, with PASSWORD in the environment; prints `ready`; ends with its standard input.
"""
import base64
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

socket.gethostname = lambda: "WIN1"
import spnego  # noqa: E402
from spnego.channel_bindings import GssChannelBindings  # noqa: E402

ADDRESS, DIR = sys.argv[1], sys.argv[2]
INITIAL = os.environ.pop("PASSWORD")
USERS = os.path.join(DIR, "users")
os.environ["NTLM_USER_FILE"] = USERS
LOCK = threading.RLock()
ACCOUNTS = {
    name: {"password": INITIAL, "admin": name == "Administrator", "remote": name != "app3", "disabled": False, "locked": False, "failures": 0}
    for name in ["Administrator", "app1", "app2", "app3", "weak"]
}
DEPENDENTS = {
    f"{kind}:{name}": {"account": "app1", "password": INITIAL, "starts": 1}
    for kind, name in [("service", "spool"), ("service", "My Service"), ("pool", "site"), ("task", "\\Nightly\\backup")]
} | {"service:foreign": {"account": "weak", "password": INITIAL, "starts": 1}}
SEEN = []  # every command line that a client sent
LOCK_AFTER = 4
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
HEAD = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" '
    f'xmlns:rsp="{SHELL}" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd">'
)


def save():
    lines = [f"{domain}:{name}:{account['password']}\n" for name, account in ACCOUNTS.items() for domain in ("WIN1", "")]
    for path, text in ((USERS, "".join(lines)), (os.path.join(DIR, "state.json"), json.dumps({"accounts": ACCOUNTS, "dependents": DEPENDENTS, "seen": SEEN}))):
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)


def failed(name):
    account = ACCOUNTS.get(name)
    if account:
        account["failures"] += 1
        account["locked"] = account["locked"] or (account["failures"] >= LOCK_AFTER and not account.get("exempt"))
        save()


def weak(password):
    kinds = sum(any(test(c) for c in password) for test in (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum()))
    return len(password) < 8 or kinds < 3


def logon(name, password):
    """What LogonUser answers."""
    account = ACCOUNTS.get(name)
    if account is None:
        return 1326
    if account["locked"]:
        return 1909
    if account["password"] != password:
        failed(name)
        return 1326
    if account["disabled"]:
        return 1331
    account["failures"] = 0
    return 0


def script(caller, text, args):
    """What a known script would print."""
    kind = re.match(r"# volvelle: ([\w-]+)", text)
    kind = kind.group(1) if kind else "unknown"
    admin = ACCOUNTS[caller]["admin"]
    account = ACCOUNTS.get(args[0])
    if kind == "facts":
        out = [f"admin={admin}"]
        if account is None:
            return out + ["account=False"]
        return out + ["account=True", f"disabled={account['disabled']}", f"locked={account['locked']}", "length=8"]
    if kind == "set":
        if not admin:
            return ["result=80070005"]
        if account is None:
            return ["result=800708ad"]
        if weak(args[1]):
            return ["result=800708c5"]
        account["password"] = args[1]
        save()
        return ["result=0"]
    if kind == "change":
        if account is None or account["password"] != args[1]:
            failed(args[0])
            return ["result=80070056"]
        if weak(args[2]):
            return ["result=800708c5"]
        account["password"] = args[2]
        save()
        return ["result=0"]
    if kind == "probe":
        out, spent = [], 0
        for number, password in enumerate(args[2:]):
            if spent >= int(args[1]):
                break
            code = logon(args[0], password)
            out.append(f"code{number}={code}")
            if code == 0:
                break
            spent += 1
        save()
        return out
    if kind == "hand-on":
        if not admin:
            return ["result=80070005"]
        dependent = DEPENDENTS.get(f"{args[0]}:{args[1]}")
        if dependent is None:
            return ["result=missing"]
        if dependent["account"] != args[2]:
            return ["result=other"]
        dependent["password"] = args[3]
        dependent["starts"] += args[4] == "yes" and args[0] != "task"
        save()
        return ["result=0"]
    return ["unknown script"]


class Command:
    def __init__(self, caller, line):
        self.caller, self.line, self.done, self.output, self.asked = caller, line, True, b"", 0
        SEEN.append(line)
        encoded = re.search(r"-encodedcommand\s+(\S+)", line, re.I)
        if encoded and "ReadLine" in base64.b64decode(encoded.group(1)).decode("utf-16-le"):
            self.done = False
        elif "whoami" in line:
            self.output = f"win1\\{caller.lower()}\r\n".encode()

    def feed(self, data):
        lines = data.decode().splitlines()
        decoded = [base64.b64decode(text).decode() for text in lines[1 : int(lines[0]) + 1]]
        with LOCK:
            answer = script(self.caller, decoded[0], decoded[1:])
        self.output, self.done = "".join(line + "\r\n" for line in answer).encode(), True


class Fault(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.context, self.user, self.shells, self.commands = None, None, {}, {}

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/soap+xml;charset=UTF-8", token=None):
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Negotiate" + (f" {base64.b64encode(token).decode()}" if token else ""))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def authenticate(self, header):
        token = base64.b64decode(header.split(" ", 1)[1])
        at = token.find(b"NTLMSSP\0")
        third = at >= 0 and token[at + 8] == 3
        if self.context is None or not third:
            self.context, self.user = spnego.server(protocol="negotiate"), None
        name = None
        if third:
            length, _, start = struct.unpack("<HHI", token[at + 36 : at + 44])
            name = token[at + start : at + start + length].decode("utf-16-le")
            name = next((known for known in ACCOUNTS if known.lower() == name.lower()), name)
            account = ACCOUNTS.get(name)
            if account is None or account["locked"] or account["disabled"]:
                return None
        try:
            with LOCK:
                answer = self.context.step(token, channel_bindings=self.server.bindings)
        except spnego.exceptions.SpnegoError:
            if name:
                failed(name)
            self.context = None
            return None
        if self.context.complete:
            ACCOUNTS[name]["failures"] = 0
            self.user = name
        return answer or b""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        header = self.headers.get("Authorization")
        if header:
            token = self.authenticate(header)
            if self.user is None:
                return self.answer(401, token=token)
        if self.user is None:
            return self.answer(401)
        if not body:
            return self.answer(200)
        sealed = self.headers.get("Content-Type", "").startswith("multipart/encrypted")
        if not sealed and not self.server.secure:
            return self.answer(500)
        if sealed:
            inner = body.split(b"Content-Type: application/octet-stream\r\n", 1)[1][: -len(b"--Encrypted Boundary--\r\n")]
            length = struct.unpack("<I", inner[:4])[0]
            body = self.context.unwrap_winrm(inner[4 : 4 + length], inner[4 + length :])
        try:
            status, text = 200, self.operation(body.decode())
        except Fault as fault:
            status, text = 500, (
                f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:Fault</s:Value></s:Subcode></s:Code>"
                f'<s:Reason><s:Text xml:lang="">refused</s:Text></s:Reason><s:Detail><f:WSManFault '
                f'xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="{fault}" Machine="WIN1"><f:Message>refused</f:Message>'
                f"</f:WSManFault></s:Detail></s:Fault>"
            )
        related = re.search(r"MessageID[^>]*>([^<]+)<", body.decode())
        plain = f"{HEAD}<s:Header><a:RelatesTo>{related.group(1) if related else ''}</a:RelatesTo></s:Header><s:Body>{text}</s:Body></s:Envelope>".encode()
        if not sealed:
            return self.answer(status, plain)
        wrapped = self.context.wrap_winrm(plain)
        mark = b"--Encrypted Boundary"
        kind = b"application/HTTP-SPNEGO-session-encrypted"
        out = (
            mark + b"\r\n\tContent-Type: " + kind + b"\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length="
            + str(len(plain)).encode() + b"\r\n" + mark + b"\r\n\tContent-Type: application/octet-stream\r\n"
            + struct.pack("<I", len(wrapped.header)) + wrapped.header + wrapped.data + mark + b"--\r\n"
        )
        return self.answer(status, out, f'multipart/encrypted;protocol="{kind.decode()}";boundary="Encrypted Boundary"')

    def operation(self, body):
        action = re.search(r"Action[^>]*>\s*([^<\s]+)\s*<", body).group(1)
        if action.endswith("transfer/Create"):
            if not ACCOUNTS[self.user]["remote"]:
                raise Fault(5)
            given = re.search(r'ShellId="([^"]+)"', body)
            shell = given.group(1) if given else str(uuid.uuid4()).upper()
            self.shells[shell] = True
            return (
                f"<x:ResourceCreated><a:Address>http://{ADDRESS}:5985/wsman</a:Address><a:ReferenceParameters><w:ResourceURI>{SHELL}/cmd"
                f'</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet></a:ReferenceParameters>'
                f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId></rsp:Shell>"
            )
        if action.endswith("shell/Command"):
            line = " ".join(re.findall(r"<rsp:(?:Command|Arguments)(?:\s[^>]*)?>([^<]*)", body))
            number = re.search(r'CommandId="([^"]+)"', body)
            number = number.group(1) if number else str(uuid.uuid4()).upper()
            self.commands[number] = Command(self.user, line)
            save()
            return f"<rsp:CommandResponse><rsp:CommandId>{number}</rsp:CommandId></rsp:CommandResponse>"
        number = re.search(r'CommandId="([^"]+)"', body)
        command = self.commands.get(number.group(1)) if number else None
        if action.endswith("shell/Send"):
            command.feed(base64.b64decode(re.search(r"<rsp:Stream[^>]*>([^<]*)<", body).group(1)))
            return "<rsp:SendResponse/>"
        if action.endswith("shell/Receive"):
            command.asked += 1
            if command.asked == 1 or not command.done:
                raise Fault(2150858793)
            output, command.output = base64.b64encode(command.output).decode(), b""
            key = number.group(1)
            return (
                f'<rsp:ReceiveResponse><rsp:Stream Name="stdout" CommandId="{key}">{output}</rsp:Stream>'
                f'<rsp:Stream Name="stdout" CommandId="{key}" End="true"/><rsp:Stream Name="stderr" CommandId="{key}" End="true"/>'
                f'<rsp:CommandState CommandId="{key}" State="{SHELL}/CommandState/Done"><rsp:ExitCode>0</rsp:ExitCode></rsp:CommandState>'
                f"</rsp:ReceiveResponse>"
            )
        if action.endswith("shell/Signal"):
            return "<rsp:SignalResponse/>"
        return ""


def serve(port, secure):
    server = ThreadingHTTPServer((ADDRESS, port), Handler)
    server.daemon_threads, server.secure, server.bindings = True, secure, None
    if secure:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{DIR}/tls/cert.pem", f"{DIR}/tls/key.pem")
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        with open(f"{DIR}/tls/cert.pem") as file:
            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).digest()
        server.bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + digest)
    threading.Thread(target=server.serve_forever, daemon=True).start()


save()
serve(5985, False)
serve(5986, True)
print("ready", flush=True)
for line in sys.stdin:
    # `set NAME FIELD JSON` changes an account.
    _, name, field, value = line.split(" ", 3)
    with LOCK:
        ACCOUNTS[name][field] = json.loads(value)
        save()
    print("done", flush=True)
