"""Build the description of one operation with sanic-ext, from types and words."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sanic_ext.extensions.openapi.builders import OperationBuilder
from sanic_ext.extensions.openapi.definitions import Component
from sanic_ext.extensions.openapi.types import Schema

from chat.api.openapi import schemas

JSON = "application/json"
Kind = type[msgspec.Struct]

API_KEY = "apiKey"
"""The name of the security scheme of /v1."""


class JsonSchema(Schema):
    """A JSON Schema as it is: sanic-ext drops the keywords that OpenAPI 3.0 lacks."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)  # type: ignore[no-untyped-call]

    def guard(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response that is not an error. `content` has a schema, or types, by content type."""

    description: str
    content: Mapping[str, dict[str, Any] | tuple[Kind, ...]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of a route. The docstring of its handler is its summary and description."""

    method: str
    path: str
    handler: Any
    tag: str
    path_parameters: Kind | None = None
    query: tuple[Kind, ...] = ()
    headers: Kind | None = None
    body: Kind | None = None
    example: Any = None
    answers: Mapping[int, Answer]
    errors: Mapping[int, str] = field(default_factory=dict)
    is_openai: bool = False

    def build(self, *, needs_key: bool) -> dict[str, Any]:
        """Return the Operation Object; `needs_key` if there are API_KEYS."""
        operation: Any = OperationBuilder()  # type: ignore[no-untyped-call]
        operation.name(self.handler.__name__)
        summary, _, description = (inspect.getdoc(self.handler) or "").partition("\n\n")
        operation.describe(" ".join(summary.split()), " ".join(description.split()))
        operation.tag(self.tag)
        for location, kind in self._list_parameters():
            for name, schema, is_required in _list_properties(kind):
                words = schema.pop("description", None)
                operation.parameter(
                    name, JsonSchema(**schema), location, description=words, required=is_required
                )
        if self.body:
            content = {"schema": Component(self.body), "example": self.example}
            operation.body({JSON: content}, required=True)
        for status, answer in self.answers.items():
            operation.responses[str(status)] = _build_response(answer)
        error_type = schemas.OpenAIError if self.is_openai else schemas.Error
        for status, words in {**self.errors, 500: _INTERNAL}.items():
            error = Answer(
                description=words,
                content={JSON: (error_type,)},
                headers=_ERROR_HEADERS.get(status, ()),
            )
            operation.responses[str(status)] = _build_response(error)
        if self.is_openai and needs_key:
            operation.secured(API_KEY)
        built: dict[str, Any] = operation.build().serialize()
        return built

    def _list_parameters(self) -> Iterator[tuple[str, Kind]]:
        if self.path_parameters:
            yield "path", self.path_parameters
        for kind in self.query:
            yield "query", kind
        if self.headers:
            yield "header", self.headers


_INTERNAL = "An error in Holdline; its log describes the error."
_HEADERS = {
    "Clear-Site-Data": "What the browser deletes of this origin.",
    "Content-Disposition": "The name of the file.",
    "Retry-After": "Seconds to wait before the next try, if they are known.",
    "WWW-Authenticate": "`Bearer`.",
}
_ERROR_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def _build_response(answer: Answer) -> dict[str, Any]:
    """Return the Response Object; sanic-ext's own class has no headers."""
    built: dict[str, Any] = {"description": answer.description}
    if answer.content:
        built["content"] = {
            name: {"schema": _build_schema(kinds)} for name, kinds in answer.content.items()
        }
    if answer.headers:
        built["headers"] = {
            name: {
                "description": _HEADERS[name],
                "required": name != "Retry-After",
                "schema": {"type": "string"},
            }
            for name in answer.headers
        }
    return built


def _build_schema(kinds: dict[str, Any] | tuple[Kind, ...]) -> Any:
    if isinstance(kinds, dict):
        return kinds
    references = [Component(kind) for kind in kinds]
    return {"anyOf": references} if len(references) > 1 else references[0]


def _list_properties(kind: Kind) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield the name and schema of each field, and whether it is required.

    A URL and a header have no null.
    """
    schema = next(iter(msgspec.json.schema_components([kind])[1].values()))
    for name, found in schema["properties"].items():
        kinds = [one for one in found.pop("anyOf", []) if one != {"type": "null"}]
        if found.get("default", "") in (None, ""):
            found.pop("default", None)
        yield name, found | (kinds[0] if kinds else {}), name in schema["required"]
