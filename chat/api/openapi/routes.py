"""The description of each route; a test compares the table with the routes that are served."""

from chat.api import chat_stream, events, operations, page
from chat.api.conversations import exports, routes
from chat.api.openapi import deletion_routes, parameters, schemas
from chat.api.openapi.operation import JSON, Answer, Operation
from chat.api.v1 import chat_completions

INTRODUCTION = (
    "The routes of Holdline. A session is a cookie, which the first response under `/api/` sets. "
    "Besides the responses below, any route answers 400, 408 or 413 if the request is not valid "
    "HTTP, arrives too slowly, or has a head of more than 16 KiB."
)

_TURNS, _OPENAI, _SERVER = "Turns", "OpenAI's API", "Server"
_CONVERSATIONS = deletion_routes.CONVERSATIONS

TAGS = {
    _TURNS: "Questions, and their answers as streams.",
    _CONVERSATIONS: "The conversations of the session.",
    _OPENAI: "For clients of OpenAI's chat completions, with `/v1` as the end of their base URL.",
    _SERVER: "The web UI, this documentation, and the health of the server.",
}

_TEXT = {"type": "string"}
_HTML = {"text/html": _TEXT}
_UNCHANGED = Answer(description="`If-None-Match` names the `ETag` of the page's content.")

_INVALID = "A parameter or the body is invalid; `message` says which."
_FOREIGN, _UNAVAILABLE = deletion_routes.FOREIGN, deletion_routes.UNAVAILABLE
_NO_CONVERSATION = "There is no such conversation in this session."

_STREAM_ANSWERS = {
    200: Answer(
        description=(
            "The answer. In `sse` its last event is `end` or `failed`; a stream without an event "
            "that has only `retry` asks the client to repeat the request."
        ),
        content={
            "text/event-stream": (schemas.Event,),
            "text/plain": _TEXT,
            "application/x-ndjson": _TEXT,
            JSON: (schemas.Answer,),
        },
    ),
    204: Answer(description="The client has the whole answer already."),
}
_RATE = {429: "The rate of requests for conversations, ten times RATE_LIMIT, is reached."}
_FULL = {507: "Redis is full, or a limit of stored conversations, messages or bytes is reached."}
_STREAM_ERRORS = {
    400: f"{_INVALID} Also: the moderation flagged the question, or the upstream refused it.",
    403: _FOREIGN,
    404: "There is no such turn, message or conversation in this session.",
    406: "`Accept` allows none of the formats.",
    409: "The turn exists with another message, or in the format `sse` only.",
    413: "The message is longer than MESSAGE_MAX, or the body than 1 MiB.",
    429: "A limit of new turns is reached, the turn has too many viewers, or the upstream is busy.",
    502: "The upstream failed before the first text (`text` and `json`).",
    503: f"{_UNAVAILABLE} Or the server, its upstream or its moderation is not ready.",
    504: "The upstream was too slow (`text` and `json`).",
    **_FULL,
}
_CONVERSATION_ERRORS = {400: _INVALID, 403: _FOREIGN, 404: _NO_CONVERSATION, 503: _UNAVAILABLE}
_OPENAI_ERRORS = {401: "The API key is missing or wrong, or API_KEYS is not set.", 403: _FOREIGN}

OPERATIONS = (
    Operation(
        method="get",
        path="/api/chat_stream/",
        handler=chat_stream.stream_by_get,
        tag=_TURNS,
        query=(chat_stream.StreamRequest, parameters.StreamAliases, parameters.StreamOptions),
        headers=parameters.StreamHeaders,
        answers=_STREAM_ANSWERS,
        errors=_STREAM_ERRORS,
    ),
    Operation(
        method="post",
        path="/api/chat_stream/",
        handler=chat_stream.stream_by_post,
        tag=_TURNS,
        query=(parameters.StreamOptions,),
        headers=parameters.StreamHeaders,
        body=chat_stream.StreamRequest,
        example={"message": "What is a lease?"},
        answers=_STREAM_ANSWERS,
        errors=_STREAM_ERRORS,
    ),
    Operation(
        method="post",
        path="/api/turns/{turn}/stop",
        handler=chat_stream.stop_turn,
        tag=_TURNS,
        path_parameters=parameters.TurnPath,
        answers={204: Answer(description="The turn has ended.")},
        errors={
            403: _FOREIGN,
            404: "There is no such turn in this session.",
            413: "The body is larger than 1 MiB.",
            503: _UNAVAILABLE,
        },
    ),
    Operation(
        method="get",
        path="/api/info",
        handler=chat_stream.get_info,
        tag=_SERVER,
        answers={200: Answer(description="Models and limits.", content={JSON: (schemas.Info,)})},
        errors={403: _FOREIGN, 503: _UNAVAILABLE},
    ),
    Operation(
        method="get",
        path="/api/events/",
        handler=events.stream_events,
        tag=_CONVERSATIONS,
        query=(parameters.EventsQuery, parameters.StreamAliases),
        headers=parameters.StreamHeaders,
        answers={
            200: Answer(
                description="The events, without an end.",
                content={"text/event-stream": (schemas.ChannelEvent,)},
            )
        },
        errors={
            400: _INVALID,
            403: _FOREIGN,
            429: "The session has too many of these connections.",
            503: _UNAVAILABLE,
        },
    ),
    Operation(
        method="get",
        path="/api/conversations/",
        handler=routes.list_conversations,
        tag=_CONVERSATIONS,
        query=(parameters.ListQuery,),
        answers={200: Answer(description="A page.", content={JSON: (schemas.ConversationPage,)})},
        errors={400: _INVALID, 403: _FOREIGN, **_RATE, 503: _UNAVAILABLE},
    ),
    Operation(
        method="post",
        path="/api/conversations/",
        handler=routes.create_conversation,
        tag=_CONVERSATIONS,
        body=routes.NewConversation,
        example={"title": "Leases"},
        answers={
            201: Answer(description="The conversation.", content={JSON: (schemas.Conversation,)})
        },
        errors={
            400: _INVALID,
            403: _FOREIGN,
            413: "The body is larger than 1 MiB.",
            503: _UNAVAILABLE,
            **_RATE | _FULL,
        },
    ),
    *deletion_routes.OPERATIONS,
    Operation(
        method="get",
        path="/api/conversations/{conversation}",
        handler=routes.read_conversation,
        tag=_CONVERSATIONS,
        path_parameters=parameters.ConversationPath,
        query=(parameters.MessagesQuery,),
        answers={
            200: Answer(
                description="The conversation and its messages.",
                content={JSON: (schemas.ConversationContent,)},
            )
        },
        errors=_CONVERSATION_ERRORS,
    ),
    Operation(
        method="patch",
        path="/api/conversations/{conversation}",
        handler=routes.change_conversation,
        tag=_CONVERSATIONS,
        path_parameters=parameters.ConversationPath,
        body=routes.ConversationChange,
        example={"pinned": True},
        answers={
            200: Answer(
                description="The changed conversation.", content={JSON: (schemas.Conversation,)}
            )
        },
        errors={
            400: _INVALID,
            403: _FOREIGN,
            404: _NO_CONVERSATION,
            409: "A branch cannot be chosen while an answer is being generated.",
            413: "The body is larger than 1 MiB.",
            503: _UNAVAILABLE,
            **_RATE | _FULL,
        },
    ),
    Operation(
        method="delete",
        path="/api/conversations/{conversation}",
        handler=routes.delete_conversation,
        tag=_CONVERSATIONS,
        path_parameters=parameters.ConversationPath,
        answers={204: Answer(description="The conversation is deleted.")},
        errors={
            403: _FOREIGN,
            404: _NO_CONVERSATION,
            409: "New answers keep starting in the conversation.",
            503: _UNAVAILABLE,
        },
    ),
    Operation(
        method="get",
        path="/api/conversations/{conversation}/export",
        handler=exports.export_conversation,
        tag=_CONVERSATIONS,
        path_parameters=parameters.ConversationPath,
        query=(parameters.ExportQuery,),
        headers=parameters.ExportHeaders,
        answers={
            200: Answer(
                description="The file.",
                content={"text/markdown": _TEXT, JSON: (schemas.ConversationExport,), **_HTML},
                headers=("Content-Disposition",),
            )
        },
        errors=_CONVERSATION_ERRORS | _RATE,
    ),
    Operation(
        method="post",
        path="/v1/chat/completions",
        handler=chat_completions.create_completion,
        tag=_OPENAI,
        query=(parameters.CompletionQuery,),
        headers=parameters.CompletionHeaders,
        body=schemas.CompletionRequest,
        example={"messages": [{"role": "user", "content": "What is a lease?"}]},
        answers={
            200: Answer(
                description="The answer, or chunks of it. After 5 s, an error has this status too.",
                content={
                    JSON: (schemas.Completion, schemas.OpenAIError),
                    "text/event-stream": (schemas.ChunkEvent,),
                    "application/x-ndjson": _TEXT,
                },
            )
        },
        errors={
            400: f"{_INVALID} Also: the moderation flagged the text, or the upstream refused it.",
            **_OPENAI_ERRORS,
            404: "There is no such model or conversation.",
            409: "The key was used with another body.",
            413: "The body is larger than 20 MiB, or a question that is kept than MESSAGE_MAX.",
            429: "A limit of new turns is reached, or the upstream is busy.",
            502: "The upstream failed before the first text.",
            503: f"{_UNAVAILABLE} Or the server, its upstream or its moderation is not ready.",
            504: "The upstream was too slow.",
            **_FULL,
        },
        is_openai=True,
    ),
    Operation(
        method="get",
        path="/v1/models",
        handler=chat_completions.list_models,
        tag=_OPENAI,
        answers={200: Answer(description="The models.", content={JSON: (schemas.ModelList,)})},
        errors=_OPENAI_ERRORS,
        is_openai=True,
    ),
    Operation(
        method="get",
        path="/v1/models/{name}",
        handler=chat_completions.read_model,
        tag=_OPENAI,
        path_parameters=parameters.ModelPath,
        answers={200: Answer(description="The model.", content={JSON: (schemas.Model,)})},
        errors={**_OPENAI_ERRORS, 404: "There is no such model."},
        is_openai=True,
    ),
    Operation(
        method="get",
        path="/",
        handler=page.get_index,
        tag=_SERVER,
        answers={200: Answer(description="The page.", content=_HTML), 304: _UNCHANGED},
    ),
    Operation(
        method="get",
        path="/docs",
        handler=page.get_docs,
        tag=_SERVER,
        answers={200: Answer(description="The page.", content=_HTML), 304: _UNCHANGED},
    ),
    Operation(
        method="get",
        path="/docs/openapi.json",
        handler=page.get_document,
        tag=_SERVER,
        answers={200: Answer(description="The document.", content={JSON: {"type": "object"}})},
    ),
    Operation(
        method="get",
        path="/healthz",
        handler=operations.report_alive,
        tag=_SERVER,
        answers={200: Answer(description="It runs.", content={JSON: (schemas.Health,)})},
    ),
    Operation(
        method="get",
        path="/readyz",
        handler=operations.report_ready,
        tag=_SERVER,
        answers={
            200: Answer(description="It is ready.", content={JSON: (schemas.Health,)}),
            503: Answer(description="It is not.", content={JSON: (schemas.Health,)}),
        },
    ),
)
