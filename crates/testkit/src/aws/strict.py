"""moto's IAM and STS over HTTP, stricter than moto itself, for one test process.

Every call must be signed and permitted. Beyond moto: permissions are those on the named user, inactive keys do not authenticate, a role's external id is checked, session
tokens are needed, console passwords obey the account's password policy and a login profile has a date of its own. The metadata service
of a machine answers by its second protocol only. `/strict/...` is the way past the API: it makes users and tells the truth about them.
Ends when standard input closes.
"""

import datetime
import io
import json
import os
import secrets
import sys
import threading

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"

from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam import access_control
from moto.iam.models import IAMBackend, iam_backends
from moto.iam.responses import IamResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sts.models import STSBackend, sts_backends
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
backend = iam_backends[ACCOUNT]["aws"]
state = {"throttle": 0, "calls": [], "machine": None, "tokens": set(), "profiles": 0, "lost": []}

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


class PolicyViolation(ServiceException):
    code = "PasswordPolicyViolation"
    message = "Password should conform to the account password policy"


SYMBOLS = set("!@#$%^&*()_+-=[]{}|'")


def conform(password):
    """What IAM documents: the account's policy, or eight characters of three kinds where it has none."""
    kinds = [any(c.islower() for c in password), any(c.isupper() for c in password), any(c.isdigit() for c in password)]
    symbols = any(c in SYMBOLS for c in password)
    policy = backend.account_password_policy
    if policy is None:
        good = 8 <= len(password) <= 128 and sum(kinds) + any(not c.isalnum() for c in password) >= 3
    else:
        asked = [policy.require_lowercase_characters, policy.require_uppercase_characters, policy.require_numbers]
        good = policy.minimum_password_length <= len(password) <= 128 and all(has or not must for has, must in zip(kinds, asked))
        good = good and (symbols or not policy.require_symbols)
    if not good:
        raise PolicyViolation()


plain_create_profile = IAMBackend.create_login_profile
plain_update_profile = IAMBackend.update_login_profile


def create_profile(self, user_name, password):
    conform(password)
    user = plain_create_profile(self, user_name, password)
    # Profiles of one test are made in different seconds, as people make them.
    state["profiles"] += 1
    user.profile_date = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(seconds=state["profiles"])
    user.password_reset_required = False
    return user


def update_profile(self, user_name, password, password_reset_required):
    if password is not None:
        conform(password)
    user = self.get_user(user_name)
    was = (user.password, user.password_reset_required)
    plain_update_profile(self, user_name, password, password_reset_required)
    # What is not given stays as it is.
    if password is None:
        user.password = was[0]
    user.password_reset_required = was[1] if password_reset_required is None else str(password_reset_required).lower() == "true"
    return user


def show_profile(self):
    user = self.backend.get_login_profile(self._get_param("UserName"))
    return ActionResult({"LoginProfile": {"UserName": user.name, "CreateDate": user.profile_date, "PasswordResetRequired": user.password_reset_required}})


IAMBackend.create_login_profile = create_profile
IAMBackend.update_login_profile = update_profile
IamResponse.get_login_profile = show_profile


def metadata(environ, path):
    """The metadata service of a machine with a role; `None` if it refuses."""
    if environ["REQUEST_METHOD"] == "PUT" and path == "/latest/api/token":
        if not environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS"):
            return None
        token = secrets.token_urlsafe(40)
        state["tokens"].add(token)
        return token
    if environ["REQUEST_METHOD"] != "GET" or environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") not in state["tokens"]:
        return None
    role, start = state["machine"], "/latest/meta-data/iam/security-credentials/"
    if role is None or not path.startswith(start):
        return None
    if path == start:
        return role["name"]
    if path != start + role["name"]:
        return None
    session = plain_assume_role(
        sts_backends[ACCOUNT]["aws"], "us-east-1", "i-0123456789abcdef0", role["arn"], None, 3600, None
    )
    return json.dumps({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": session.access_key_id,
                       "SecretAccessKey": session.secret_access_key, "Token": session.session_token,
                       "Expiration": "2099-01-01T00:00:00Z"})


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
    if what == "login":
        user = backend.get_user(body["name"])
        if user.password:
            backend.delete_login_profile(body["name"])
        if body.get("password"):
            backend.create_login_profile(body["name"], body["password"])
        return {}
    if what == "password":
        user = backend.get_user(body["name"])
        if body.get("set"):
            user.password = body["set"]
        return {"password": user.password, "reset": bool(user.password_reset_required)}
    if what == "reset":
        backend.get_user(body["name"]).password_reset_required = True
        return {}
    if what == "policy":
        backend.update_account_password_policy(
            allow_change_password=True, hard_expiry=False, max_password_age=0, minimum_password_length=body["length"],
            password_reuse_prevention=0, require_lowercase_characters=True, require_numbers=True,
            require_symbols=body["symbols"], require_uppercase_characters=True,
        )
        return {}
    if what == "machine":
        state["machine"] = {"name": body["name"], "arn": body["arn"]}
        return {}
    if what == "lose":
        state["lost"] = [body["action"]] * body["calls"]
        return {}
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
        if path.startswith("/latest/"):
            answer = metadata(environ, path)
            start_response("401 Unauthorized" if answer is None else "200 OK", [("Content-Type", "text/plain")])
            return [(answer or "").encode()]
        action = [part[7:] for part in body.decode().split("&") if part.startswith("Action=")]
        state["calls"].extend(action)
        if state["throttle"] > 0:
            state["throttle"] -= 1
            answer = b"<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
            start_response("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
            return [answer]
        environ["wsgi.input"] = io.BytesIO(body)
        if action and action[0] in state["lost"]:
            state["lost"].remove(action[0])
            for _ in self.app(environ, lambda *_: None):
                pass
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
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
