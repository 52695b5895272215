"""Bodies of the API as types, from which msgspec makes their JSON Schema.

The descriptions are for the reader of `/docs`. A response has no other fields than its type.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

_ID = r"^[A-Za-z0-9_-]{1,64}$"

_CHANGE = {
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": "#/components/schemas/Change"},
}

Id = Annotated[str, Meta(pattern=_ID)]
Time = Annotated[int, Meta(description="Milliseconds since 1970.")]


class ErrorDetail(Struct, forbid_unknown_fields=True):
    type: Annotated[str, Meta(description="A word for programs, such as `not_found`.")]
    message: Annotated[str, Meta(description="The reason and the remedy, for people.")]
    retryable: Annotated[
        bool | UnsetType, Meta(description="Only for a turn that failed: a retry may succeed.")
    ] = UNSET


class Error(Struct, forbid_unknown_fields=True):
    error: ErrorDetail
    answer: Annotated[
        str | UnsetType, Meta(description="Only for a turn that failed: its partial answer.")
    ] = UNSET


class Usage(Struct, forbid_unknown_fields=True):
    """Token counts, summed over the requests of a turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: Annotated[
        bool | UnsetType, Meta(description="The upstream did not report all counts.")
    ] = UNSET


class Seam(Struct, forbid_unknown_fields=True):
    """A place where an answer was continued by another request."""

    at: Annotated[int, Meta(description="The number of characters before it.")]
    why: str
    model: Annotated[str | UnsetType, Meta(description="The model, if it changed.")] = UNSET


class Answer(Struct, forbid_unknown_fields=True):
    """A complete answer: the format `json` of a turn."""

    turn: Id
    conversation: Id
    question_id: Id
    answer_id: Id
    model: str
    answer: str
    reasoning: str | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    upstream: str | UnsetType = UNSET
    first_token_ms: int | UnsetType | None = UNSET
    usage: Usage | UnsetType | None = UNSET
    continued: list[Seam] | UnsetType = UNSET
    error: ErrorDetail | UnsetType = UNSET


class Event(Struct, forbid_unknown_fields=True):
    """An event of a turn's stream. A `message` has no name in the stream: it is text."""

    data: Annotated[
        str, Meta(description="Text in `message`, `reasoning` and `end`, otherwise JSON.")
    ]
    event: Literal[
        "turn", "message", "reasoning", "continued", "waiting", "usage", "end", "failed", "restart"
    ]
    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,64}\.[0-9]+$")] | UnsetType = UNSET
    retry: int | UnsetType = UNSET


class Change(Struct, forbid_unknown_fields=True):
    """Something that happened to a conversation; after a `reset`, events may be missing."""

    type: Literal["turn", "end", "conversation", "reset"]
    conversation: Id | UnsetType = UNSET
    turn: Id | UnsetType = UNSET
    state: Literal["done", "stopped", "failed"] | UnsetType = UNSET
    change: Literal["created", "changed", "deleted"] | UnsetType = UNSET


class ChannelEvent(Struct, forbid_unknown_fields=True):
    """An event of `/api/events/`, named after its type, or `message` with `names=off`."""

    event: Literal["turn", "end", "conversation", "reset", "message"]
    data: Annotated[str, Meta(description="A `Change` as JSON.", extra_json_schema=_CHANGE)]
    id: str
    retry: int | UnsetType = UNSET


class Info(Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(description="The default model.")]
    models: list[str]
    demo: Annotated[bool, Meta(description="The built-in demo model answers.")]
    message_max: Annotated[int, Meta(description="Maximum length of a question, in characters.")]


class Summary(Struct, forbid_unknown_fields=True):
    """A conversation as a list shows it."""

    id: Id
    title: str
    created: Time
    updated: Time
    running: Annotated[Id | None, Meta(description="The turn that is being answered.")]
    pinned: bool
    model: Annotated[str, Meta(description="Empty for the default model.")]


class Conversation(Summary, forbid_unknown_fields=True):
    system: Annotated[str | None, Meta(description="The system prompt; null for SYSTEM_PROMPT.")]


class ConversationPage(Struct, forbid_unknown_fields=True):
    conversations: list[Summary]
    next: Annotated[str | None, Meta(description="The `cursor` of the next page.")]


class Message(Struct, forbid_unknown_fields=True):
    """A question or an answer. Only answers have `model` and the fields after it."""

    id: Id
    parent: Id | None
    role: Literal["user", "assistant"]
    content: str
    created: Time
    turn: Id
    alternatives: Annotated[
        list[Id] | UnsetType, Meta(description="All children of its parent, if there are several.")
    ] = UNSET
    model: str | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    continued: list[Seam] | UnsetType = UNSET
    failure: Annotated[
        ErrorDetail | UnsetType, Meta(description="Why the turn failed; the text is partial.")
    ] = UNSET


class ConversationContent(Conversation, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(description="The current branch, in order of time.")]
    earlier: Annotated[bool, Meta(description="Whether there are earlier messages.")]


class ConversationExport(Conversation, forbid_unknown_fields=True):
    messages: list[Message]


class Health(Struct, forbid_unknown_fields=True, omit_defaults=True):
    status: str
    reason: str | UnsetType = UNSET


# OpenAI's API: unknown fields are passed on, in both directions


class ChatMessage(Struct):
    role: str
    content: Annotated[Any, Meta(description="A text, or a list of parts such as images.")] = None


class StreamingOptions(Struct):
    include_usage: bool | None = None


class CompletionMetadata(Struct):
    conversation: Annotated[
        Id | None, Meta(description="The conversation that keeps the exchange.")
    ] = None


class CompletionRequest(Struct):
    """OpenAI's body. Fields that are not listed, such as `temperature`, go upstream unchanged."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)]
    model: Annotated[str | None, Meta(description="One of CHAT_MODEL; the first by default.")] = (
        None
    )
    stream: bool | None = None
    stream_options: StreamingOptions | None = None
    n: Literal[1] | None = None
    store: Annotated[bool | None, Meta(description="Keep the exchange in a conversation.")] = None
    metadata: CompletionMetadata | None = None


class CompletionChoice(Struct):
    index: int
    message: dict[str, Any]
    finish_reason: str


class CompletionUsage(Struct):
    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET


class Completion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: Annotated[int, Meta(description="Seconds since 1970.")]
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None


class ChunkEvent(Struct, forbid_unknown_fields=True):
    event: Literal["message"]
    data: Annotated[
        str, Meta(description="A `chat.completion.chunk`, an error object, or at the end `[DONE]`.")
    ]


class OpenAIErrorDetail(Struct, forbid_unknown_fields=True):
    message: str
    type: str
    param: Annotated[str | None, Meta(description="The field of the body that is invalid.")]
    code: str | None


class OpenAIError(Struct, forbid_unknown_fields=True):
    error: OpenAIErrorDetail


class Model(Struct, forbid_unknown_fields=True):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Struct, forbid_unknown_fields=True):
    object: Literal["list"]
    data: list[Model]
