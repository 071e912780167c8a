"""One BMC over IPMI 2.0 with cipher suite 17: pyghmi's server with the hash functions of that suite, and the commands for users.

usage: suite17.py ADDRESS, with PASSWORD in the environment; prints `ready`; ends with its standard input, which takes
`busy yes` and `busy no`.
"""
import hashlib
import hmac
import os
import struct
import sys
import threading
import types

from pyghmi.ipmi import bmc
from pyghmi.ipmi.private import constants, serversession

INITIAL = os.environ.pop("PASSWORD").encode()
USERS = {2: ["admin", INITIAL, 4, True], 3: ["app1", INITIAL, 4, True], 4: ["ops", INITIAL, 2, True], 5: ["off", INITIAL, 4, False]}
RULES = {"busy": False, "shortest": 8}
serversession.hashlib = types.SimpleNamespace(sha1=hashlib.sha256)
Session = serversession.ServerSession


def find(name):
    return next((user for user in USERS.values() if user[0] == name), None)


class Passwords:
    """What the server asks for the password of a user; text in, because it encodes it again."""

    def get(self, name):
        user = find(name)
        return user[1].decode("latin-1") if user and user[3] else None


def open_session(self, request):
    self.clientsessionid, self.managedsessionid, self.privlevel = request[4:8], os.urandom(4), 4
    offered = (request[12], request[20], request[28])
    if offered != (3, 4, 1):
        return bytearray([request[0], 0x11, 0, 0]) + self.clientsessionid
    algorithms = [0, 0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 8, 4, 0, 0, 0, 2, 0, 0, 8, 1, 0, 0, 0]
    return bytearray([request[0], 0, 4, 0]) + self.clientsessionid + self.managedsessionid + bytearray(algorithms)


def first(self, data, original=Session._got_rakp1):
    name = bytes(data[28:]).decode()
    user = find(name)
    status = 0x0D if user is None or not user[3] else 0x0A if (data[24] & 7) > user[2] else 0
    if status:
        answer = bytearray([data[0], status, 0, 0]) + self.clientsessionid
        return self.send_payload(answer, constants.payload_types["rakp2"], retry=False)
    self.kg = None
    original(self, data)


def last(self, number, status):
    data = self.Rm + self.managedsessionid + self.uuiddata
    code = hmac.new(self.sik, struct.pack("%dB" % len(data), *data), hashlib.sha256).digest()[:16]
    self.send_payload(bytearray([number, status, 0, 0]) + self.clientsessionid + code, constants.payload_types["rakp4"], retry=False)
    self.confalgo, self.integrityalgo, self.currhashlen = "aes", "sha256", 16
    self.sequencenumber = 1
    self.sessionid = struct.unpack("<I", struct.pack("4B", *self.clientsessionid))[0]


Session.create_open_session_response, Session._got_rakp1, Session._send_rakp4 = open_session, first, last


class Bmc(bmc.Bmc):
    def handle_raw_request(self, request, session):
        known = {0x44: self.access, 0x46: self.name, 0x47: self.password}
        if request["netfn"] == 6 and request["command"] in known:
            if session.clientpriv < 4:
                return session.send_ipmi_response(code=0xD4)
            code, data = known[request["command"]](bytearray(request["data"]))
            return session.send_ipmi_response(code=code, data=data)
        super().handle_raw_request(request, session)

    def access(self, data):
        user = USERS.get(data[1] & 63)
        byte = 0 if user is None else user[2] | 0x10
        return 0, [10, 0x80 if user and not user[3] else 0x44, 1, byte]

    def name(self, data):
        user = USERS.get(data[0] & 63)
        return (0, bytearray(user[0].encode().ljust(16, b"\0"))) if user else (0xCC, [])

    def password(self, data):
        user, length = USERS.get(data[0] & 63), 20 if data[0] & 0x80 else 16
        if user is None:
            return 0xCC, []
        if RULES["busy"]:
            return 0xC0, []
        if len(data) != 2 + length:
            return 0xC7, []
        given = bytes(data[2:]).rstrip(b"\0")
        if data[1] & 3 == 3:
            return (0 if given == user[1] else 0x80), []
        if len(given) < RULES["shortest"]:
            return 0x83, []
        user[1] = given
        return 0, []


def command(line):
    RULES["busy"] = line == "busy yes"
    return "done"


def talk():
    print("ready", flush=True)
    for line in sys.stdin:
        print(command(line.strip()), flush=True)
    os._exit(0)


Session.clientpriv = 2
server = Bmc(Passwords(), port=623, address=sys.argv[1])
threading.Thread(target=talk, daemon=True).start()
server.listen()
