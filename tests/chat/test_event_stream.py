"""Any event stream is decoded, split at any byte; any text is normalised, however split."""

from hypothesis import example, given
from hypothesis import strategies as st

from chat.event_stream import Event, EventDecoder, TextNormaliser


def decode(data: bytes, size: int = 1 << 20) -> list[Event]:
    decoder = EventDecoder()
    return [
        event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])
    ]


def test_every_form_of_an_event_stream_is_decoded() -> None:
    stream = (
        b"\xef\xbb\xbf: a comment\r\nevent: one\r\ndata:  spaced\r\nretry: 5\r\nunknown: x\r\n\r\n"
        b"data: cr only\rdata\rid: 7\r\rdata: \xff\n\nevent: lost\n\nid: a\0b\ndata:x\n\n"
        b"data: unfinished"
    )
    expected = [
        Event("one", " spaced", ""),
        Event("message", "cr only\n", "7"),
        Event("message", "\ufffd", "7"),
        Event("message", "x", "7"),
    ]
    assert [decode(stream, size) for size in (1, 2, 3, 5, 1000)] == [expected] * 5


@given(st.lists(st.text(max_size=8), max_size=8))
@example(["a\r", "\nb", "\r", "", "\n", "\n"])
@example(["\r", "\0", "\n"])
@example(["\ud83d", "\ude00", "\ud83d", "x"])
def test_normalised_text_does_not_depend_on_where_it_was_split(deltas: list[str]) -> None:
    cut, whole = TextNormaliser(), TextNormaliser()
    joined = "".join(cut.feed(delta) for delta in deltas)
    assert joined == whole.feed("".join(deltas))
    assert "\r" not in joined
    assert "\0" not in joined
    joined.encode()
