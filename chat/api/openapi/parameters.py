"""Parameters in paths, queries and headers as types, for their descriptions only."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class ConversationPath(Struct):
    conversation: Annotated[str, Meta(description="The id of a conversation.", min_length=1)]


class TurnPath(Struct):
    turn: Annotated[str, Meta(description="The id of a turn.", min_length=1)]


class ModelPath(Struct):
    name: Annotated[str, Meta(description="The name of a model.", min_length=1)]


class StreamOptions(Struct):
    format: Annotated[
        Literal["sse", "text", "ndjson", "json"],
        Meta(description="The format of the answer. Without it, `Accept` decides."),
    ] = "sse"
    end: Annotated[
        Literal["full", "brief"],
        Meta(description="`brief` leaves the answer out of the `end` frame."),
    ] = "full"


class StreamAliases(Struct, rename="camel"):
    last_event_id: Annotated[str, Meta(description="Another name of `last_event_id`.")] = ""


class StreamHeaders(Struct, rename={"last_event_id": "Last-Event-ID"}):
    last_event_id: Annotated[
        str, Meta(description="The id of the last event received: the stream resumes after it.")
    ] = ""


class EventsQuery(Struct):
    names: Annotated[
        Literal["on", "off"], Meta(description="`off`: events without names, for `onmessage`.")
    ] = "on"
    last_event_id: Annotated[str, Meta(description="As `Last-Event-ID`.")] = ""


class ListQuery(Struct):
    limit: Annotated[int, Meta(ge=1, le=200, description="Conversations on a page.")] = 50
    cursor: Annotated[str, Meta(description="The `next` of the page before.")] = ""


class MessagesQuery(Struct):
    limit: (
        Annotated[
            int, Meta(ge=1, le=200, description="Number of messages; without it, all are returned.")
        ]
        | UnsetType
    ) = UNSET
    before: Annotated[
        str, Meta(description="The id of a message: only earlier ones are returned.")
    ] = ""


class ExportQuery(Struct):
    format: Annotated[
        Literal["markdown", "json", "html"], Meta(description="The format of the file.")
    ] = "markdown"


class ExportHeaders(Struct, rename={"accept_language": "Accept-Language"}):
    accept_language: Annotated[
        str, Meta(description="Labels are Chinese if it prefers Chinese, otherwise English.")
    ] = ""


class CompletionQuery(Struct, rename={"may_continue": "continue"}):
    stream: Annotated[bool, Meta(description="The same as in the body.")] = False
    may_continue: Annotated[
        bool, Meta(description="Continue an answer that reached the token limit.")
    ] = False
    format: Annotated[
        Literal["sse", "ndjson"], Meta(description="`ndjson`: chunks as lines of JSON.")
    ] = "sse"


class CompletionHeaders(Struct, rename={"idempotency_key": "Idempotency-Key"}):
    idempotency_key: Annotated[
        str | UnsetType,
        Meta(
            description="Names the answer: a retry with the same key gets the same answer.",
            extra_json_schema={"minLength": 1, "maxLength": 255},
        ),
    ] = UNSET
