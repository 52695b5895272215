"""Frames: whatever the text and wherever the bytes are cut, what was said is what is read."""

from httpx_sse._decoders import SSEDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from chat.event_stream import Event, EventDecoder, TextNormaliser
from chat.formats import sse

TURN = "t" * 22
texts = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=80)
names = st.sampled_from(["", "reasoning", "usage", "end"])


def decode(data: bytes, size: int = 1 << 20) -> list[Event]:
    decoder = EventDecoder()
    return [
        event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])
    ]


def encode_all(said: list[tuple[str, str]]) -> tuple[bytes, list[int]]:
    """A log of these (event, text) frames, and where each ends."""
    log = sse.encode_first(TURN, "{}")
    ends = [len(log)]
    for name, text in said:
        log += sse.encode(TURN, len(log), text, name)
        ends.append(len(log))
    return log, ends


@given(st.lists(st.tuples(names, texts), max_size=5), st.integers(1, 40))
@example([("", "data: x\n\n  y\n:z\u2028\ufeff")], 1)
def test_what_was_encoded_is_decoded_however_it_is_cut(
    said: list[tuple[str, str]], size: int
) -> None:
    log, ends = encode_all(said)
    events = decode(log, size)
    assert [(e.name, e.data) for e in events[1:]] == [
        (name or "message", text) for name, text in said
    ]
    assert [e.id for e in events] == [f"{TURN}.{end}" for end in ends]


@given(st.lists(st.tuples(names, texts), max_size=5))
def test_an_independent_client_reads_the_same(said: list[tuple[str, str]]) -> None:
    decoder = SSEDecoder()
    lines = encode_all(said)[0].decode().removesuffix("\n").split("\n")
    events = [event for line in lines if (event := decoder.decode(line))]
    assert [(e.event, e.data) for e in events[1:]] == [
        (name or "message", text) for name, text in said
    ]
    assert events[0].retry == 1000


@given(st.integers(0, 10**12), texts)
def test_the_id_of_a_frame_is_where_it_ends(offset: int, text: str) -> None:
    frame = sse.encode(TURN, offset, text)
    (event,) = decode(frame)
    assert sse.parse_id(event.id) == (TURN, offset + len(frame))


@given(st.lists(st.tuples(names, texts), max_size=4))
def test_a_frame_ends_where_it_ends_and_nowhere_else(said: list[tuple[str, str]]) -> None:
    log, ends = encode_all(said)
    assert [at for at in range(len(log) + 1) if sse.is_boundary(log[max(0, at - 2) : at])] == [
        0,
        *ends,
    ]


@given(st.lists(st.tuples(names, texts), max_size=5))
def test_an_answer_is_read_back_out_of_its_log(said: list[tuple[str, str]]) -> None:
    made = sse.decode_log(encode_all(said)[0])
    assert made.text == [data for name, data in said if name == ""]
    assert made.reasoning == [data for name, data in said if name == "reasoning"]
    assert made.continued == []


def test_every_form_of_an_event_stream_is_understood() -> None:
    stream = (
        b"\xef\xbb\xbf: a comment\r\nevent: one\r\ndata:  spaced\r\nretry: 5\r\nunknown: x\r\n\r\n"
        b"data: cr only\rdata\rid: 7\r\rdata: \xff\n\nevent: lost\n\nid: a\0b\ndata:x\n\ndata: unfinished"
    )
    expected = [
        Event("one", " spaced", ""),
        Event("message", "cr only\n", "7"),
        Event("message", "\ufffd", "7"),
        Event("message", "x", "7"),
    ]
    assert [decode(stream, size) for size in (1, 2, 3, 5, 1000)] == [expected] * 5


def test_the_frames_that_stand_in_no_log() -> None:
    assert decode(sse.HEARTBEAT) == []
    assert decode(sse.RETRY_LATER) == []
    assert sse.RETRY_LATER.startswith(b"retry: 5000\n")
    assert decode(sse.encode_restart(TURN)) == [Event("restart", "{}", f"{TURN}.0")]
    assert decode(sse.encode_end(TURN, 77, "a\nb")) == [Event("end", "a\nb", f"{TURN}.77")]


@given(st.lists(st.text(max_size=8), max_size=8))
@example(["a\r", "\nb", "\r", "", "\n", "\n"])
@example(["\r", "\0", "\n"])
@example(["\ud83d", "\ude00", "\ud83d", "x"])
def test_text_comes_out_the_same_however_it_was_cut(deltas: list[str]) -> None:
    cut, whole = TextNormaliser(), TextNormaliser()
    joined = "".join(cut.feed(delta) for delta in deltas)
    assert joined == whole.feed("".join(deltas))
    assert "\r" not in joined
    assert "\0" not in joined
    joined.encode()


def test_ids_of_turns_and_frames() -> None:
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


def test_a_long_line_in_small_parts_is_one_event_and_what_waits_is_counted() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: one\r")) == []
    assert [
        event.data for part in (b"\ndata: ", b"x" * 5, b"y" * 5) for event in decoder.feed(part)
    ] == []
    assert decoder.pending == len("one" + "data: xxxxxyyyyy")
    assert [event.data for event in decoder.feed(b"\n\n")] == ["one\nxxxxxyyyyy"]
    assert decoder.pending == 0
