"""What the demo model answers: picks an answer by keywords and knows the questions before it. Pure.

The same messages always give the same answer. That is how it can go on exactly where an answer stopped: it
composes the whole again and leaves out what has been said.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from chat.demo import chinese, english

QUOTE_MAX = 100
"""Longest quotation of a question, in characters."""

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
        r"\bhow (does|do) (it|this|that|you|holdline)\b.{0,20}\b(work|keep|store|save|survive)|\bholdline\b"
        r"|\bdurab|\bstream(s|ed|ing)?\b|\breload|\breconnect"
        r"|(怎么|如何|怎样)工作|工作原理|刷新|断线|断网|持久|流式"
    ),
    "long": (
        r"(?<!how )\blong(er)?\b|\bessay\b"
        r"|(?<![校成增船市部队家班])长(?![城江安春沙期辈大])"
    ),
    "hello": r"\b(hello|hi|hey|good (morning|afternoon|evening))\b|你好|您好|大家好|早上好|晚上好|哈喽",
}
"""What asks for each topic, in both languages; the first that matches is it."""

GO_ON = re.compile(
    r"\b(go on|continue|carry on|keep going|resume|pick up|left off|broke off|cut off|stopped|the rest"
    r"|finish)\b"
    r"|继续|接着|说完",
    re.IGNORECASE,
)

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff\uf900-\ufaff]+")
_TOKEN = re.compile(r"\s*(?:[\u3400-\u9fff]{1,2}|[^\s\u3400-\u9fff]{1,12})|\s+")


class Said(NamedTuple):
    """One message of the request."""

    role: str
    text: str


class Language(Protocol):
    """The words of one language: `english` and `chinese`."""

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
    """What is still to be said; `continued` when the beginning of it was said before."""

    text: str
    reasoning: str
    continued: bool = False


def reply_to(messages: Iterable[Said]) -> Reply:
    """The answer to the last question, or the rest of it when asked to go on."""
    questions, said, has_system = _read(messages)
    full = _compose(questions, has_system)
    rest = _remaining(full, said)
    continued = bool(said) and rest is not None
    return Reply(
        full if rest is None else rest, "" if continued else _reason(questions[-1]), continued
    )


def tokens(text: str) -> list[str]:
    """Cut a text into tokens: a word with the space before it, or one or two Chinese characters."""
    return _TOKEN.findall(text)


def quote(text: str, language: Language = english) -> str:
    """A person's text as one short line of Markdown that shows as what it is."""
    line = " ".join("".join(character for character in text if _is_shown(character)).split())
    if len(line) > QUOTE_MAX:
        line = line[: QUOTE_MAX - 1].rstrip() + "…"
    line = re.sub(r"[\\`*_\[\]<>&|~@]", r"\\\g<0>", line)
    # Neither http://… nor www.… may become a link of its own accord.
    line = re.sub(r"(?i)(www)\.", r"\1\\.", line.replace("://", "\\://"))
    return language.QUOTED.format(line)


def is_chinese(text: str) -> bool:
    """Whether a text is mostly Chinese: at least as many characters of it as other words."""
    han = len(_HAN.findall(text))
    return han > 0 and han >= len(_WORD.findall(text)) and not _KANA.search(text)


def _read(messages: Iterable[Said]) -> tuple[list[str], str, bool]:
    """The questions, what of the last one's answer has been said, and whether there is a system message."""
    questions: list[str] = []
    said, has_system = "", False
    for role, text in messages:
        if role in ("system", "developer"):
            has_system = True
        elif role == "assistant":
            said += text
        elif role == "user" and not (
            said and GO_ON.search(text) and _is_cut(questions, said, has_system)
        ):
            questions.append(text)
            said = ""
    return questions or [""], said, has_system


def _is_cut(questions: Sequence[str], said: str, has_system: bool) -> bool:
    return bool(questions and _remaining(_compose(questions, has_system), said))


def _remaining(full: str, said: str) -> str | None:
    """What follows `said` in the full answer; None when it is from another answer.

    A history that was shortened on the way gives an answer that begins differently ("Earlier you
    asked"), so the end of what was said counts too, where it stands in one place only.
    """
    if full.startswith(said):
        return full[len(said) :]
    for size in (200, 100, 50, 25):
        tail = said[-size:]
        if len(tail) == size and full.count(tail) == 1:
            return full.partition(tail)[2]
    return None


def _compose(questions: Sequence[str], has_system: bool) -> str:
    *earlier, question = questions
    language = _language(question)
    topic = _topic(question)
    if topic == "recall":
        parts = [_recall(earlier, language)]
    else:
        answer = language.ANSWERS[topic].replace("{question}", quote(question, language))
        parts = [_mention(earlier, language), answer]
    if topic == "default":
        parts.append(language.ANSWERS["setup"])
    parts.append(language.SYSTEM if has_system else "")
    parts.append("" if topic in ("setup", "default") else language.NOTE)
    return "\n\n".join(part for part in parts if part)


def _mention(earlier: Sequence[str], language: Language) -> str:
    """Name the question before this one."""
    if not earlier:
        return ""
    last = quote(earlier[-1], language)
    if len(earlier) == 1:
        return language.EARLIER.format(question=last)
    return language.EARLIER_MORE.format(question=last, count=_count(len(earlier) - 1, language))


def _recall(earlier: Sequence[str], language: Language) -> str:
    if not earlier:
        return language.RECALL_NONE
    lines = (f"{number}. {quote(question, language)}" for number, question in enumerate(earlier, 1))
    return language.RECALL.format(count=_count(len(earlier), language), questions="\n".join(lines))


def _count(number: int, language: Language) -> str:
    one, many = language.COUNTED
    return one if number == 1 else many.format(number)


def _reason(question: str) -> str:
    return _language(question).REASONING.format(length=len(question), topic=_topic(question))


def _topic(question: str) -> str:
    found = (
        topic for topic, pattern in TOPICS.items() if re.search(pattern, question, re.IGNORECASE)
    )
    return next(found, "default")


def _language(question: str) -> Language:
    return chinese if is_chinese(question) else english


def _is_shown(character: str) -> bool:
    """Not a control or a mark that turns the direction of the line; the joiners of emoji and scripts are."""
    return (
        unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        or character in "\t\n\r\u200c\u200d"
    )
