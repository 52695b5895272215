"""The description of the routes that end a session and delete all of its conversations."""

from chat.api import logout
from chat.api.conversations import routes
from chat.api.openapi.operation import Answer, Operation

CONVERSATIONS = "Conversations"
"""The tag of routes for conversations."""

FOREIGN = "Another site, a navigation or a prefetch caused the request, or may have caused it."
UNAVAILABLE = "Redis is unavailable."

OPERATIONS = (
    Operation(
        method="delete",
        path="/api/conversations/",
        handler=routes.delete_conversations,
        tag=CONVERSATIONS,
        answers={204: Answer(description="All conversations of the session are deleted.")},
        errors={
            403: FOREIGN,
            409: "New answers or conversations keep starting.",
            503: UNAVAILABLE,
        },
    ),
    Operation(
        method="post",
        path="/api/logout",
        handler=logout.end_session,
        tag=CONVERSATIONS,
        answers={
            204: Answer(
                description="The session is ended: its cookie is no longer valid.",
                headers=("Clear-Site-Data",),
            )
        },
        errors={403: FOREIGN, 503: UNAVAILABLE},
    ),
)
