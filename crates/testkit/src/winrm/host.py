"""What the simulated Windows host is, whichever way leads to it: its accounts, what logs on with them, and what known scripts do.

PowerShell is NOT run: a script is known by its first line, and what it would do to the accounts of a host is done to a table. So the
protocols are tested here, and the scripts' text is not.
"""
import base64
import json
import os
import re
import sys
import threading

ADDRESS, DIR = sys.argv[1], sys.argv[2]
INITIAL = os.environ.pop("PASSWORD")
USERS = os.path.join(DIR, "users")
LOCK = threading.RLock()
ACCOUNTS = {
    name: {"password": INITIAL, "admin": name == "Administrator", "remote": name != "app3", "disabled": False, "locked": False, "failures": 0}
    for name in ["Administrator", "app1", "app2", "app3", "weak"]
}
# Accounts of the domain that may come in, where the host has joined one: whether they are administrators here.
GUESTS = {"rot@CORP.TEST": True, "weak@CORP.TEST": False}
DEPENDENTS = {
    f"{kind}:{name}": {"account": "app1", "password": INITIAL, "starts": 1}
    for kind, name in [("service", "spool"), ("service", "My Service"), ("pool", "site"), ("task", "\\Nightly\\backup")]
} | {"service:foreign": {"account": "weak", "password": INITIAL, "starts": 1}}
SEEN = []  # every command line that a client sent
LOGINS = []  # how everybody came in, or tried to
LOCK_AFTER = 4


def save():
    """Writes down what others look at."""
    with LOCK:
        write()


def write():
    state = {"accounts": ACCOUNTS, "dependents": DEPENDENTS, "seen": SEEN, "logins": LOGINS}
    lines = [f"{domain}:{name}:{account['password']}\n" for name, account in ACCOUNTS.items() for domain in ("WIN1", "")]
    for path, text in ((USERS, "".join(lines)), (os.path.join(DIR, "state.json"), json.dumps(state))):
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)


def known(name):
    """An account's name as it is written here; Windows does not care for capitals."""
    return next((known for known in ACCOUNTS if known.lower() == name.lower()), name)


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
    admin = GUESTS[caller] if caller in GUESTS else ACCOUNTS[caller]["admin"]
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


def powershell(lines, caller):
    """What PowerShell prints that was given these lines, or None while some are missing."""
    if not lines or len(lines) <= int(lines[0]):
        return None
    decoded = [base64.b64decode(text).decode() for text in lines[1 : int(lines[0]) + 1]]
    with LOCK:
        return "".join(line + "\r\n" for line in script(caller, decoded[0], decoded[1:]))


def command(caller, line):
    """Notes a command line. Gives what it prints, or None if it waits for input."""
    SEEN.append(line)
    save()
    encoded = re.search(r"-encodedcommand\s+(\S+)", line, re.I)
    if encoded and "ReadLine" in base64.b64decode(encoded.group(1)).decode("utf-16-le"):
        return None
    if "whoami" in line:
        name = caller.lower()
        return (f"corp\\{name.split('@')[0]}" if "@" in name else f"win1\\{name}") + "\r\n"
    return ""
