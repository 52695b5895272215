"""The messages sent upstream: within the token budget, newest first, roles alternating."""

from hypothesis import given
from hypothesis import strategies as st

from chat.turns.context.prompt import Estimator, estimate_size, fit_to_budget
from chat.upstream.request import ChatMessage

bodies = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=200)}
    ),
    min_size=1,
    max_size=20,
)


@given(bodies, st.integers(10, 400), st.text(max_size=30))
def test_the_prompt_fits_the_budget_and_alternates_between_user_and_assistant(
    history: list[dict[str, str]], budget: int, system: str
) -> None:
    estimator = Estimator()
    newest_first = [{"role": "user", "content": "the question"}, *history]
    sent = fit_to_budget(estimator, "m", budget, system, newest_first)
    messages = sent[1:] if system else sent
    if system:
        assert sent[0] == {"role": "system", "content": system}
    assert messages[-1]["content"].endswith("the question")
    assert messages[0]["role"] == "user"
    assert [m["role"] for m in messages] == (["user", "assistant"] * len(messages))[: len(messages)]
    size = sum(estimator.estimate("m", message["content"]) for message in sent)
    assert size <= budget or len(messages) == 1


def test_the_prompt_keeps_the_newest_messages_in_chronological_order() -> None:
    newest_first = [
        {"role": role, "content": f"{role} {number}"}
        for number in range(9, 0, -1)
        for role in (["user"] if number == 9 else ["assistant", "user"])
    ]
    sent = fit_to_budget(Estimator(), "m", 40, "", newest_first)
    assert [m["content"] for m in sent] == [
        "user 7",
        "assistant 7",
        "user 8",
        "assistant 8",
        "user 9",
    ]


def test_a_repeated_question_is_sent_once_and_unanswered_questions_are_joined() -> None:
    newest_first = [{"role": "user", "content": text} for text in ("b", "b", "a")]
    assert fit_to_budget(Estimator(), "m", 100, "", newest_first) == [
        {"role": "user", "content": "a\n\nb"}
    ]


def test_a_chinese_character_counts_for_more_tokens_than_a_latin_letter() -> None:
    estimator = Estimator()
    assert estimator.estimate("m", "word" * 10) == 14
    assert estimator.estimate("m", "汉" * 10) == 14


def test_the_token_estimate_is_calibrated_for_each_model_separately() -> None:
    estimator = Estimator()
    long: list[ChatMessage] = [{"role": "user", "content": "x" * 40_000}]
    for _ in range(6):
        estimator.calibrate("dense", estimate_size(long), 20_008)
    assert (
        1.9
        < estimator.estimate("dense", "x" * 4000) / estimator.estimate("other", "x" * 4000)
        < 2.1
    )


@given(st.lists(st.tuples(st.text(max_size=50), st.integers(-5, 10**9)), max_size=20))
def test_implausible_token_reports_change_the_estimate_at_most_fourfold(
    reports: list[tuple[str, int]],
) -> None:
    estimator = Estimator()
    for content, reported in reports:
        estimator.calibrate("m", estimate_size([{"role": "user", "content": content}]), reported)
    assert 0.25 <= estimator.estimate("m", "x" * 400) / Estimator().estimate("m", "x" * 400) <= 4
