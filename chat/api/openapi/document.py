"""Build the OpenAPI document with sanic-ext."""

import json
from typing import Any

from sanic_ext.extensions.openapi.builders import SpecificationBuilder
from sanic_ext.extensions.openapi.definitions import Component

from chat.api.openapi import schemas
from chat.api.openapi.operation import API_KEY
from chat.api.openapi.routes import INTRODUCTION, OPERATIONS, TAGS

VERSION = "0.1.0"
"""A test compares it with pyproject.toml."""

_OPENAPI = {"openapi": "3.1.1", "servers": [{"url": ".."}]}
"""Fields that sanic-ext cannot set: it says 3.0.3, although it passes on the schemas of 3.1.

The server's URL is relative to that of the document, so that it is right under any prefix.
"""


def build_document(*, needs_key: bool) -> bytes:
    """Return the document as JSON; `needs_key` if /v1 demands one of API_KEYS."""
    specification: Any = SpecificationBuilder()
    specification.describe("Holdline", VERSION, INTRODUCTION)
    for name, description in TAGS.items():
        specification.tag(name, description)
    if needs_key:
        specification.add_security_scheme(API_KEY, "http", description="One of API_KEYS.")
    Component(schemas.Change)  # only a `contentSchema` names it
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        built = operation.build(needs_key=needs_key)
        paths.setdefault(operation.path, {})[operation.method] = built
    specification.raw({"paths": paths})
    return json.dumps(specification.build(app=None).serialize() | _OPENAPI).encode()
