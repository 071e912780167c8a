"""The same host over SSH, as OpenSSH for Windows would have it: one command line with its standard input.

The protocol is that of asyncssh; OpenSSH's own client accepts it as well. What a real one asks Windows about an account is asked of the table.
"""
import asyncio
import threading

import asyncssh

from host import ACCOUNTS, ADDRESS, DIR, LOCK, command, known, logon, powershell, save


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True

    def password_auth_supported(self):
        return True

    def kbdint_auth_supported(self):
        return False

    def public_key_auth_supported(self):
        return True

    def validate_public_key(self, username, key):
        return known(username) == "Administrator" and key.export_public_key() == CLIENT.export_public_key()

    def validate_password(self, username, password):
        name = known(username)
        with LOCK:
            code = logon(name, password)
            save()
        # Like OpenSSH, it tells nobody why.
        return code == 0 and ACCOUNTS[name]["remote"]


async def run(process):
    caller = known(process.get_extra_info("username"))
    output, lines = command(caller, process.command or ""), []
    while output is None:
        line = await process.stdin.readline()
        if not line.endswith("\n"):
            process.exit(1)
            return
        lines.append(line.strip())
        output = powershell(lines, caller)
    process.stdout.write(output)
    process.exit(0)


# What stands in administrators_authorized_keys.
CLIENT = asyncssh.generate_private_key("ssh-ed25519")
CLIENT.write_private_key(f"{DIR}/client_key")


def fresh_key():
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_public_key(f"{DIR}/host_key.pub")
    return key


loop = asyncio.new_event_loop()
server = None


def swap():
    """Is another machine from now on, as far as a client can tell."""
    done, key = threading.Event(), fresh_key()

    def change():
        server.update(server_host_keys=[key])
        done.set()

    loop.call_soon_threadsafe(change)
    done.wait(60)


def serve(port):
    listens = threading.Event()

    async def begin():
        global server
        server = await asyncssh.create_server(Server, ADDRESS, port, server_host_keys=[fresh_key()], process_factory=run)
        listens.set()

    def forever():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()

    threading.Thread(target=forever, daemon=True).start()
    if not listens.wait(60):
        raise SystemExit("the SSH server does not begin")
