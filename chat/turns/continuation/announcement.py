"""Recognise a first line that only announces a continuation, in English or Chinese. Pure.

"Here's the recipe:" may be text of an answer. Therefore the pattern matches only lines about
continuing.
"""

import re

MAX_LENGTH = 120
"""A longer line, in characters, is not an announcement."""

_MAX_INDENT = 8
"""White space before an announcement, in characters."""

_NOUN = (
    "(?:answer|response|reply|message|text|output|content|explanation|list|table|code|story|essay|"
    "article|poem|sentence|paragraph|section|part|point|thought|line)"
)
_THING = (
    "(?:(?:the|my|your|our|this|that) )?"
    f"(?:(?:previous|last|earlier|above|partial|unfinished|incomplete|interrupted) )?{_NOUN}"
)
_STOP = (
    f"(?:the (?:point|place|spot) )?where (?:i|we|you|it|{_THING}) (?:(?:had|have|was|were|got) )?"
    "(?:left (?:it )?off|stopped|broke off|cut off|ended|paused|interrupted)"
)
_PLACE = (
    "(?:(?:right|exactly|directly|precisely|immediately) )?(?:(?:on )?from )?"
    f"(?:(?:right|exactly|precisely) )?(?:{_STOP}|the (?:same|exact) {_NOUN}|{_THING}|there|here)"
)
_COURTESY = (
    "(?:(?:sure(?: thing)?|certainly|of course|absolutely|ok|okay|all right|alright|got it|yes|"
    "understood|no problem|sorry|apologies|my apologies|i apologise|i apologize)"
    "(?: (?:for|about) (?:the|that|my) (?:interruption|confusion|inconvenience|cutoff|cut-off))?"
    "[,.!:;]? *)*"
)
_CLAUSE = (
    # Any words may follow "continuation of": the line is still about continuing.
    "(?:(?:here(?:['’]s| is| are| comes) )?(?:the |my |your |a )?"
    "(?:(?:direct|exact|seamless) )?continuation(?: of [^:：.…!]+)?|"
    "here(?:['’]s| is| are| comes) (?:the |my |your )?"
    f"(?:rest(?: of {_THING})?|remainder(?: of {_THING})?|remaining {_NOUN}|continued {_NOUN})|"
    f"here(?:['’]s| is) (?:the )?{_STOP}|(?:from )?{_STOP}|"
    "(?:let me|allow me to|i(?:['’]ll| will| shall)|i(?:['’]m| am)(?: now)?(?: going to)?) "
    "(?:(?:just|now) )?(?:continue|continuing|resume|resuming|pick(?:ing)? up|carry(?:ing)? on)"
    f"(?: (?:with )?{_THING})?(?:,? {_PLACE})?|"
    "(?:now )?(?:continuing|continued|resuming|picking up|carrying on)"
    f"(?: (?:with |on )?{_THING})?(?:,? {_PLACE})?|"
    f"to (?:continue|resume|pick up)(?: {_THING})? {_PLACE})"
)
_ENGLISH = f"{_COURTESY}{_CLAUSE}(?:(?:[,;:.]| -| —)? (?:and )?{_CLAUSE})*"

_CHINESE_NOUN = "(?:内容|部分|回答|答案|回复|文字|文本|正文|代码|故事|文章|列表|表格)"
_BEFORE = "(?:上文|上面|前文|前面|之前|刚才|上次|上述|此前|以上)"
_WRITE = "(?:写|续写|回答|作答|输出|生成|完成)"
_CHINESE_COURTESY = (
    "(?:(?:好的?|当然(?:可以)?|没问题|可以|明白了?|收到|抱歉|对不起)[，,。.！!、；;：: ]*)"
)
_CHINESE_CLAUSE = (
    f"(?:(?:以下|下面|接下来|这里)(?:就?是|为|将是)(?:[我您你]的?)?(?:{_BEFORE}的?)?"
    f"(?:{_CHINESE_NOUN}的?)?(?:续写|续文|后续|剩余|剩下|余下|其余|接续|继续|延续)的?{_CHINESE_NOUN}?|"
    f"(?:那?我|让我|请允许我|下面|接下来|现在)[将会来就]?(?:为[您你])?(?:继续|接着|接续)"
    f"(?:{_BEFORE}的?{_CHINESE_NOUN}?(?:，?(?:继续|往下)?{_WRITE})?|"
    f"(?:往下)?{_WRITE}(?:下去|{_CHINESE_NOUN})?)|"
    f"(?:紧接|承接|接续|接着|继续|接|续)(?:着)?{_BEFORE}的?{_CHINESE_NOUN}?"
    f"(?:，?(?:继续|往下)?{_WRITE})?|"
    f"(?:我[将会来]?)?[从自](?:上次|刚才|之前|上文|前文)?的?(?:中断|断开|停下|停止|停顿)的?(?:处|地方|位置)"
    f"(?:开始)?，?继续{_WRITE}?)"
)
# "继续。" alone may be the rest of a sentence: "请按任意键继续。"
_CHINESE_WORD = f"(?:续写(?:如下|内容|部分)?|(?:继续|接着){_WRITE}?(?:如下)?)"

_COLON, _STOP_SIGN = "[:：]", "[:：.…。]+"
_OPEN, _CLOSE = r"[(（\[【*_#> ]*", r"[)）\]】*_ ]*"
_PATTERN = re.compile(
    f"{_OPEN}(?:(?:{_ENGLISH}|{_CHINESE_COURTESY}*{_CHINESE_CLAUSE}|"
    f"{_CHINESE_COURTESY}+{_CHINESE_WORD}){_CLOSE}{_STOP_SIGN}|{_CHINESE_WORD}{_CLOSE}{_COLON}|"
    r"[(（\[【](?:continued|continuing|接上文|续上文|续)[)）\]】])" + _CLOSE,
    re.IGNORECASE,
)
_WORDS = frozenset(re.findall("[a-z]+", _PATTERN.pattern))
_OTHERS = frozenset(_PATTERN.pattern) | frozenset("\r\t")


def measure_announcement(text: str, *, has_ended: bool) -> int | None:
    """Return the length of the announcement at the start of a continuation, including the line end.

    Returns 0 if there is none, and None if more text may complete one; more text does not change
    another result. The end of the response ends the line as well.
    """
    line = text.lstrip()
    indent = len(text) - len(line)
    line, line_end, _ = line[: MAX_LENGTH + 1].partition("\n")
    if indent > _MAX_INDENT or len(line) > MAX_LENGTH or not _may_begin_announcement(line):
        return 0
    if not line_end and not has_ended:
        return None
    return indent + len(line) + len(line_end) if _PATTERN.fullmatch(line.rstrip()) else 0


def _may_begin_announcement(line: str) -> bool:
    """Return whether a line consists of words of the pattern; true for each beginning of it."""
    if line[:1].islower():  # the middle of a sentence
        return False
    lowered = line.lower()
    words: list[str] = re.findall("[a-z]+", lowered)
    if "continuation" in words[:-1]:
        return True
    last = words.pop() if words else ""
    return (
        _WORDS.issuperset(words)
        and any(word.startswith(last) for word in _WORDS)
        and _OTHERS.issuperset(re.sub("[a-z]", "", lowered))
    )
