"""The whole flow with the official Python SDK: argv is the gateway's URL, the host's address and the login file."""
import json
import subprocess
import sys

import akeyless

url, host, login_file, initial = sys.argv[1], sys.argv[2], sys.argv[3], "Init-Passw0rd!1"
login = json.load(open(login_file))
api = akeyless.V2Api(akeyless.ApiClient(akeyless.Configuration(host=url)))
token = api.auth(akeyless.Auth(access_id=login["access_id"], access_key=login["access_key"])).token
assert api.validate_token(akeyless.ValidateToken(token=token)).is_valid

api.target_create_ssh(akeyless.TargetCreateSsh(
    name="/sdk/host", host=host, port="22", ssh_username="root", ssh_password=initial, token=token))
api.rotated_secret_create_ssh(akeyless.RotatedSecretCreateSsh(
    name="/sdk/root", target_name="/sdk/host", rotator_type="password", rotated_username="root",
    rotated_password=initial, authentication_credentials="use-user-creds", token=token))
assert api.rotate_secret(akeyless.RotateSecret(name="/sdk/root", token=token)).name == "/sdk/root"
value = api.rotated_secret_get_value(akeyless.RotatedSecretGetValue(name="/sdk/root", token=token))
password = value["value"]["password"]
assert value["value"]["username"] == "root" and password != initial

item = api.describe_item(akeyless.DescribeItem(name="/sdk/root", show_versions=True, token=token))
assert item.item_type == "ROTATED_SECRET" and item.last_version >= 2, item.item_type
assert item.item_general_info.rotated_secret_details.rotator_type == "user-pass-rotator"
assert [i.item_name for i in api.list_items(akeyless.ListItems(path="/sdk", token=token)).items] == ["/sdk/root"]

api.create_role(akeyless.CreateRole(name="/sdk/readers", token=token))
reader = api.auth_method_create_api_key(akeyless.AuthMethodCreateApiKey(name="/sdk/reader", token=token))
api.set_role_rule(akeyless.SetRoleRule(role_name="/sdk/readers", path="/sdk/*", capability=["read"], token=token))
other = api.auth(akeyless.Auth(access_id=reader.access_id, access_key=reader.access_key)).token
try:
    api.rotated_secret_get_value(akeyless.RotatedSecretGetValue(name="/sdk/root", token=other))
    raise SystemExit("a stranger read the value")
except akeyless.ApiException as error:
    assert error.status in (401, 403, 404) and password not in str(error.body), error.status
api.assoc_role_auth_method(akeyless.AssocRoleAuthMethod(role_name="/sdk/readers", am_name="/sdk/reader", token=token))
read = api.rotated_secret_get_value(akeyless.RotatedSecretGetValue(name="/sdk/root", token=other))
assert read["value"]["password"] == password

for tried, opens in ((password, True), (initial, False)):
    command = ["sshpass", "-e", "ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
               "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", f"root@{host}", "true"]
    assert (subprocess.run(command, env={"SSHPASS": tried, "PATH": "/usr/bin:/bin"}, capture_output=True).returncode == 0) == opens
api.rotated_secret_delete(akeyless.RotatedSecretDelete(name="/sdk/root", token=token))
print("flow complete")
