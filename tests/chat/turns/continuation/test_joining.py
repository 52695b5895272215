"""Joining a continuation: certain repetitions are removed, and no text is ever lost."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.turns.continuation.joining import (
    MIN_OVERLAP,
    MIN_PREFILL_REPETITION,
    MIN_RESTART,
    Joiner,
    Outcome,
    join,
)

FOX = "The quick brown fox jumps over the lazy"
LONG = "".join(
    f"Sentence number {number} of the answer says something of its own. " for number in range(1, 11)
)
VERSE = "The rain came down on the lake.\n" * 6 + "And then it was still."
LINE = '{"kind": "message", "role": "user", "state": "done", "title": "A", "text": "one"}\n'
"""A record of a list whose records have a long common beginning."""


def join_pieces(partial: str, pieces: list[str], *, is_prefill: bool) -> tuple[str, Outcome]:
    """Return the result of feeding a continuation in pieces."""
    joiner = Joiner(partial, is_prefill=is_prefill)
    text = "".join(joiner.feed(piece) for piece in pieces)
    return text + joiner.end(), joiner.outcome


def split(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


BY_PROMPT = [
    case("exact", FOX, " dog.", " dog.", Outcome.JOINED),
    case("empty", FOX, "", "", Outcome.JOINED),
    case("overlap", FOX, "fox jumps over the lazy dog.", " dog.", Outcome.JOINED),
    case("only an overlap", FOX, "jumps over the lazy", "", Outcome.JOINED),
    case("short overlap", FOX, "over the lazy dog."[3:], "r the lazy dog.", Outcome.JOINED),
    case(
        "overlap that occurs twice",
        f"{FOX}, {FOX}",
        f"{FOX[-15:]} dog",
        f"{FOX[-15:]} dog",
        Outcome.JOINED,
    ),
    case(
        "overlap of a sentence among similar ones",
        LONG[:540],
        LONG[472:],
        LONG[540:],
        Outcome.JOINED,
    ),
    case("whole", FOX, f"{FOX} dog.", " dog.", Outcome.WHOLE),
    case("whole and no more", FOX, FOX, "", Outcome.WHOLE),
    case("whole and a part of it", FOX, f"{FOX}The quick", "The quick", Outcome.WHOLE),
    case("whole but short", "**", "**bold", "**bold", Outcome.JOINED),
    case("whole without its last white space", f"{LONG}\n\n", f"{LONG}\nEnd", "End", Outcome.WHOLE),
    case("restated and cut at the same place", LONG[:238], LONG[:238], "", Outcome.WHOLE),
    case("restated to its end", LONG[:540], f"{LONG}And.", f"{LONG[540:]}And.", Outcome.WHOLE),
    case("restarted", LONG[:540], LONG[:300] + "Other words.", "", Outcome.RESTARTED),
    case("restarted and cut earlier", LONG[:540], LONG[:200], "", Outcome.RESTARTED),
    case("a short beginning at the end", FOX, FOX[:20], FOX[:20], Outcome.JOINED),
    case(
        "announced overlap",
        FOX,
        "Continuing...\nfox jumps over the lazy dog.",
        " dog.",
        Outcome.JOINED,
    ),
    case("announced whole", FOX, f"Here is the rest:\n\n{FOX} dog.", " dog.", Outcome.WHOLE),
    case(
        "announced restart",
        LONG[:540],
        f"Sure, here is the rest:\n\n{LONG[:300]}No.",
        "",
        Outcome.RESTARTED,
    ),
    case("announced in Chinese", FOX, "好的，以下是续写：\n\n狗。", "狗。", Outcome.JOINED),
    case("only announced", FOX, "Continuing from where I left off:", "", Outcome.JOINED),
    case(
        "a line of the answer",
        "Continued:\na\nb\n",
        "Continued:\na\nc",
        "Continued:\na\nc",
        Outcome.JOINED,
    ),
    case("a code fence", FOX, f"```\n{FOX} dog", f"```\n{FOX} dog", Outcome.JOINED),
]
BY_PREFILL = [
    case("exact", FOX, " dog.", " dog.", Outcome.JOINED),
    case("overlap", FOX, f"{FOX[10:]} dog", f"{FOX[10:]} dog", Outcome.JOINED),
    case("whole but short", FOX, f"{FOX} dog", f"{FOX} dog", Outcome.JOINED),
    case("whole", LONG[:540], f"{LONG}And.", f"{LONG[540:]}And.", Outcome.WHOLE),
    case("whole as it was sent", f"{LONG}\n\n", f"{LONG.rstrip()}\n\nEnd", "End", Outcome.WHOLE),
    case("paragraph after a blank", "One. \n\n", "\n\nNext", "Next", Outcome.JOINED),
    case("restarted", LONG[:540], LONG[:300] + "Other words.", "", Outcome.RESTARTED),
    case("an announcement", FOX, "Continuing:\n dog", "Continuing:\n dog", Outcome.JOINED),
    case("space, generated again", "One two ", " three", "three", Outcome.JOINED),
    case("space, not generated again", "One two ", "three", "three", Outcome.JOINED),
    case("paragraph, generated again", "One.\n\n", "\n\nNext", "Next", Outcome.JOINED),
    case("paragraph, generated in part", "One.\n\n", "\nNext", "Next", Outcome.JOINED),
    case("line, generated as a paragraph", "One.\n", "\n\nNext", "\nNext", Outcome.JOINED),
    case("two spaces, generated as one", "One  ", " two", "two", Outcome.JOINED),
    case("other white space", "One \n", "\ttwo", "\ttwo", Outcome.JOINED),
]
LEGITIMATE = [
    case("a sentence like the first", LONG[:531], "Sentence number 11 of the answer is last."),
    case("an item like the first", "1. The first item\n", "1. The first subitem of the second"),
    case("a heading like the first", "## Step 1\n\nStart.\n\n", "## Step 2\n\nStop."),
    case(
        "code like the first", "def test_a_reader() -> None:\n    pass\n\n\n", "def test_a_writer()"
    ),
    case("a row like the first", "| name | value |\n|---|---|\n", "| name | other |\n"),
    case("a record like the first", LINE, LINE.replace("one", "two")),
    case("a record like all others", LINE * 2 + LINE[:9], LINE[9:] + LINE.replace("one", "two")),
    case("a periodic text", "ha " * 50, "ha " * 50 + "he laughed."),
    case("a verse", VERSE[:80], VERSE[80:]),
    case("a verse's first line again", VERSE[:32], VERSE[32:]),
]


@pytest.mark.parametrize("size", [1, 9, 1000])
@pytest.mark.parametrize(
    ("is_prefill", "partial", "continuation", "appended", "outcome"),
    [pytest.param(False, *row.values, id=f"prompt: {row.id}") for row in BY_PROMPT]
    + [pytest.param(True, *row.values, id=f"prefill: {row.id}") for row in BY_PREFILL],
)
def test_a_continuation_is_joined_without_a_certain_repetition(
    is_prefill: bool, partial: str, continuation: str, appended: str, outcome: Outcome, size: int
) -> None:
    pieces = split(continuation, size)
    assert join_pieces(partial, pieces, is_prefill=is_prefill) == (appended, outcome)


@pytest.mark.parametrize("is_prefill", [True, False])
@pytest.mark.parametrize(("partial", "continuation"), LEGITIMATE)
def test_a_continuation_that_resembles_the_beginning_is_kept(
    partial: str, continuation: str, is_prefill: bool
) -> None:
    assert join(partial, continuation, is_prefill=is_prefill) == (continuation, Outcome.JOINED)


REPETITIVE = [
    case("list", "[" + "0, " * 40 + "0]"),
    case("list of three lists", str([[1, 2, 3, 4, 5]] * 3)),
    case("growing list", str(list(range(60)))),
    case("matrix", str([[0] * 8] * 6)),
    case("table", "| a | b |\n|---|---|\n" + "| 0 | 0 |\n" * 12),
    case(
        "wide table",
        "| item  | count |  note |\n|:------|------:|:-----:|\n"
        + "| apple |     3 |       |\n" * 5,
    ),
    case("table of numbers", "".join(f"| row {n} | value of it | {n % 3} |\n" for n in range(30))),
    case("verse", VERSE),
    case("song", ("Row, row, row your boat,\nGently down the stream.\n\n" * 3) * 2),
    case("verses of repeated lines", (LONG[:59] * 3 + VERSE[:32] * 3) * 2),
    case("refrain", "".join(f"{LONG[:90]}\nVerse {n} is short.\n" for n in (1, 2, 3))),
    case("laughter", "She said: ha ha ha ha ha ha ha, and left. " * 4),
    case(
        "code", "def f(x):\n" + "    x = next(x)\n" * 9 + "    return x\n\n\n" + "print(f(1))\n" * 4
    ),
    case(
        "rules", "Title\n" + "=" * 40 + "\n\n" + "-" * 40 + "\n" + "." * 40 + "\n" + " " * 30 + "x"
    ),
    case("paragraph", (LONG[:150] + "\n\n") * 4),
    case("long paragraph", (LONG[:450] + "\n\n") * 3 + "The end."),
    case("Chinese", "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 4),
    case("Chinese list", "，".join(["你好世界"] * 20) + "。"),
    case("Chinese repeats", "继续，继续，继续！" * 8 + "哈" * 40 + "。接上文：" * 12),
    case("binary", "".join(format(n * n, "b") for n in range(60))),
    case("nothing but white space", "a" + " " * 30 + "\n" * 30 + "b"),
]


@pytest.mark.parametrize("is_prefill", [True, False])
@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("whole", REPETITIVE)
def test_an_exact_continuation_of_a_repetitive_text_is_complete_at_every_cut(
    whole: str, size: int, is_prefill: bool
) -> None:
    for cut in range(1, len(whole)):
        check_exact(whole, cut, is_prefill, size)


def check_exact(whole: str, cut: int, is_prefill: bool, size: int = 1000) -> None:
    """Check that an exact continuation from `cut` on restores the text."""
    partial = whole[:cut]
    sent = partial.rstrip() if is_prefill else partial
    text, outcome = join_pieces(partial, split(whole[len(sent) :], size), is_prefill=is_prefill)
    assert (partial + text, outcome) == (whole, Outcome.JOINED), (cut, partial[-40:])


texts = st.one_of(
    st.text(alphabet="ab", max_size=200),
    st.text(alphabet="哈呵。 \n", max_size=200),
    st.text(alphabet="|- \n1", max_size=200),
)
units = st.text(alphabet="ab1,| \n是的", min_size=1, max_size=40)
periodic_texts = st.builds(
    lambda start, unit, times, end: start + unit * times + end,
    st.text(alphabet="xyz \n", max_size=30),
    units,
    st.integers(3, 12),
    st.text(alphabet="xyz \n", max_size=30),
)


@given(texts, st.booleans())
def test_an_exact_continuation_over_few_characters_is_complete_at_every_cut(
    whole: str, is_prefill: bool
) -> None:
    for cut in range(1, len(whole)):
        check_exact(whole, cut, is_prefill)


@given(periodic_texts, st.booleans())
def test_an_exact_continuation_of_a_periodic_text_is_complete_at_every_cut(
    whole: str, is_prefill: bool
) -> None:
    for cut in range(1, len(whole)):
        check_exact(whole, cut, is_prefill)


@given(
    partial=st.one_of(periodic_texts, st.just(LONG), st.just(LONG[:222] + "\n\n"), st.text()),
    start=st.sampled_from(["", "Continuing:\n\n", "接上文：\n", "\n", "Sure, "]),
    begin=st.integers(0, 700),
    size=st.integers(0, 700),
    end=st.text(alphabet="S se\n", max_size=30),
    is_prefill=st.booleans(),
    data=st.data(),
)
def test_the_result_does_not_depend_on_the_pieces(
    partial: str, start: str, begin: int, size: int, end: str, is_prefill: bool, data: st.DataObject
) -> None:
    continuation = start + partial[begin : begin + size] + end
    cuts = data.draw(st.lists(st.integers(0, len(continuation)), max_size=12).map(sorted))
    ends = [*cuts, len(continuation)]
    pieces = [continuation[a:b] for a, b in zip([0, *cuts], ends, strict=True)]
    expected = join(partial, continuation, is_prefill=is_prefill)
    assert join_pieces(partial, pieces, is_prefill=is_prefill) == expected
    assert join_pieces(partial, list(continuation), is_prefill=is_prefill) == expected


@given(st.text(max_size=300), st.text(max_size=300), st.booleans())
def test_text_is_removed_only_from_the_start_of_a_continuation(
    partial: str, continuation: str, is_prefill: bool
) -> None:
    text, outcome = join(partial, continuation, is_prefill=is_prefill)
    assert outcome in (Outcome.JOINED, Outcome.WHOLE)
    assert continuation.endswith(text)


def test_a_restart_is_known_before_the_response_ends_and_releases_no_text() -> None:
    joiner = Joiner(LONG[:540], is_prefill=False)
    pieces = [LONG[:MIN_RESTART], "? Other words.", " More of them."]
    assert [(joiner.feed(piece), joiner.outcome) for piece in pieces] == [
        ("", Outcome.OPEN),
        ("", Outcome.RESTARTED),
        ("", Outcome.RESTARTED),
    ]
    assert joiner.end() == ""


def test_a_line_that_occurs_exactly_twice_is_kept_once_by_prompt() -> None:
    line, end = "And the rain came down.\n", "Then it stopped."
    assert join(f"Once.\n{line}", line + end, is_prefill=False)[0] == end
    assert join(f"Once.\n{line}", line + end, is_prefill=True)[0] == line + end
    assert join(f"Once.\n{line}", line + line + end, is_prefill=False)[0] == line + line + end


def test_a_match_below_the_minimum_lengths_is_kept() -> None:
    text = LONG[: MIN_PREFILL_REPETITION - 1]
    assert join(text, text + "x", is_prefill=True) == (text + "x", Outcome.JOINED)
    text = "abcdefghijklmn"[: MIN_OVERLAP - 1]
    assert join(text, text + "x", is_prefill=False) == (text + "x", Outcome.JOINED)
    text = LONG[: MIN_RESTART - 1] + "x"
    assert join(LONG, text, is_prefill=False) == (text, Outcome.JOINED)


def test_text_after_the_decision_and_of_a_first_response_is_not_held_back() -> None:
    assert Joiner("", is_prefill=False).feed("Sure, ") == "Sure, "
    joiner = Joiner(FOX, is_prefill=False)
    assert joiner.feed("er") + joiner.feed(" dog") == "er dog"
    assert joiner.feed("The quick") == "The quick"


VARIED = "".join(chr(0x4E00 + number * number % 20_011) for number in range(2**18))
RUNS = "".join("a" * number + "b" for number in range(1, 1400))


@pytest.mark.parametrize("is_prefill", [True, False])
@pytest.mark.parametrize(
    ("partial", "continuation"),
    [
        case("whole", VARIED, VARIED),
        case("whole twice", VARIED[: 2**17], VARIED[: 2**17] * 2),
        case("overlap", VARIED, VARIED[-8000:] * 2),
        case("periodic", "a" * 2**18, "a" * 2**18),
        case("runs", RUNS, RUNS[-9000:]),
        case("one long run", RUNS, "a" * 9000),
    ],
)
def test_a_hostile_continuation_in_single_characters_takes_bounded_time(
    partial: str, continuation: str, is_prefill: bool
) -> None:
    begun = time.process_time()
    join_pieces(partial, list(continuation), is_prefill=is_prefill)
    assert time.process_time() - begun < 60  # on any machine; quadratic work takes minutes
