"""Holds what commands print with `--json` against the published schemas, more strictly than a reader may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_PUBLISHED = Path(__file__).resolve().parents[1] / "docs" / "json"


def require_schema(name: str, document: Any) -> None:
    """`document` is as docs/json/NAME.schema.json says, and has no key that the schema does not tell."""
    schema = json.loads((_PUBLISHED / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    errors = list(Draft202012Validator(_closed(schema)).iter_errors(document))
    assert not errors, "\n".join(f"{error.json_path}: {error.message[:300]}" for error in errors[:5])


def _closed(schema: Any) -> Any:
    """`schema`, but that objects may have no further keys. Readers must allow for them; we must publish them."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed
