"""A scripted Junos device: its command line and NETCONF over SSH, on one configuration with candidate, trial, history and locks.

Logins are live: what is committed is what opens. usage: junos.py ADDRESS PORT NETCONF-VERSION (1.0 or 1.1); prints `ready`; reads lines of
JSON on standard input and answers each: {"opens": [user, password]}, {"typed": true}, {"keep": true}, {"back": true}, {"age": minutes},
{"full": true} (nothing can be committed), {"stuck": user} (its logins go on with the former password). Ends when standard input closes.
"""

import copy
import crypt
import json
import os
import re
import socket
import sys
import threading
import time

import paramiko
from lxml import etree

ADDRESS, PORT, VERSION = sys.argv[1], int(sys.argv[2]), sys.argv[3]
INITIAL = "Init-Passw0rd!1"
KEY = paramiko.ECDSAKey.generate()
LOCK = threading.RLock()
BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"


def hashed(password):
    return crypt.crypt(password, crypt.mksalt(crypt.METHOD_SHA512))


class Device:
    def __init__(self):
        users = {"admin": "super-user", "app1": "super-user", "ops": "read-only"}
        self.active = {name: {"class": kind, "hash": hashed(INITIAL)} for name, kind in users.items()}
        self.candidate, self.history, self.trial, self.owner = copy.deepcopy(self.active), [], None, None
        self.typed, self.failures, self.full, self.stuck, self.kept = [], 0, False, {}, None

    def tick(self):
        if self.trial and time.time() > self.trial["until"]:
            self.go_back()

    def go_back(self):
        self.active = self.trial["before"]
        self.candidate, self.trial = copy.deepcopy(self.active), None

    def commit(self, minutes=None, owner=None, persist=None):
        if self.full:
            return False
        before = self.active
        self.history.insert(0, before)
        self.active = copy.deepcopy(self.candidate)
        if minutes is None:
            self.trial = None
        else:
            first = self.trial["before"] if self.trial else before
            self.trial = {"before": first, "until": time.time() + minutes * 60, "owner": owner, "persist": persist}
        return True

    def opens(self, user, password):
        self.tick()
        entry = self.active.get(user)
        stored = self.stuck.get(user) or (entry and entry["hash"])
        return bool(stored) and crypt.crypt(password, stored) == stored


device = Device()


class Login(paramiko.ServerInterface):
    def __init__(self):
        self.user, self.wants = None, None
        self.event = threading.Event()

    def get_allowed_auths(self, _):
        return "password"

    def check_auth_password(self, user, password):
        with LOCK:
            if device.opens(user, password):
                self.user = user
                return paramiko.AUTH_SUCCESSFUL
            device.failures += 1
            return paramiko.AUTH_FAILED

    def check_channel_request(self, kind, _):
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_pty_request(self, *_):
        return True

    def check_channel_shell_request(self, channel):
        threading.Thread(target=guarded, args=(Cli, channel, self.user), daemon=True).start()
        return True

    def check_channel_subsystem_request(self, channel, name):
        if name != "netconf":
            return False
        threading.Thread(target=guarded, args=(Netconf, channel, self.user), daemon=True).start()
        return True


def guarded(kind, channel, user):
    session = kind(channel, user)
    try:
        session.run()
    except (OSError, EOFError):
        pass
    finally:
        with LOCK:
            session.ended()
        channel.close()


class Cli:
    """Operational mode, and the exclusive configuration mode."""

    def __init__(self, channel, user):
        self.channel, self.user, self.configuring = channel, user, False

    def ended(self):
        if device.owner is self:
            device.owner, device.candidate = None, copy.deepcopy(device.active)

    def say(self, text):
        self.channel.sendall(text.replace("\n", "\r\n").encode())

    def prompt(self):
        if self.configuring:
            left = "\n# commit confirmed will be rolled back in 5 minutes" if device.trial else ""
            self.say(f"{left}\n[edit]\n{self.user}@mx1# ")
        else:
            self.say(f"\n{self.user}@mx1> ")

    def run(self):
        self.say(f"--- JUNOS 21.4R3.15 built 2022-09-08 17:23:22 UTC")
        self.prompt()
        line = b""
        while True:
            data = self.channel.recv(4096)
            if not data:
                return
            for byte in data:
                if byte in (10, 13):
                    self.say("\n")
                    with LOCK:
                        device.tick()
                        if line:
                            device.typed.append(line.decode())
                        if self.command(line.decode().strip()) == "end":
                            return
                        self.prompt()
                    line = b""
                else:
                    line += bytes([byte])
                    self.channel.sendall(bytes([byte]))

    def command(self, line):
        return self.edit(line) if self.configuring else self.operate(line)

    def unknown(self):
        self.say("                ^\nunknown command.\n")

    def operate(self, line):
        shown = re.match(r"show configuration system login user (\S+) \| display set$", line)
        if line in ("exit", "quit"):
            return "end"
        if match := re.match(r"set cli screen-(length|width) (\d+)$", line):
            self.say(f"Screen {match[1]} set to {match[2]}\n")
        elif line == "set cli complete-on-space off":
            self.say("Disabling complete-on-space\n")
        elif shown and shown[1] in device.active:
            entry, head = device.active[shown[1]], f"set system login user {shown[1]} "
            secret = entry["hash"] if device.active[self.user]["class"] == "super-user" else "/* SECRET-DATA */"
            self.say(f"{head}class {entry['class']}\n{head}authentication encrypted-password \"{secret}\"\n")
        elif line in ("configure", "configure exclusive") and device.active[self.user]["class"] == "super-user":
            if device.owner not in (None, self):
                return self.say("error: configuration database locked by:\n  other terminal p0 (pid 1) on since 2022-09-08\n      exclusive\n")
            device.owner, self.configuring = self, True
            self.say("warning: uncommitted changes will be discarded on exit\nEntering configuration mode\n")
        elif line and not shown:
            self.unknown()

    def edit(self, line):
        changed = re.match(r'set system login user (\S+) authentication encrypted-password "?(\$6\$[^"\s]+)"?$', line)
        if changed and changed[1] in device.candidate:
            device.candidate[changed[1]]["hash"] = changed[2]
        elif match := re.match(r"rollback ([01])$", line):
            device.candidate = copy.deepcopy(device.active if match[1] == "0" else device.history[0])
            self.say("load complete\n")
        elif match := re.match(r"commit(?: confirmed (\d+))?$", line):
            minutes = int(match[1]) if match[1] else None
            if not device.commit(minutes, self, "cli"):
                return self.say("error: could not save to juniper.save+\nerror: configuration check-out failed\n")
            if minutes:
                self.say(f"commit confirmed will be automatically rolled back in {minutes} minutes unless confirmed\n")
            self.say("commit complete\n")
        elif line in ("exit", "exit configuration-mode"):
            self.ended()
            self.configuring = False
            self.say("Exiting configuration mode\n")
        elif line:
            self.say("                ^\nsyntax error.\n")


class Netconf:
    """The operations of RFC 6241 that a change of a password needs."""

    def __init__(self, channel, user):
        self.channel, self.user, self.chunked = channel, user, False
        self.heard = b""

    def ended(self):
        if device.owner is self:
            device.owner, device.candidate = None, copy.deepcopy(device.active)
        if device.trial and device.trial["owner"] is self and device.trial["persist"] is None:
            device.go_back()

    def send(self, text):
        data = text.encode()
        self.channel.sendall(b"\n#%d\n%s\n##\n" % (len(data), data) if self.chunked else data + b"]]>]]>")

    def message(self):
        while True:
            if self.chunked:
                out, rest = b"", self.heard
                while match := re.match(rb"\n#(\d+)\n", rest):
                    size, start = int(match[1]), match.end()
                    if len(rest) < start + size:
                        break
                    out, rest = out + rest[start : start + size], rest[start + size :]
                if rest.startswith(b"\n##\n"):
                    self.heard = rest[4:]
                    return out
            elif b"]]>]]>" in self.heard:
                out, self.heard = self.heard.split(b"]]>]]>", 1)
                return out
            data = self.channel.recv(65536)
            if not data:
                raise EOFError
            self.heard += data

    def run(self):
        names = [f"netconf:base:{v}" for v in (("1.0", "1.1") if VERSION == "1.1" else ("1.0",))]
        names += ["netconf:capability:candidate:1.0", f"netconf:capability:confirmed-commit:{VERSION}"]
        capabilities = "".join(f"<capability>urn:ietf:params:{name}</capability>" for name in names)
        self.send(f'<hello xmlns="{BASE}"><capabilities>{capabilities}</capabilities><session-id>{id(self) % 9999}</session-id></hello>')
        self.chunked = b"base:1.1" in self.message() and VERSION == "1.1"
        while True:
            text = self.message()
            rpc = etree.fromstring(text.strip())
            call = rpc[0]
            name = etree.QName(call).localname
            with LOCK:
                device.tick()
                device.typed.append(text.decode())
                answer = self.answer(name, call)
            number = rpc.get("message-id")
            self.send(f'<rpc-reply xmlns="{BASE}" message-id="{number}">{answer}</rpc-reply>')
            if name == "close-session":
                return

    def error(self, tag, text):
        return (f"<rpc-error><error-type>protocol</error-type><error-tag>{tag}</error-tag><error-severity>error</error-severity>"
                f"<error-message>\n{text}\n</error-message></rpc-error>")

    def answer(self, name, call):
        super_user = device.active[self.user]["class"] == "super-user"
        find = lambda tag: next((e for e in call.iter() if etree.QName(e).localname == tag), None)
        if name == "get-config":
            wanted = find("name")
            return f"<data>{self.show(wanted.text if wanted is not None else None, super_user)}</data>"
        if name == "close-session":
            return "<ok/>"
        if not super_user:
            return self.error("access-denied", "permission denied")
        if name == "lock":
            if device.owner not in (None, self) or device.candidate != device.active:
                return self.error("lock-denied", "configuration database modified")
            device.owner = self
        elif name in ("unlock", "discard-changes"):
            device.candidate = copy.deepcopy(device.active)
            device.owner = None if name == "unlock" else device.owner
        elif name == "load-configuration" and call.get("rollback") == "1":
            device.candidate = copy.deepcopy(device.history[0])
        elif name == "edit-config":
            user, value = find("name").text, find("encrypted-password").text
            if user not in device.candidate or not value.startswith("$6$"):
                return self.error("invalid-value", "no such user, or no password")
            device.candidate[user]["hash"] = value
        elif name == "commit":
            return self.commit(find, 60)
        elif name == "commit-configuration":
            return self.commit(find, 1)
        elif name == "cancel-commit":
            given = find("persist-id")
            if not device.trial or (given.text if given is not None else None) != device.trial["persist"]:
                return self.error("invalid-value", "no such confirmed commit")
            device.go_back()
        else:
            return self.error("operation-not-supported", "syntax error")
        return "<ok/>"

    def commit(self, find, per_minute):
        text = lambda tag: None if find(tag) is None else find(tag).text
        given, trial = text("persist-id"), device.trial
        if given is not None and (not trial or trial["persist"] != given):
            return self.error("invalid-value", "no such confirmed commit")
        minutes = int(text("confirm-timeout") or 10 * per_minute) / per_minute if find("confirmed") is not None else None
        if not device.commit(minutes, self, text("persist")):
            return self.error("operation-failed", "configuration check-out failed")
        return "<ok/>"

    def show(self, user, super_user):
        users = "".join(
            f"<user><name>{name}</name><class>{entry['class']}</class><authentication><encrypted-password>"
            f"{entry['hash'] if super_user else '/* SECRET-DATA */'}</encrypted-password></authentication></user>"
            for name, entry in device.active.items() if user in (None, name))
        inner = f"<system><login>{users}</login></system>" if users else ""
        return f'<configuration xmlns="http://xml.juniper.net/xnm/1.1/xnm">{inner}</configuration>'


def serve(connection):
    try:
        transport = paramiko.Transport(connection)
        transport.add_server_key(KEY)
        transport.start_server(server=Login())
        channels = []  # one that nobody holds is closed
        while transport.is_active():
            channels.append(transport.accept(5))
    except (paramiko.SSHException, EOFError, OSError):
        pass


def answer(request):
    if "opens" in request:
        return device.opens(*request["opens"])
    if "typed" in request:
        return {"lines": device.typed, "failures": device.failures}
    if "keep" in request:
        device.kept = copy.deepcopy(device.active)
    elif "back" in request:
        device.active, device.trial = copy.deepcopy(device.kept), None
        device.candidate = copy.deepcopy(device.active)
    elif "age" in request and device.trial:
        device.trial["until"] -= request["age"] * 60
    elif "full" in request:
        device.full = request["full"]
    elif "stuck" in request:
        user = request["stuck"]
        device.stuck = {user: device.active[user]["hash"]} if user else {}
    return True


def listen():
    for line in sys.stdin:
        with LOCK:
            print(json.dumps(answer(json.loads(line))), flush=True)
    os._exit(0)


paramiko.util.logging.getLogger("paramiko").setLevel("CRITICAL")
listener = socket.create_server((ADDRESS, PORT), backlog=64)
threading.Thread(target=listen, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
