"""Records: any answer is decoded from its log, and offsets inside a record are invalid."""

from hypothesis import example, given
from hypothesis import strategies as st

from chat.event_stream import EventDecoder
from chat.log import legacy, records
from chat.log.records import MAX_RECORD_BYTES, Kind

TURN = "t" * 22
KINDS = [Kind.TEXT, Kind.REASONING, Kind.CONTINUED, Kind.ATTEMPT]
texts = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=80)
contents = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([Kind.TEXT, Kind.REASONING]), texts),
        st.just((Kind.CONTINUED, '{"at": 1, "why": "length"}')),
        st.just((Kind.ATTEMPT, '{"mode": "prefill"}')),
    ),
    max_size=6,
)


def encode_log(written: list[tuple[Kind, str]]) -> tuple[bytes, list[int]]:
    log, ends = b"", [0]
    for kind, payload in written:
        log += records.encode(TURN, len(log), kind, payload)
        ends.append(len(log))
    return log, ends


@given(contents)
@example([(Kind.TEXT, "é" * 10), (Kind.REASONING, "t")])
def test_an_answer_is_decoded_from_its_log(written: list[tuple[Kind, str]]) -> None:
    found = records.decode_answer(encode_log(written)[0])
    assert found.text == "".join(text for kind, text in written if kind is Kind.TEXT)
    assert found.reasoning == "".join(text for kind, text in written if kind is Kind.REASONING)
    assert len(found.continued) == [kind for kind, _ in written].count(Kind.CONTINUED)
    assert len(found.attempts) == [kind for kind, _ in written].count(Kind.ATTEMPT)


@given(contents)
def test_an_offset_is_valid_where_a_record_begins_and_nowhere_else(
    written: list[tuple[Kind, str]],
) -> None:
    log, ends = encode_log(written)
    valid = [at for at in range(len(log) + 1) if records.is_valid_offset(b"", log[at : at + 1])]
    assert valid == ends
    assert all(
        records.keep_whole(log[:at]) == log[: max(e for e in ends if e < at)]
        for at in range(1, len(log))
    )


@given(st.integers(1, 5), st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]))
def test_a_long_text_is_split_into_records_of_bounded_size(thousands: int, character: str) -> None:
    text = character * (4000 * thousands)
    log = records.encode(TURN, 0, Kind.TEXT, text)
    sizes = [len(record) + 1 for record in log.split(b"\0")[1:]]
    assert max(sizes) <= MAX_RECORD_BYTES
    assert records.decode_answer(log).text == text


def test_a_log_is_complete_after_its_end_record_only() -> None:
    whole = records.encode(TURN, 0, Kind.TEXT, "t") + records.encode(TURN, 0, Kind.END, "ignored")
    assert whole == b"\0tt\0e"
    assert records.is_complete(whole[-2:])
    for tail in (b"", b"te", b"\0t", records.encode(TURN, 0, Kind.FAILED, "{}")[-2:]):
        assert not records.is_complete(tail)


def test_a_malformed_log_is_decoded_up_to_the_malformed_record() -> None:
    for log in (b"", b"x", b"\0", b"\0\0\0", b"no record\0tread\0Zskip"):
        assert records.decode_answer(log).text in ("", "read")


@given(contents)
def test_a_turn_of_version_0_1_is_continued_in_its_own_encoding(
    written: list[tuple[Kind, str]],
) -> None:
    log, ends = b"", [0]
    for kind, payload in written:
        frame = legacy.encode(TURN, len(log), kind, payload)
        log += frame
        ends += [len(log)] if frame else []
    found = legacy.decode_answer(log)
    assert found.text == "".join(text for kind, text in written if kind is Kind.TEXT)
    assert [event.id for event in EventDecoder().feed(log)] == [f"{TURN}.{end}" for end in ends[1:]]
    valid = [
        at for at in range(len(log) + 1) if legacy.is_valid_offset(log[max(0, at - 2) : at], b"")
    ]
    assert valid == ends


def test_a_long_json_record_is_not_split() -> None:
    payload = '{"continued": [' + ", ".join(['{"at": 1}'] * 2000) + "]}"
    assert records.encode(TURN, 0, Kind.USAGE, payload) == b"\0u" + payload.encode()
