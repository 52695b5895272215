"""Continuations: text that certainly repeats the partial answer is removed, and no other text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.turns.continuation import MIN_OVERLAP, OverlapTrimmer

PARTIAL = "The quick brown fox jumps over the lazy"


def trim(partial: str, parts: list[str]) -> str:
    """Return the text of a continuation that is appended to the partial answer."""
    trimmer = OverlapTrimmer(partial)
    return "".join(trimmer.feed(part) for part in parts) + trimmer.end()


@pytest.mark.parametrize(
    ("continuation", "appended"),
    [
        (" dog, and runs.", " dog, and runs."),
        ("fox jumps over the lazy dog.", " dog."),
        (f"{PARTIAL} dog.", " dog."),
        ("the lazy dog.", "the lazy dog."),  # too short to be certain
        ("jumps over the moon", "jumps over the moon"),
        ("Sure, continuing from where I stopped:\n\n dog.", " dog."),
        ("Continuing...\nfox jumps over the lazy dog.", " dog."),
        ("好的，我继续写：\n狗。", "狗。"),
        (
            "Sure enough, it was a dog, and a large one.",
            "Sure enough, it was a dog, and a large one.",
        ),
        ("Here is a dog:\n\nRex", "Here is a dog:\n\nRex"),
        ("好狗。", "好狗。"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_repetition_or_an_announcement_is_removed_from_a_continuation(
    continuation: str, appended: str, size: int
) -> None:
    parts = [continuation[at : at + size] for at in range(0, len(continuation), size)]
    assert trim(PARTIAL, parts) == appended


@given(st.text(max_size=300), st.lists(st.text(max_size=9), max_size=9))
def test_text_is_removed_only_from_the_start_of_a_continuation(
    partial: str, parts: list[str]
) -> None:
    full = "".join(parts)
    appended = trim(partial, parts)
    assert full.endswith(appended)
    removed = full.removesuffix(appended)
    assert not removed or len(removed) >= MIN_OVERLAP or "\n" in removed


@given(
    st.text(alphabet="abc \n汉", min_size=MIN_OVERLAP, max_size=200),
    st.integers(MIN_OVERLAP, 60),
    st.text(max_size=40),
)
def test_any_repetition_of_the_minimum_length_is_removed(
    partial: str, size: int, more: str
) -> None:
    repeated = partial[-size:]
    # U+0000 is not in the alphabet: the text after it cannot belong to the repetition.
    assert trim(partial, [repeated, "\0" + more]) == "\0" + more


def test_the_text_of_a_first_response_is_not_buffered() -> None:
    trimmer = OverlapTrimmer("")
    assert trimmer.feed("Sure, ") == "Sure, "
