"""The few words of JSON Schema that tests/golden/jobset_schema.json speaks."""
import re

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
_KNOWN = {"title", "type", "required", "additionalProperties", "properties", "const", "enum",
          "pattern", "maxLength", "minimum", "items", "minItems", "maxItems", "$ref", "$defs"}


def mistakes(value, schema: dict, root: dict | None = None, at: str = "$") -> list[str]:
  """Where `value` is not what the schema says; empty if it is."""
  root = root or schema
  if "$ref" in schema:
    schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
  assert not schema.keys() - _KNOWN, f"this validator does not know {schema.keys() - _KNOWN}"
  kind = schema.get("type")
  if kind and (not isinstance(value, _TYPES[kind]) or (kind == "integer" and value is True)):
    return [f"{at}: {value!r} is no {kind}"]
  wrong = []
  if "const" in schema and value != schema["const"]:
    wrong.append(f"{at}: {value!r} is not {schema['const']!r}")
  if "enum" in schema and value not in schema["enum"]:
    wrong.append(f"{at}: {value!r} is none of {schema['enum']}")
  if isinstance(value, str):
    if not re.search(schema.get("pattern", ""), value):
      wrong.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if len(value) > schema.get("maxLength", len(value)):
      wrong.append(f"{at}: {value!r} is too long")
  if isinstance(value, int) and value < schema.get("minimum", value):
    wrong.append(f"{at}: {value} is below {schema['minimum']}")
  if isinstance(value, list):
    wrong += _of_list(value, schema, root, at)
  if isinstance(value, dict):
    wrong += _of_object(value, schema, root, at)
  return wrong


def _of_list(value: list, schema: dict, root: dict, at: str) -> list[str]:
  wrong = []
  if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
    wrong.append(f"{at}: {len(value)} items")
  for i, item in enumerate(value):
    wrong += mistakes(item, schema.get("items", {}), root, f"{at}[{i}]")
  return wrong


def _of_object(value: dict, schema: dict, root: dict, at: str) -> list[str]:
  wrong = [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
  for name, item in value.items():
    inside = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
    if inside is False:
      wrong.append(f"{at}: {name} is unknown")
    else:
      wrong += mistakes(item, inside, root, f"{at}.{name}")
  return wrong
