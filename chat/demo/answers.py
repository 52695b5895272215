"""Choose the demo model's answer by the keywords of the question. Pure.

The same messages always give the same answer. To continue a partial answer, the demo composes the
full answer again and returns the part that is missing.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from chat.demo import chinese, english

MAX_QUOTE_CHARS = 100
"""Maximum length of a quoted question."""

TOPICS = {
    "recall": (
        r"\bwhat (did|have|had) i\b.{0,20}\bask|\bquestions?\b.{0,20}\bi\b.{0,6}\basked"
        r"|\bmy (earlier|previous|first|last) questions?\b"
        r"|我.{0,6}问(过|了)些?(什么|哪些|啥|几个)|我(之前|刚才|刚刚|前面).{0,2}问"
    ),
    "setup": r"\breal (model|answer)|\bapi.?key|\bopenai|\bollama|base.?url|真实的?模型|接入|密钥",
    "tcp": r"\btcp\b|\b(lost packet|packet loss)\b|丢包|数据包",
    "code": r"\bcode\b|python|\bfunction\b|\bprogram\b|\bscript\b|代码|函数|编程|程序",
    "table": r"\btables?\b|\bcompar|\bversus\b|\bvs\b|表格|比较|对比|区别",
    "how": (
        r"\bhow (does|do) (it|this|that|you|holdline)\b.{0,20}\b(work|keep|store|save|survive)"
        r"|\bholdline\b|\bdurab|\bstream(s|ed|ing)?\b|\breload|\breconnect"
        r"|(怎么|如何|怎样)工作|工作原理|刷新|断线|断网|持久|流式"
    ),
    "long": (
        r"(?<!how )\blong(er)?\b|\bessay\b"
        r"|(?<![校成增船市部队家班])长(?![城江安春沙期辈大])"
    ),
    "hello": (
        r"\b(hello|hi|hey|good (morning|afternoon|evening))\b"
        r"|你好|您好|大家好|早上好|晚上好|哈喽"
    ),
}
"""The keywords of each topic, in both languages; the first match wins."""

CONTINUE_REQUEST = re.compile(
    r"\b(go on|continue|carry on|keep going|resume|pick up|left off|broke off|cut off"
    r"|stopped|the rest|finish)\b"
    r"|继续|接着|说完",
    re.IGNORECASE,
)

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff\uf900-\ufaff]+")
_TOKEN = re.compile(r"\s*(?:[\u3400-\u9fff]{1,2}|[^\s\u3400-\u9fff]{1,12})|\s+")


class ChatMessage(NamedTuple):
    """One message of the request."""

    role: str
    text: str


class Language(Protocol):
    """The texts of one language: the modules `english` and `chinese`."""

    QUOTED: str
    EARLIER: str
    EARLIER_MORE: str
    SYSTEM: str
    REASONING: str
    NOTE: str
    RECALL: str
    RECALL_NONE: str
    COUNTED: tuple[str, str]
    ANSWERS: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer, or the missing part of one if `is_continuation`."""

    text: str
    reasoning: str
    is_continuation: bool = False


def reply_to(messages: Iterable[ChatMessage]) -> Reply:
    """Answer the last question, or continue a partial answer to it."""
    questions, partial, has_system = _read_history(messages)
    answer = _compose(questions, has_system)
    rest = _find_rest(answer, partial)
    if rest is None:
        return Reply(answer, _compose_reasoning(questions[-1]))
    if partial:
        return Reply(rest, "", is_continuation=True)
    return Reply(rest, _compose_reasoning(questions[-1]))


def split_tokens(text: str) -> list[str]:
    """Split a text into tokens: a word with the space before it, or 1 or 2 Chinese characters."""
    return _TOKEN.findall(text)


def quote(text: str, language: Language = english) -> str:
    """Return a user's text as one short line of Markdown that renders as plain text."""
    line = " ".join("".join(character for character in text if _is_visible(character)).split())
    if len(line) > MAX_QUOTE_CHARS:
        line = line[: MAX_QUOTE_CHARS - 1].rstrip() + "…"
    line = re.sub(r"[\\`*_\[\]<>&|~@]", r"\\\g<0>", line)
    # Without this, http://… and www.… would render as links.
    line = re.sub(r"(?i)(www)\.", r"\1\\.", line.replace("://", "\\://"))
    return language.QUOTED.format(line)


def is_chinese(text: str) -> bool:
    """Return whether a text has at least as many Chinese characters as words of other scripts."""
    han = len(_HAN.findall(text))
    return han > 0 and han >= len(_WORD.findall(text)) and not _KANA.search(text)


def _read_history(messages: Iterable[ChatMessage]) -> tuple[list[str], str, bool]:
    """Return the questions, the partial answer to the last one, and if a system message is set.

    A request to continue a partial answer is not a question.
    """
    questions: list[str] = []
    partial, has_system = "", False
    for role, text in messages:
        if role in ("system", "developer"):
            has_system = True
        elif role == "assistant":
            partial += text
        elif role == "user" and not (
            partial
            and CONTINUE_REQUEST.search(text)
            and _is_unfinished(questions, partial, has_system)
        ):
            questions.append(text)
            partial = ""
    return questions or [""], partial, has_system


def _is_unfinished(questions: Sequence[str], partial: str, has_system: bool) -> bool:
    return bool(questions and _find_rest(_compose(questions, has_system), partial))


def _find_rest(answer: str, partial: str) -> str | None:
    """Return the part of `answer` after `partial`; None if `partial` is of another answer.

    If the client has shortened the history, the answer begins differently ("Earlier you asked").
    Then the end of `partial` is enough, if it occurs only once in the answer.
    """
    if answer.startswith(partial):
        return answer[len(partial) :]
    for size in (200, 100, 50, 25):
        tail = partial[-size:]
        if len(tail) == size and answer.count(tail) == 1:
            return answer.partition(tail)[2]
    return None


def _compose(questions: Sequence[str], has_system: bool) -> str:
    *earlier, question = questions
    language = _detect_language(question)
    topic = _detect_topic(question)
    if topic == "recall":
        parts = [_list_questions(earlier, language)]
    else:
        answer = language.ANSWERS[topic].replace("{question}", quote(question, language))
        parts = [_mention_last(earlier, language), answer]
    if topic == "default":
        parts.append(language.ANSWERS["setup"])
    parts.append(language.SYSTEM if has_system else "")
    parts.append("" if topic in ("setup", "default") else language.NOTE)
    return "\n\n".join(part for part in parts if part)


def _mention_last(earlier: Sequence[str], language: Language) -> str:
    """Quote the question before this one."""
    if not earlier:
        return ""
    last = quote(earlier[-1], language)
    if len(earlier) == 1:
        return language.EARLIER.format(question=last)
    return language.EARLIER_MORE.format(
        question=last, count=_format_count(len(earlier) - 1, language)
    )


def _list_questions(earlier: Sequence[str], language: Language) -> str:
    if not earlier:
        return language.RECALL_NONE
    lines = (f"{number}. {quote(question, language)}" for number, question in enumerate(earlier, 1))
    return language.RECALL.format(
        count=_format_count(len(earlier), language), questions="\n".join(lines)
    )


def _format_count(number: int, language: Language) -> str:
    one, many = language.COUNTED
    return one if number == 1 else many.format(number)


def _compose_reasoning(question: str) -> str:
    reasoning = _detect_language(question).REASONING
    return reasoning.format(length=len(question), topic=_detect_topic(question))


def _detect_topic(question: str) -> str:
    matches = (
        topic for topic, pattern in TOPICS.items() if re.search(pattern, question, re.IGNORECASE)
    )
    return next(matches, "default")


def _detect_language(question: str) -> Language:
    return chinese if is_chinese(question) else english


def _is_visible(character: str) -> bool:
    """Return False for controls and marks of text direction; joiners of emoji and scripts stay."""
    return (
        unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        or character in "\t\n\r\u200c\u200d"
    )
