"""The gateway's OpenAPI document, checked by a validator that knows nothing of the gateway."""

import json
import sys
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator

document = json.load(urllib.request.urlopen(sys.argv[1] + "/openapi.json", timeout=30))
errors = list(OpenAPIV31SpecValidator(document).iter_errors())
for error in errors[:20]:
    print("/".join(map(str, error.absolute_path)), error.message)
# The validator must be able to say no.
broken = json.loads(json.dumps(document))
del broken["info"]["title"]
assert list(OpenAPIV31SpecValidator(broken).iter_errors()), "a broken document passes"
print("openapi valid" if not errors else f"{len(errors)} errors", len(document["paths"]), "paths")
