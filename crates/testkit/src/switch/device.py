"""One network device over SSH: the CLI of fake-switches, with the password commands it lacks.

Logins, the privileged mode and `username` are live: what is typed is what opens, and what is not saved is gone after a restart.
`python device.py ADDRESS PORT PLATFORM` reads lines of JSON on standard input and answers each on standard output:
{"opens": [user, password]}, {"typed": true}, {"reload": true}, {"full": true}. Ends when standard input closes.
"""

import base64
import crypt
import hashlib
import json
import os
import re
import sys
import threading

from fake_switches.cisco.cisco_core import Cisco2960SwitchCore
from fake_switches.cisco.command_processor.config import ConfigCommandProcessor
from fake_switches.cisco.command_processor.config_interface import ConfigInterfaceCommandProcessor
from fake_switches.cisco.command_processor.config_vlan import ConfigVlanCommandProcessor
from fake_switches.cisco.command_processor.config_vrf import ConfigVRFCommandProcessor
from fake_switches.cisco.command_processor.default import DefaultCommandProcessor
from fake_switches.cisco.command_processor.enabled import EnabledCommandProcessor
from fake_switches.cisco.command_processor.piping import PipingProcessor
from fake_switches.command_processing.shell_session import ShellSession
from fake_switches.switch_configuration import SwitchConfiguration
from fake_switches.terminal import ssh as ssh_terminal
from fake_switches.transports import ssh_service
from twisted.cred import credentials, error
from twisted.internet import defer, reactor
from zope.interface import implementer
from twisted.cred.checkers import ICredentialsChecker

ADDRESS, PORT, PLATFORM = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ENABLE = "Enable-Init-1"
INITIAL = "Init-Passw0rd!1"
TYPE8 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
)
state = {"typed": [], "failures": 0, "full": False}


def type8(password, salt):
    raw = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 20000, 32)
    return "$8$%s$%s" % (salt, base64.b64encode(raw).decode().translate(TYPE8)[:-1])


def holds(stored, password):
    if stored.startswith("$8$"):
        return type8(password, stored.split("$")[2]) == stored
    return crypt.crypt(password, stored) == stored


def fresh(password):
    if PLATFORM == "cisco-ios":
        return type8(password, "AbcdefghijklmN")
    return crypt.crypt(password, {"cisco-nxos": "$5$saltsalt", "arista-eos": "$6$saltsalt"}[PLATFORM])


def line_of(user, entry):
    privilege, stored = entry
    if user == "enable":
        words = {"cisco-ios": "enable secret 8", "arista-eos": "enable password sha512"}.get(PLATFORM, "! enable")
        return "%s %s" % (words, stored)
    return {
        "cisco-ios": "username %s privilege %s secret 8 %s" % (user, privilege, stored),
        "cisco-nxos": "username %s password 5 %s  role network-admin" % (user, stored),
        "arista-eos": "username %s privilege %s secret sha512 %s" % (user, privilege, stored),
    }[PLATFORM]


running = {"admin": (15, fresh(INITIAL)), "ops": (1, fresh(INITIAL)), "app1": (15, fresh(INITIAL)), "enable": (0, fresh(ENABLE))}
startup = dict(running)


@implementer(ICredentialsChecker)
class Live:
    credentialInterfaces = (credentials.IUsernamePassword,)

    def requestAvatarId(self, given):
        user, password = given.username.decode(), given.password.decode()
        if user in running and user != "enable" and holds(running[user][1], password):
            return defer.succeed(user)
        state["failures"] += 1
        return defer.fail(error.UnauthorizedLogin())


class Regexp:
    def __init__(self, pattern):
        self.pattern = re.compile(pattern)

    def pipe(self, data):
        return data if self.pattern.search(data) else False


class Pipes(PipingProcessor):
    def do_include(self, *args):
        return Regexp(" ".join(args).strip("'") + (" " if not " ".join(args).endswith("'") else ""))


class Enabled(EnabledCommandProcessor):
    def do_terminal(self, *_):
        pass

    def do_show(self, *args):
        table = {"running-config": running, "startup-config": startup}.get(args[0])
        if table is None:
            self.write_line("% Invalid input detected at '^' marker.")
            return
        for user, entry in table.items():
            self.write_line(line_of(user, entry))

    def do_write(self, *_):
        self.save("[OK]" if PLATFORM == "cisco-ios" else "Copy completed successfully.")

    def do_copy(self, *_):
        self.save("Copy complete.")

    def save(self, said):
        if state["full"]:
            self.write_line("%Error: no space left on device")
            return
        startup.clear()
        startup.update(running)
        self.write_line("Building configuration...")
        self.write_line(said)


class Config(ConfigCommandProcessor):
    def do_username(self, user, *args):
        text = " ".join(args)
        form = {
            "cisco-ios": r"(?:privilege (\d+) )?secret 8 (\$8\$[./0-9A-Za-z]{14}\$[./0-9A-Za-z]{43})$",
            "cisco-nxos": r"(x)?password 5 (\$5\$\S+)$",
            "arista-eos": r"(?:privilege (\d+) )?secret sha512 (\$6\$\S+)$",
        }[PLATFORM]
        found = re.match(form, text)
        if not found:
            self.write_line("% Invalid input detected at '^' marker.")
            return
        privilege = found.group(1) or running.get(user, (1, ""))[0]
        running[user] = (privilege, found.group(2))

    def do_enable(self, *args):
        form = {
            "cisco-ios": r"secret 8 (\$8\$[./0-9A-Za-z]{14}\$[./0-9A-Za-z]{43})$",
            "arista-eos": r"password sha512 (\$6\$\S+)$",
        }.get(PLATFORM)
        found = form and re.match(form, " ".join(args))
        if not found:
            self.write_line("% Invalid input detected at '^' marker.")
            return
        running["enable"] = (0, found.group(1))

    def do_end(self):
        self.is_done = True


class Default(DefaultCommandProcessor):
    def continue_enabling(self, line):
        self.replace_input = False
        if holds(running["enable"][1], line):
            self.move_to(self.enabled_processor)
        else:
            self.write_line("% Access denied")
            self.write_line("")


class Session(ShellSession):
    def receive(self, line):
        state["typed"].append(line)
        return super().receive(line)

    def handle_unknown_command(self, line):
        self.command_processor.terminal_controller.write("% Invalid input detected at '^' marker.\n")


class Core(Cisco2960SwitchCore):
    def launch_as(self, user, controller):
        processor = Enabled(config=Config(ConfigVlanCommandProcessor(), ConfigVRFCommandProcessor(),
                                          ConfigInterfaceCommandProcessor()))
        if str(running[user][0]) != "15":
            processor = Default(processor)
        import logging
        logger = logging.getLogger("device")
        processor.init(self.switch_configuration, controller, logger, Pipes(logger))
        return Session(processor)


class Shell(ssh_terminal.SwitchSSHShell):
    def connectionMade(self):
        ssh_terminal.recvline.HistoricRecvLine.connectionMade(self)
        self.session = self.switch_core.launch_as(self.user.username.decode() if isinstance(self.user.username, bytes)
                                                  else self.user.username, ssh_terminal.SshTerminalController(shell=self))


ssh_service.SwitchSSHShell = Shell
ssh_service.checkers.InMemoryUsernamePasswordDatabaseDontUse = lambda **_: Live()


def answer(request):
    if "opens" in request:
        user, password = request["opens"]
        return user in running and holds(running[user][1], password)
    if "typed" in request:
        return {"lines": state["typed"], "failures": state["failures"]}
    if "reload" in request:
        running.clear()
        running.update(startup)
        return True
    if "keep" in request:
        state["kept"] = (dict(running), dict(startup))
        return True
    if "back" in request:
        for table, kept in zip((running, startup), state["kept"]):
            table.clear()
            table.update(kept)
        return True
    state["full"] = request["full"]
    return True


def listen():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    os._exit(0)


core = Core(SwitchConfiguration(ADDRESS, name="sw1", ports=Cisco2960SwitchCore.get_default_ports()))
ssh_service.SwitchSshService(ip=ADDRESS, port=PORT, switch_core=core, users={"x": b"x"}).hook_to_reactor(reactor)
threading.Thread(target=listen, daemon=True).start()
reactor.callWhenRunning(lambda: print("ready", flush=True))
reactor.run(installSignalHandlers=False)
