"""An answer is cut into windows that cover it completely, each with the text before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.log.records import Kind
from chat.turns.moderation.windows import (
    CONTEXT,
    MAX_LENGTH,
    WINDOW,
    Piece,
    Windows,
    split_text,
)

TEXT, REASONING = Kind.TEXT, Kind.REASONING
LONG = "word " * 500

deltas = st.lists(
    st.tuples(
        st.sampled_from([TEXT, REASONING]),
        st.one_of(
            st.text("ab. \n。汉", min_size=1, max_size=30),
            st.integers(1, 3000).map(lambda length: ("sentence without end " * 150)[:length]),
        ),
    ),
    max_size=20,
)


def cut(*pieces: Piece) -> list[str]:
    """Return the pieces of each window of a response that arrives in these deltas, and ends."""
    windows = Windows({})
    found = []
    for kind, text in pieces:
        windows.feed(kind, text)
        while window := windows.take():
            found.append(window)
    windows.end()
    while window := windows.take():
        found.append(window)
    return ["|".join(text for _, text in window.pieces) for window in found]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(TEXT, "One. "), (TEXT, "Two. "), (TEXT, "Three.")], ["One. ", "Two. Three."]),
        ([(TEXT, "Pi is 3.14 here. More")], ["Pi is 3.14 here. ", "More"]),
        ([(TEXT, 'He said "no." Then')], ['He said "no." ', "Then"]),
        ([(TEXT, "第一句。"), (TEXT, "第二句。")], ["第一句。", "第二句。"]),
        ([(TEXT, "# Title\nText")], ["# Title\n", "Text"]),
        ([(TEXT, "\n\nText")], ["\n\nText"]),
        ([(TEXT, "no end")], ["no end"]),
        ([(TEXT, LONG[:399]), (TEXT, LONG[399:401])], [LONG[:401]]),
        ([(TEXT, LONG)], [LONG[:1800], LONG[1800:]]),
        ([(TEXT, "A. "), (TEXT, LONG[:350]), (TEXT, "B. ")], ["A. ", LONG[:350] + "B. "]),
        (
            [(REASONING, "Hm. "), (REASONING, "Aha"), (TEXT, "Yes. "), (TEXT, "No.")],
            ["Hm. ", "Aha|Yes. ", "No."],
        ),
        ([], []),
    ],
)
def test_the_first_window_is_a_sentence_and_the_others_have_400_characters(
    pieces: list[Piece], expected: list[str]
) -> None:
    assert cut(*pieces) == expected


@given(deltas, st.text("xyz", max_size=300), st.randoms(use_true_random=False))
def test_windows_release_what_arrived_in_order_and_check_all_of_it(
    fed: list[Piece], before: str, random: object
) -> None:
    windows = Windows({TEXT: before})
    taken = []
    for kind, text in fed:
        windows.feed(kind, text)
        while getattr(random, "random")() < 0.7 and (window := windows.take()):  # noqa: B009
            taken.append(window)
    windows.end()
    while window := windows.take():
        taken.append(window)
    for kind in (TEXT, REASONING):
        whole = "".join(text for other, text in fed if other is kind)
        released = [text for window in taken for other, text in window.pieces if other is kind]
        assert "".join(released) == whole
    arrived = [(kind, c) for kind, text in fed for c in text]
    assert [(kind, c) for window in taken for kind, text in window.pieces for c in text] == arrived
    seen = {TEXT: before, REASONING: ""}
    for window in taken:
        expected: dict[Kind, str] = {}
        for kind, text in window.pieces:
            expected[kind] = expected.get(kind, seen[kind][-CONTEXT:]) + text
        assert window.texts == list(expected.values())
        assert all(len(text) <= MAX_LENGTH for text in window.texts)
        for kind, text in window.pieces:
            seen[kind] += text
    assert windows.size == 0


@given(st.integers(1, 60), st.integers(0, 1500), st.integers(1, CONTEXT))
def test_a_phrase_that_is_split_between_windows_is_seen_whole(
    step: int, at: int, length: int
) -> None:
    phrase = "p" * length
    text = "x" * at + phrase + "x" * WINDOW
    windows, texts = Windows({}), []
    for begin in range(0, len(text), step):
        windows.feed(TEXT, text[begin : begin + step])
        while window := windows.take():
            texts += window.texts
    windows.end()
    while window := windows.take():
        texts += window.texts
    assert any(phrase in one for one in texts)


@given(st.integers(0, 9000))
def test_a_long_question_is_split_into_parts_that_overlap(length: int) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(length))
    parts = split_text(text)
    assert all(len(part) <= MAX_LENGTH for part in parts)
    assert parts[0] + "".join(part[CONTEXT:] for part in parts[1:]) == text
