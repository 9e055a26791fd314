"""Cut a published schema down to the fields that our files use, so that tests can carry it.

    python tests/cluster/distil.py "Where it is from." ray.io_rayjobs.yaml \
        cluster/kuberay/rayjob.yaml > tests/cluster/schemas/rayjob.json

The schema is a Kubernetes CRD (its version v1 is taken) or a JSON schema. Kept are types, required
fields, patterns, bounds and enumerations. Fields that the schema does not know are forbidden in
what comes out, as ``kubectl apply --validate=strict`` forbids them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KEPT = ("type", "required", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength")


def schema_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema that a published file holds."""
    if document.get("kind") != "CustomResourceDefinition":
        return document
    (version,) = [v for v in document["spec"]["versions"] if v["name"] == "v1"]
    return dict(version["schema"]["openAPIV3Schema"])


def distil(schema: Any, used: list[Any], root: dict[str, Any]) -> Any:
    """Return the part of a schema that says anything about the values ``used``."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return distil(target, used, root)
    kept: dict[str, Any] = {name: schema[name] for name in KEPT if name in schema}
    if schema.get("x-kubernetes-int-or-string"):
        return kept | {"type": ["integer", "string"]}
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            kept[name] = [distil(each, used, root) for each in schema[name]]
    items = [each for value in used if isinstance(value, list) for each in value]
    if "items" in schema and items:
        kept["items"] = distil(schema["items"], items, root)
    return kept | _fields(schema, [value for value in used if isinstance(value, dict)], root)


def _fields(
    schema: dict[str, Any], used: list[dict[str, Any]], root: dict[str, Any]
) -> dict[str, Any]:
    """Return what an object's schema says of the fields that are used."""
    names = sorted({name for value in used for name in value})
    known, kept = schema.get("properties", {}), {}
    found = {
        name: distil(known[name], [value[name] for value in used if name in value], root)
        for name in names
        if name in known
    }
    if found:
        kept["properties"] = found
    other = [value[name] for value in used for name in value if name not in known]
    if "patternProperties" in schema:
        kept["patternProperties"] = {
            pattern: distil(each, other, root)
            for pattern, each in schema["patternProperties"].items()
            if other or pattern != "^x-"
        }
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = distil(schema["additionalProperties"], other, root)
    elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = schema.get("additionalProperties", False)
    return kept


def main(source: str, published: str, *ours: str) -> None:
    """Print the schema of ``published`` cut down to what the files ``ours`` use, and its source."""
    schema = schema_of(yaml.safe_load(Path(published).read_text()))
    used = [yaml.safe_load(Path(path).read_text()) for path in ours]
    kept = {"$comment": source, **distil(schema, used, schema)}
    print(json.dumps(kept, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
