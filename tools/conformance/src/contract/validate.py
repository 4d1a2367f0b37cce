"""Recorded exchanges against OpenStack's OpenAPI files: status and body of each answer, at its microversion.

    validate.py DATA RECORD...

DATA is where openstack_types keeps the files; a RECORD has one JSON object a line (tools/testkit, record.rs). Prints
one JSON object: counts by service, answers that do not validate, and how often each exception was needed.
"""

import collections
import json
import re
import sys

import jsonschema
import yaml

DATA, RECORDS = sys.argv[1], sys.argv[2:]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Service, the newest file of it, and what Tempest's and our paths have before the file's.
SERVICES = {
    "identity": "identity/v3.yaml",
    "image": "image/v2.yaml",
    "placement": "placement/v1.39.yaml",
    "network": "network/v2.yaml",
    "compute": "compute/v2.yaml",
}
METHODS = ("get", "put", "post", "patch", "delete", "head")

# Where a file is wrong against OpenStack's own source: service, operation, what the validator says, and why it is
# the file that errs. The list is kept short, and each line of it is counted in the report.
with open(__file__.replace("validate.py", "exceptions.json"), encoding="utf-8") as f:
    EXCEPTIONS = [{**e, "n": 0} for e in json.load(f)]


def number(text):
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def within(x, version):
    """Whether something that is marked with its microversions is there at this one."""
    if not x or version is None:
        return True
    low, high = x.get("min-ver"), x.get("max-ver")
    return (low is None or number(low) <= version) and (high is None or version <= number(high))


class Contract:
    def __init__(self, name, file):
        self.name = name
        with open("%s/%s" % (DATA, file), encoding="utf-8") as f:
            whole = yaml.load(f, LOADER)
        self.schemas = whole["components"]["schemas"]
        self.routes = []
        for path, item in whole["paths"].items():
            parts = path.strip("/").split("/")
            operations = {m: op for m, op in item.items() if m in METHODS}
            self.routes.append((parts, path, operations))
        self.flat = {}
        self.validators = {}

    def find(self, method, path):
        """The operation whose path fits with the fewest parameters."""
        asked = path.strip("/").split("/")
        best = None
        for parts, template, operations in self.routes:
            if len(parts) != len(asked) or method not in operations:
                continue
            free = 0
            for want, have in zip(parts, asked):
                if want.startswith("{"):
                    free += 1
                elif want != have:
                    break
            else:
                if best is None or free < best[0]:
                    best = (free, template, operations[method])
        return best and best[1:]

    def at(self, schema, version, action):
        """A schema as it is at a microversion, for an action where it is one of several."""
        if isinstance(schema, list):
            return [self.at(s, version, action) for s in schema]
        if not isinstance(schema, dict):
            return schema
        out = {}
        for key, value in schema.items():
            if key in ("oneOf", "anyOf") and isinstance(value, list):
                kept = []
                for one in value:
                    marks = self.marks(one)
                    name = marks.get("action-name")
                    if within(marks, version) and (action is None or name is None or name == action):
                        kept.append(self.at(one, version, action))
                # Versions overlap here and there: one that fits is enough.
                out["anyOf"] = kept or [True]
            elif key == "properties":
                out[key] = {
                    name: self.at(s, version, action)
                    for name, s in value.items()
                    if within(isinstance(s, dict) and s.get("x-openstack") or None, version)
                }
            elif key == "required" and isinstance(value, list):
                gone = {
                    name
                    for name, s in schema.get("properties", {}).items()
                    if not within(isinstance(s, dict) and s.get("x-openstack") or None, version)
                }
                out[key] = [name for name in value if name not in gone]
            elif key not in ("description", "x-openstack", "examples", "example"):
                out[key] = self.at(value, version, action)
        return out

    def marks(self, schema):
        """What is said of a schema that may be a reference."""
        seen = schema
        while "$ref" in seen:
            seen = self.schemas[seen["$ref"].rsplit("/", 1)[1]]
        return {**(seen.get("x-openstack") or {}), **(schema.get("x-openstack") or {})}

    def validator(self, operation, status, schema, version, action):
        key = (operation, status, version, action)
        if key not in self.validators:
            defs = self.flat.get((version, action))
            if defs is None:
                defs = {n: self.at(s, version, action) for n, s in self.schemas.items()}
                self.flat[(version, action)] = defs
            root = {"allOf": [self.at(schema, version, action)], "components": {"schemas": defs}}
            self.validators[key] = jsonschema.Draft202012Validator(root)
        return self.validators[key]


def deepest(error):
    """The part of a failed alternative that says most."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
    return error


def told(error):
    where = "/".join("N" if isinstance(p, int) else str(p) for p in error.absolute_path)
    said = re.sub(r"\s+", " ", error.message)
    # The value comes first, and what is wrong with it last.
    return "%s: %s" % (where or "(whole)", said if len(said) < 160 else "... " + said[-120:])


def excuse(service, operation, problem):
    """The exception that a problem falls under, or None."""
    for x in EXCEPTIONS:
        if x["service"] == service and re.search(x["operation"], operation) and re.search(x["says"], problem):
            return x
    return None


def main():
    contracts = {}
    counts = collections.defaultdict(collections.Counter)
    wrong = {}
    for record in RECORDS:
        with open(record, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    e = json.loads(line)
                except ValueError:
                    # The end of a file whose writer was killed.
                    continue
                _, service, *rest = e["path"].split("?")[0].split("/")
                if service not in SERVICES:
                    continue
                count = counts[service]
                count["exchanges"] += 1
                if service not in contracts:
                    contracts[service] = Contract(service, SERVICES[service])
                contract = contracts[service]
                found = contract.find(e["method"].lower(), "/".join(rest))
                if found is None:
                    count["unknown"] += 1
                    continue
                template, operation = found
                status = e["status"]
                if status >= 400:
                    count["refused"] += 1
                    continue
                name = "%s %s" % (e["method"], template)
                responses = operation.get("responses", {})
                told_status = str(status) in responses
                if not told_status:
                    count["other status"] += 1
                answers = [r for s, r in responses.items() if s == str(status)] or [
                    r for s, r in responses.items() if s[0] == "2"
                ]
                schemas = [
                    r["content"]["application/json"]["schema"]
                    for r in answers
                    if "schema" in (r.get("content") or {}).get("application/json", {})
                ]
                body = e.get("answer")
                version = number(e["version"]) if e.get("version") else None
                problems = set()
                if not schemas or body is None:
                    if status != 204 or body is None:
                        count["no schema"] += 1
                        continue
                    problems.add("(whole): a body with 204")
                else:
                    action = None
                    if template.endswith("/action") and isinstance(e.get("request"), dict) and e["request"]:
                        action = next(iter(e["request"]))
                    check = contract.validator(name, status, schemas[0], version, action)
                    problems.update(told(deepest(error)) for error in check.iter_errors(body))
                if not problems:
                    count["valid"] += 1
                    continue
                excused = {p: excuse(service, name, p) for p in problems}
                for x in {id(x): x for x in excused.values() if x}.values():
                    x["n"] += 1
                if all(excused.values()):
                    count["excepted"] += 1
                    continue
                count["wrong"] += 1
                for problem in (p for p, x in excused.items() if x is None):
                    one = {"n": 0, "version": e.get("version"), "body": body}
                    wrong.setdefault((service, name, problem), one)["n"] += 1
    rows = [
        {"service": s, "operation": o, "problem": p, "n": w["n"], "version": w["version"], "body": json.dumps(w["body"])[:600]}
        for (s, o, p), w in sorted(wrong.items(), key=lambda i: -i[1]["n"])
    ]
    print(json.dumps({"counts": counts, "wrong": rows, "exceptions": [x for x in EXCEPTIONS if x["n"]]}))


main()
