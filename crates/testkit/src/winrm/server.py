"""A simulator of Windows Remote Management: HTTP and HTTPS, NTLM and Kerberos with sealed messages, the shell's five operations.

The logins are those of pyspnego, which pypsrp uses against real hosts; Kerberos is MIT's library under it, with a key from a real domain.
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

from host import ACCOUNTS, ADDRESS, DIR, GUESTS, LOCK, LOGINS, USERS, command, failed, known, powershell, save  # noqa: E402
import openssh  # noqa: E402

os.environ["NTLM_USER_FILE"] = USERS
CHANNEL_BOUND = 2048
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
HEAD = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" '
    f'xmlns:rsp="{SHELL}" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd">'
)


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
        if status == 401 or token:
            self.send_header("WWW-Authenticate", "Negotiate" + (f" {base64.b64encode(token).decode()}" if token else ""))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def authenticate(self, header):
        token = base64.b64decode(header.split(" ", 1)[1])
        at = token.find(b"NTLMSSP\0")
        if at < 0:
            return self.kerberos(token)
        third = token[at + 8] == 3
        if self.context is None or not third:
            self.context, self.user = spnego.server(protocol="negotiate"), None
        name = None
        LOGINS.append("ntlm")
        save()
        if third:
            length, _, start = struct.unpack("<HHI", token[at + 36 : at + 44])
            name = token[at + start : at + start + length].decode("utf-16-le")
            name = known(name)
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

    def kerberos(self, token):
        """Accepts a ticket for this host. Over HTTPS one that is bound to another certificate is refused; one that is bound to none is not,
        as Windows has it if nobody hardens it."""
        self.context, self.user = spnego.server(hostname="win1.corp.test", service="HTTP", protocol="negotiate"), None
        try:
            answer = self.context.step(token, channel_bindings=self.server.bindings)
        except (spnego.exceptions.SpnegoError, AttributeError):
            # The latter is how pyspnego shows an error for which GSS-API has a token.
            LOGINS.append("kerberos-refused")
            save()
            return None
        bound = int(self.context._context._context.actual_flags) & CHANNEL_BOUND
        LOGINS.append("kerberos-bound" if bound else "kerberos")
        save()
        if self.context.complete and self.context.client_principal in GUESTS:
            self.user = self.context.client_principal
        return answer or b""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        header, token = self.headers.get("Authorization"), None
        if header:
            token = self.authenticate(header)
            if self.user is None:
                return self.answer(401, token=token)
        if self.user is None:
            return self.answer(401)
        if not body:
            return self.answer(200, token=token)
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
            return self.answer(status, plain, token=token)
        wrapped = self.context.wrap_winrm(plain)
        mark = b"--Encrypted Boundary"
        # As the client called it: both names are in use for Kerberos.
        kind = re.search(r'protocol="([^"]+)"', self.headers["Content-Type"]).group(1).encode()
        out = (
            mark + b"\r\n\tContent-Type: " + kind + b"\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length="
            + str(len(plain)).encode() + b"\r\n" + mark + b"\r\n\tContent-Type: application/octet-stream\r\n"
            + struct.pack("<I", len(wrapped.header)) + wrapped.header + wrapped.data + mark + b"--\r\n"
        )
        return self.answer(status, out, f'multipart/encrypted;protocol="{kind.decode()}";boundary="Encrypted Boundary"', token)

    def operation(self, body):
        action = re.search(r"Action[^>]*>\s*([^<\s]+)\s*<", body).group(1)
        if action.endswith("transfer/Create"):
            if self.user in ACCOUNTS and not ACCOUNTS[self.user]["remote"]:
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
            self.commands[number] = {"output": command(self.user, line), "asked": 0}
            return f"<rsp:CommandResponse><rsp:CommandId>{number}</rsp:CommandId></rsp:CommandResponse>"
        number = re.search(r'CommandId="([^"]+)"', body)
        running = self.commands.get(number.group(1)) if number else None
        if action.endswith("shell/Send"):
            data = base64.b64decode(re.search(r"<rsp:Stream[^>]*>([^<]*)<", body).group(1))
            running["output"] = powershell(data.decode().splitlines(), self.user)
            return "<rsp:SendResponse/>"
        if action.endswith("shell/Receive"):
            running["asked"] += 1
            if running["asked"] == 1 or running["output"] is None:
                raise Fault(2150858793)
            output, running["output"] = base64.b64encode(running["output"].encode()).decode(), ""
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
openssh.serve(22)
print("ready", flush=True)
for line in sys.stdin:
    # `set NAME FIELD JSON` changes an account, `swap` the host key.
    if line.strip() == "swap":
        openssh.swap()
    else:
        _, name, field, value = line.split(" ", 3)
        with LOCK:
            ACCOUNTS[name][field] = json.loads(value)
    save()
    print("done", flush=True)
