"""moto's IAM and STS over HTTP, stricter than moto itself, for one test process.

Every call must be signed and permitted. Beyond moto: permissions are those on the named user, inactive keys do not authenticate, a role's external id is checked, session
tokens are needed. `/strict/...` is the way past the API: it makes users and tells the truth about their keys.
Ends when standard input closes.
"""

import json
import os
import sys
import threading

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"

from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam import access_control
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sts.models import STSBackend
from moto.core.exceptions import ServiceException
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
backend = iam_backends[ACCOUNT]["aws"]
state = {"throttle": 0, "calls": []}

plain_user_key = access_control.IAMUserAccessKey.__init__


def active_only(self, account_id, partition, access_key_id, headers):
    plain_user_key(self, account_id, partition, access_key_id, headers)
    for user in backend.list_users("/", None, None):
        for key in user.access_keys:
            if key.access_key_id == access_key_id and key.status != "Active":
                raise access_control.CreateAccessKeyFailure(reason="InvalidId")


access_control.IAMUserAccessKey.__init__ = active_only
plain_assume_role = STSBackend.assume_role


class Denied(ServiceException):
    code = "AccessDenied"
    message = "not authorized to perform sts:AssumeRole"


def with_external_id(self, region_name, role_session_name, role_arn, policy, duration, external_id):
    for role in backend.roles.values():
        if role.arn != role_arn:
            continue
        for statement in json.loads(role.assume_role_policy_document)["Statement"]:
            wanted = statement.get("Condition", {}).get("StringEquals", {}).get("sts:ExternalId")
            if wanted is not None and wanted != external_id:
                raise Denied()
    return plain_assume_role(self, region_name, role_session_name, role_arn, policy, duration, external_id)


STSBackend.assume_role = with_external_id


def on_its_resource(self, resource="*"):
    user = self._get_param("UserName")
    if user:
        resource = f"arn:aws:iam::{ACCOUNT}:user/{user}"
    self._authenticate_and_authorize_action(access_control.IAMRequest, resource)


ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = on_its_resource


def keys_of(user):
    found = backend.get_user(user).access_keys
    return [{"id": k.access_key_id, "secret": k.secret_access_key, "status": k.status} for k in found]


def past_the_api(what, body):
    if what == "user":
        backend.create_user("us-east-1", user_name=body["name"], tags=[])
        if body.get("policy"):
            backend.put_user_policy(body["name"], "given", json.dumps(body["policy"]))
        for _ in range(body.get("keys", 1)):
            backend.create_access_key(body["name"])
        return keys_of(body["name"])
    if what == "role":
        role = backend.create_role(
            role_name=body["name"], assume_role_policy_document=json.dumps(body["trust"]), path="/",
            permissions_boundary=None, description="", tags=[], max_session_duration="3600",
        )
        backend.put_role_policy(body["name"], "given", json.dumps(body["policy"]))
        return {"arn": role.arn}
    if what == "keys":
        return keys_of(body["name"])
    if what == "key":
        backend.create_access_key(body["name"])
        return keys_of(body["name"])
    if what == "throttle":
        state["throttle"] = body["calls"]
        return {}
    if what == "calls":
        told, state["calls"] = state["calls"], []
        return told
    raise ValueError(what)


class Strict:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if path.startswith("/strict/"):
            answer = json.dumps(past_the_api(path[len("/strict/"):], json.loads(body or b"{}"))).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
            return [answer]
        action = [part[7:] for part in body.decode().split("&") if part.startswith("Action=")]
        state["calls"].extend(action)
        if state["throttle"] > 0:
            state["throttle"] -= 1
            answer = b"<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
            start_response("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
            return [answer]
        import io
        environ["wsgi.input"] = io.BytesIO(body)
        return self.app(environ, start_response)


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


server = make_server("127.0.0.1", int(sys.argv[1]), Strict(DomainDispatcherApplication(create_backend_app)), threaded=True,
                     request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
