"""Announcements of a continuation are recognised; lines that may be text of an answer are not."""

import time

import pytest

from chat.turns.continuation.announcement import MAX_LENGTH, measure_announcement

ANNOUNCEMENTS = """\
Here's the continuation:
Here’s the rest:
Here is the rest of the answer:
Here is the continuation of the Python script:
Here's the remaining part:
Here's the continued answer:
Sure, here is the rest:
Sure! Here's the rest of the story:
Sure thing! Here is the remainder of your article:
Certainly! Here is the continuation of your previous response:
Of course! Continuing the story from where it broke off…
Okay, continuing from the last sentence:
I apologize for the interruption. Let me continue from where I left off:
Continuing from where I left off:
Continuing from where the previous response was cut off:
Continuing from there, here is the rest of the list:
Picking up where I left off:
Resuming where I left off:
Continuing...
Continued:
(continued)
**Continuation:**
Let me continue:
I will continue the answer from where it stopped:
I'll continue exactly where I stopped.
To continue from where we left off:
好的，以下是续写：
好的，以下是剩余的内容：
以下是上文的续写：
以下为后续回答：
下面是剩下的代码：
当然，以下是后续内容：
接上文：
（接上文）
接着上文继续写：
继续上文：
继续：
好的，继续。
好的，我继续写：
好的，下面继续回答：
从中断处继续：
好的，我将从上次中断的地方继续：
续写如下：""".splitlines()

TEXTS = """\
Here's the recipe:
Here is the list:
Here is the answer:
Here's the thing:
Yes, here is the code:
Sure:
Let's continue.
To be continued...
To continue, run:
The rest of the ingredients:
The story continues:
continuing...
continued:
Continue:
继续。
继续说：
他继续写道：
请继续：
以下是步骤：
下面是代码：
好的：
接下来：
后续：
我接着说：""".splitlines()


@pytest.mark.parametrize("line", ANNOUNCEMENTS)
def test_an_announcement_is_recognised_when_its_line_is_complete(line: str) -> None:
    assert measure_announcement(f"{line}\nText", has_ended=False) == len(line) + 1
    assert measure_announcement(f"\n{line} \r\n\nText", has_ended=False) == len(line) + 4
    assert measure_announcement(line, has_ended=True) == len(line)
    for size in range(len(line) + 1):
        assert measure_announcement(line[:size], has_ended=False) is None


@pytest.mark.parametrize("line", TEXTS)
def test_a_line_that_may_be_text_of_an_answer_is_not_an_announcement(line: str) -> None:
    assert measure_announcement(f"{line}\nText", has_ended=False) == 0


@pytest.mark.parametrize("line", ANNOUNCEMENTS)
def test_an_announcement_within_a_line_is_not_removed(line: str) -> None:
    assert measure_announcement(f"{line} text\n", has_ended=False) == 0


@pytest.mark.parametrize(
    "text", ["The fox jumps", " dog", "er the", "我们看到", "12", "```", "Continuing the war"]
)
def test_other_text_is_not_held_back_until_the_line_ends(text: str) -> None:
    assert measure_announcement(text, has_ended=False) == 0


def test_a_long_line_or_long_white_space_is_not_an_announcement() -> None:
    line = "Here is the continuation of a" + " long" * 20 + ":"
    assert len(line) > MAX_LENGTH
    assert measure_announcement(f"{line}\n", has_ended=False) == 0
    assert measure_announcement("\n" * 20, has_ended=False) == 0


@pytest.mark.parametrize(
    "part", ["sure ", "continuing ", "the continuation of ", "from the answer ", "继续", "好的，"]
)
def test_a_line_of_repeated_words_is_checked_in_bounded_time(part: str) -> None:
    line = (part * MAX_LENGTH)[: MAX_LENGTH - 1].capitalize()
    begun = time.process_time()
    assert measure_announcement(f"{line}?\n", has_ended=False) == 0
    assert time.process_time() - begun < 20  # on any machine; quadratic work takes minutes
