"""Records as server-sent events: an independent client decodes the same text and ids."""

from httpx_sse._decoders import SSEDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from chat.event_stream import Event, EventDecoder
from chat.formats import sse
from chat.log import records
from chat.log.records import Kind

TURN = "t" * 22
NAMES = {
    Kind.TEXT: "message",
    Kind.REASONING: "reasoning",
    Kind.CONTINUED: "continued",
    Kind.USAGE: "usage",
    Kind.FAILED: "failed",
}
texts = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=80)
logs = st.lists(st.tuples(st.sampled_from([*NAMES, Kind.ATTEMPT]), texts), max_size=5)


def decode(data: bytes, size: int = 1 << 20) -> list[Event]:
    decoder = EventDecoder()
    return [
        event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])
    ]


def encode_log(contents: list[tuple[Kind, str]]) -> tuple[bytes, list[int]]:
    """Return a log with these contents, and the offset after each record."""
    log, ends = b"", []
    for kind, payload in [(Kind.TURN, "{}"), *contents]:
        log += records.encode(TURN, len(log), kind, payload)
        ends.append(len(log))
    return log, ends


@given(logs, st.integers(1, 40))
@example([(Kind.TEXT, "data: x\n\n  y\n:z\u2028\ufeff")], 1)
def test_every_record_with_a_frame_is_decoded_from_a_stream_split_anywhere(
    contents: list[tuple[Kind, str]], size: int
) -> None:
    log, ends = encode_log(contents)
    shown = [(NAMES[kind], text) for kind, text in contents if kind in NAMES]
    events = decode(sse.encode(TURN, 0, log), size)
    assert [(event.name, event.data) for event in events[1:]] == shown
    assert [event.id for event in events] == [
        f"{TURN}.{end}"
        for (kind, _), end in zip([(Kind.TURN, ""), *contents], ends, strict=True)
        if kind is not Kind.ATTEMPT
    ]


@given(logs)
def test_an_independent_client_decodes_the_same_text(contents: list[tuple[Kind, str]]) -> None:
    decoder = SSEDecoder()
    stream = sse.encode(TURN, 0, encode_log(contents)[0])
    lines = stream.decode().removesuffix("\n").split("\n")
    events = [event for line in lines if (event := decoder.decode(line))]
    shown = [(NAMES[kind], text) for kind, text in contents if kind in NAMES]
    assert [(event.event, event.data) for event in events[1:]] == shown
    assert events[0].retry == 1000


@given(logs, texts)
def test_the_id_is_the_last_line_of_a_frame(contents: list[tuple[Kind, str]], text: str) -> None:
    """A client that has an id has the complete data of its frame, wherever the stream is cut."""
    stream = sse.encode(TURN, 0, encode_log(contents)[0])
    for frame in [
        *stream.split(b"\n\n")[:-1],
        sse.encode_end(TURN, 9, text).removesuffix(b"\n\n"),
        sse.encode_restart(TURN).removesuffix(b"\n\n"),
    ]:
        lines = frame.split(b"\n")
        assert [number for number, line in enumerate(lines, 1) if line.startswith(b"id: ")] == [
            len(lines)
        ]


@given(logs, st.data())
def test_frames_after_any_record_are_the_rest_of_the_stream(
    contents: list[tuple[Kind, str]], data: st.DataObject
) -> None:
    log, ends = encode_log(contents)
    begin = data.draw(st.sampled_from([0, *ends]))
    whole, rest = decode(sse.encode(TURN, 0, log)), decode(sse.encode(TURN, begin, log[begin:]))
    assert rest == whole[len(whole) - len(rest) :]
    assert decode(sse.encode(TURN, 0, log[:begin])) == whole[: len(whole) - len(rest)]


def test_a_record_of_an_unknown_kind_has_no_frame() -> None:
    log = b"\0tone\0Xfrom a later version\0ttwo\0"
    events = decode(sse.encode(TURN, 0, log))
    assert [event.data for event in events] == ["one", "two"]
    assert events[1].id == f"{TURN}.{len(log) - 1}"


def test_restart_retry_and_heartbeat_frames_are_encoded() -> None:
    assert decode(sse.HEARTBEAT) == []
    assert decode(sse.RETRY_LATER) == []
    assert sse.RETRY_LATER.startswith(b"retry: 5000\n")
    assert decode(sse.encode_restart(TURN)) == [Event("restart", "{}", f"{TURN}.0")]
    assert decode(sse.encode_end(TURN, 77, "a\nb")) == [Event("end", "a\nb", f"{TURN}.77")]


def test_only_well_formed_ids_of_turns_and_frames_are_accepted() -> None:
    assert sse.is_turn_id("A-z_0" * 4)
    for bad in ("short", "x" * 65, "with.dot" * 3, "with space" * 3, "é" * 20, "x" * 16 + "\n"):
        assert not sse.is_turn_id(bad)
    assert sse.parse_id(f"{TURN}.0") == (TURN, 0)
    for bad in (
        "",
        TURN,
        f"{TURN}.",
        f"{TURN}.-1",
        f"{TURN}.1x",
        f"{TURN}.٣",
        f"{TURN}.1.2",
        f"{TURN}." + "9" * 16,
    ):
        assert sse.parse_id(bad) is None


def test_a_long_line_in_small_parts_is_one_event_and_its_pending_bytes_are_counted() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: one\r")) == []
    assert [
        event.data for part in (b"\ndata: ", b"x" * 5, b"y" * 5) for event in decoder.feed(part)
    ] == []
    assert decoder.pending == len("one" + "data: xxxxxyyyyy")
    assert [event.data for event in decoder.feed(b"\n\n")] == ["one\nxxxxxyyyyy"]
    assert decoder.pending == 0


def test_nothing_outside_the_log_makes_a_client_forget_its_last_event_id() -> None:
    """WHATWG HTML §9.2.6: an empty line sets the last event id to that of the connection."""
    for data in (sse.HEARTBEAT, sse.RETRY_LATER, sse.ASK_AGAIN):
        assert data.endswith(b"\n")
        assert b"\n\n" not in data
    assert decode(sse.encode_waiting(TURN, 7, "{}")) == [Event("waiting", "{}", f"{TURN}.7")]
    assert decode(sse.encode_restart(TURN))[0].id
