"""The seam: what is certainly said again is cut, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.turns.continuation import MIN_OVERLAP, OverlapTrimmer

SO_FAR = "The quick brown fox jumps over the lazy"


def joined(partial: str, parts: list[str]) -> str:
    seam = OverlapTrimmer(partial)
    return "".join(seam.feed(part) for part in parts) + seam.end()


@pytest.mark.parametrize(
    ("continuation", "shown"),
    [
        (" dog, and runs.", " dog, and runs."),
        ("fox jumps over the lazy dog.", " dog."),
        (f"{SO_FAR} dog.", " dog."),
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
    continuation: str, shown: str, size: int
) -> None:
    parts = [continuation[at : at + size] for at in range(0, len(continuation), size)]
    assert joined(SO_FAR, parts) == shown


@given(st.text(max_size=300), st.lists(st.text(max_size=9), max_size=9))
def test_text_is_removed_only_from_the_start_of_a_continuation(
    partial: str, parts: list[str]
) -> None:
    whole = "".join(parts)
    shown = joined(partial, parts)
    assert whole.endswith(shown)
    cut = whole.removesuffix(shown)
    assert not cut or len(cut) >= MIN_OVERLAP or "\n" in cut


@given(
    st.text(alphabet="abc \n汉", min_size=MIN_OVERLAP, max_size=200),
    st.integers(MIN_OVERLAP, 60),
    st.text(max_size=40),
)
def test_any_repetition_of_the_minimum_length_is_removed(
    partial: str, size: int, more: str
) -> None:
    repeated = partial[-size:]
    shown = joined(
        partial, [repeated, "\0" + more]
    )  # what follows cannot be part of the repetition
    assert shown == "\0" + more


def test_the_text_of_a_first_response_is_not_buffered() -> None:
    seam = OverlapTrimmer("")
    assert seam.feed("Sure, ") == "Sure, "
