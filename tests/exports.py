"""Export conversations without a server."""

from collections.abc import Sequence

from chat.export.rendering import FileFormat, Language, Message, render_file, render_message


def export_as(
    kind: FileFormat, title: str, messages: Sequence[Message], language: Language = "en"
) -> str:
    """Return the file of a conversation whose messages are rendered in this process."""
    pieces = [render_message(kind, message, language) for message in messages]
    return render_file(kind, title, pieces, language)
