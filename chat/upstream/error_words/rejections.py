"""Recognise why an upstream rejected a request, by its words. Pure.

No error code is common to all servers, so the wording decides. The comments name servers that use
a wording; tests/chat/upstream/error_words/context_limits.txt has the wordings.
"""

import re
from dataclasses import dataclass

from chat.upstream.error_words.body import walk
from chat.upstream.error_words.message import find_evidence, find_message

_MIN_WINDOW, _MAX_WINDOW = 64, 100_000_000

_N = r"(?P<n>\d{1,3}(?:[,_'’ ]\d{3})+(?!\d)|\d{1,12})(?P<k> ?k\b)?"
_NEAR = r"[^.\n]{0,80}"
_GAP = r"(?:(?!exceed)[^\d.;!?\n]){0,30}?"


@dataclass(frozen=True)
class ContextLimit:
    """The limit that a rejected request exceeded, in tokens; None if the upstream did not state it.

    `window` is the model's limit; `requested` counts the prompt, or the prompt and the answer.
    """

    window: int | None = None
    requested: int | None = None


_CONTEXT_CODE = re.compile(
    r"context.?(?:length|window|size)\w*.?exceed|exceeds?.?context|context.?overflow"
    r"|(?:prompt|input).?too.?long|tokens_limit_reached",
    re.IGNORECASE,
)
_CONTEXT = r"context[ _-]?(?:length|window|size|limit)"
_EXCESS = (
    r"(?:exceed|too (?:long|large|big|many)|longer|larger than|greater than|overflow|not enough"
    r"|reach|fit)"
)
_REQUEST = r"\b(?:prompt|inputs?|messages?|request|sequence|total)\b"
_CONTEXT_PATTERNS = (
    # OpenAI, Azure, vLLM, SGLang, llama-server, DeepSeek, OpenRouter, MiniMax, LM Studio
    rf"{_CONTEXT}[^\n]{{0,200}}?(?:{_EXCESS}|however|but |reduce|only|you req)",
    rf"{_EXCESS}[^\n]{{0,200}}?(?:{_CONTEXT}|n_ctx)",
    rf"\b(?:but|only)\b[^\n]{{0,60}}?{_CONTEXT}",
    "context (?:the )?overflow",
    # Groq, Cerebras
    r"reduce the length of (?:the |your )?(?:messages|prompt|input)",
    # Anthropic, Fireworks, Bedrock, Ollama
    r"\b(?:prompt|inputs?|conversation|messages)(?: tokens?)?(?: is| are)? too (?:long|large)",
    # xAI, vLLM, SGLang, TensorRT-LLM
    r"max(?:imum)?[ _](?:context|prompt|model|input|allowed|sequence)[ _]len",
    # TGI
    r"\binputs\b.{0,5} (?:tokens \+|must have less than)",
    # Gemini, Cohere, Copilot, Doubao, Kimi
    rf"{_REQUEST}{_NEAR}(?<!max_)(?<!completion_)tokens?{_NEAR}(?:{_EXCESS}| > )",
    rf"exceed{_NEAR}(?:model token limit|max(?:imum)? (?:message|input|prompt) tokens)",
    rf"exceed{_NEAR}tokens?{_NEAR}{_REQUEST}",
    r"too many tokens|token limit exceeded|max size: \d+ tokens",
    # DashScope
    "range of input length should be",
    # Zhipu, Baidu, iFlytek, Moonshot
    "(?:prompt|输入|上下文|文本|长度|tokens?|消息|对话)[^\n]{0,20}(?:超[长过出限]|过[长大]|太长)",
    "超[过出][^\n]{0,20}(?:上下文|最大长度|长度限制|最大输入|输入长度|token ?上限)",
)
_CONTEXT_WORDS = re.compile("|".join(_CONTEXT_PATTERNS), re.IGNORECASE)
_COMPARISON = re.compile(
    r"(?:prompt|input|request|message|conversation|sequence|max_(?:seq|model)_len)[^\n]{0,60}?"
    r"\d[\d,_]{2,12}[^\n]{0,80}?(?:exceed|greater|longer|larger|more than|less than|>|/|limit|max"
    r"|at most|only|supports|context)[^\n]{0,40}?\d{3}"
    r"|(?:limit|max|at most|only|supports)[^\n]{0,30}?\d{3}[^\n]{0,60}?"
    r"(?:prompt|input|request)[^\n]{0,40}?\d{3}",
    re.IGNORECASE,
)
"""A size of the request next to a limit, in a wording that the list above does not contain."""
_MEASURE = re.compile(r"token|context|_len\b", re.IGNORECASE)
_OTHER_MEASURE = re.compile(
    r"\b(?:bytes|char(?:acter)?s?|[kmg]i?b|seconds|images?|pixels|max_?output_?tokens)\b"
    r"|\A(?!.*(?:prompt|input)).*max_(?:completion_|new_)?tokens",
    re.IGNORECASE | re.DOTALL,
)
_RATE_WORDS = re.compile(
    r"tokens? per|requests? per|per[- ]minute|\b(?:tpm|tpd|tph|rpm|rpd)\b|rate.?limit|throttl|quota"
    r"|please wait|try again (?:later|in \d)|频率|速率|并发|每分钟|每天|余额|额度|限流"
    r"|\b(?:daily|monthly|weekly|credits?|billing)\b",
    re.IGNORECASE,
)
_OUTPUT_WORDS = re.compile(
    r"at most \d+ completion tokens|number of output tokens|maximum output|output token limit"
    r"|must be (?:greater|larger|more|at least|positive)|\d ?[kmg]i?b\b",
    re.IGNORECASE,
)

_PART = r"(\d[\d,_]{0,15})"
_SUM_LIMIT = re.compile(rf"(\d{{1,12}}) ?\+ ?(\d{{1,12}}) ?(?:>|<=) ?{_N}")
"""Anthropic: `199759 + 8192 > 200000`."""
_DIFFERENCE_LIMIT = re.compile(rf"(\d{{1,12}}) ?> ?{_N} ?- ?(\d{{1,12}})")
"""vLLM: `8192 > 4096 - 1000`."""
_PLAIN_LIMIT = re.compile(rf"(\d[\d,_]{{0,15}})(?: tokens?)? ?(?:>|/) ?{_N}")
_SUM = re.compile(
    rf"(?:passed|has|given:?|contains) {_PART} `?(?:inputs?|prompt)`? tokens?,? "
    rf"(?:and requested|plus|and) {_PART}"
    rf"|requested {_PART} output tokens and your prompt contains(?: at least)? {_PART}",
    re.IGNORECASE,
)
"""vLLM and TGI count the prompt and the answer separately."""
_SIZE = r"(?:length|len|tokens?|size)\b"
_COUNT = re.compile(rf"(?<!\d){_N} tokens", re.IGNORECASE)
_LIMIT = (
    r"(?:<=|less than(?: or equal to)?|at most|up to|exceeds?|limit(?: is| of|:)?"
    r"|max(?:imum)?(?: context)?(?: is| of|:)?|limited to|supports?|more than)"
)
_REQUESTED = (
    r"\b(?:requested|resulted in|contains|has|have|passed|sent|received|given|got|provided|current)"
)
_WINDOWS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"context[ _-]?(?:length|window|size|limit)(?! by\b){_GAP}{_N}",
        rf"{_N}(?:[ -]tokens?)? (?:max(?:imum)?|limit|context)",
        rf"(?!max_(?:new_)?tokens)max(?:imum)?[ _](?:[a-z]+[ _]){{0,3}}?{_SIZE}(?! by\b){_GAP}{_N}",
        rf"{_LIMIT}(?: the)?(?: configured| maximum| only)?(?: limit of)? ?\(?{_N}(?!\d| ?\))",
        rf"\[ ?\d+ ?, ?{_N} ?\]",
        rf"(?:最大|上限|限制|上下文|不能超过|不超过|超过|超出)[^\d。\n]{{0,15}}?{_N}",
    )
)
_REQUESTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"total of (?:at least )?{_N}",
        rf"{_REQUESTED}[^\d.;\n]{{0,25}}?{_N}",
        rf"\b(?:prompt|inputs?|request|sequence|messages?|first)\b[^\d.;\n]{{0,30}}?{_N}",
        rf"(?:输入|当前|实际|请求)[^\d。\n]{{0,15}}?{_N}",
    )
)

_UNKNOWN_FIELD = re.compile(
    r"stream_options|streamoptions|include_usage"
    r"|extra (?:inputs?|fields?)(?: are| is)? not (?:permitted|allowed)|extra_forbidden"
    r"|(?:un(?:recogni[sz]ed|known|expected|supported)|extraneous)[ _](?:\w+[ _]){0,2}?"
    r"(?:arguments?|fields?|parameters?|params?|property|properties|option)\b"
    r"|(?:unrecogni[sz]ed|unknown|unexpected|extraneous) (?:key|name)\b"
    r"|cannot find field|additional ?properties"
    r"|\b(?:parameter|field|argument|option|property)\b[^.\n]{0,60}"
    r"not (?:supported|allowed|permitted|recogni[sz]ed)"
    r"|[`'\"][a-z]+(?:_[a-z]+)+[`'\"][^.\n]{0,30}(?:not supported|unsupported|not allowed)"
    r"|(?:未知|非法|不支持的?|无法识别的?)(?:请求)?(?:参数|字段)|(?:参数|字段)[^\n]{0,20}不支持",
    re.IGNORECASE,
)
_LOADING = re.compile(
    r"\bloading (?:the )?model\b|\bmodel\b[^\n]{0,100}\b(?:is|still|currently|being)\b[^.\n]{0,20}"
    r"\b(?:loading|being loaded|starting up|warming up)\b|模型[^。\n]{0,10}加载中|正在加载",
    re.IGNORECASE,
)
_FAILED_LOADING = re.compile(
    r"(?:error|fail\w*|unable|could not|while)[^.:\n]{0,20}load", re.IGNORECASE
)


def find_context_limit(body: object) -> ContextLimit | None:
    """Return the limit if the upstream rejected the context length, else None.

    A rate limit in tokens, or a limit of `max_tokens` alone, is another reason.
    """
    words, codes = find_evidence(body)
    is_other = _RATE_WORDS.search(words) or _OUTPUT_WORDS.search(words)
    if not _CONTEXT_CODE.search(codes) and (is_other or not _describes_context(words)):
        return None
    stated = {key: value for key, value in walk(body) if type(value) is int and value > 0}
    window = stated.get("nctx") or _find_window(words)
    requested = stated.get("nprompttokens") or _find_requested(words, window or 0)
    if window is not None and not _MIN_WINDOW <= window <= _MAX_WINDOW:
        window = None
    if requested is not None and not (window or _MIN_WINDOW) <= requested <= _MAX_WINDOW:
        requested = None
    return ContextLimit(window, requested)


def rejects_unknown_field(body: object) -> bool:
    """Return whether an upstream rejected a request because of an unknown field."""
    words, codes = find_evidence(body)
    return bool(_UNKNOWN_FIELD.search(f"{words}\n{codes}"))


def names_field(body: object, field: str) -> bool:
    """Return whether a rejection names a field of the request."""
    words, codes = find_evidence(body)
    return bool(re.search(rf"(?<!\w){re.escape(field)}(?!\w)", f"{words}\n{codes}"))


def reports_loading(body: object) -> bool:
    """Return whether an upstream is still loading the model (llama-server, LM Studio, TGI)."""
    words = find_message(body)
    return bool(_LOADING.search(words)) and not _FAILED_LOADING.search(words)


def _describes_context(words: str) -> bool:
    if _CONTEXT_WORDS.search(words):
        return True
    is_measured = _MEASURE.search(words) and not _OTHER_MEASURE.search(words)
    return bool(is_measured and _COMPARISON.search(words))


def _find_window(words: str) -> int | None:
    for pattern in (_SUM_LIMIT, _DIFFERENCE_LIMIT, _PLAIN_LIMIT, *_WINDOWS):
        if match := pattern.search(words):
            return _read_number(match)
    return None


def _find_requested(words: str, window: int) -> int | None:
    """Return the stated size of the request, which is more than the window."""
    if match := _SUM_LIMIT.search(words):
        return _add(match[1], match[2])
    if match := _DIFFERENCE_LIMIT.search(words):
        return _add(match[1], match[4])
    if match := _PLAIN_LIMIT.search(words):
        return _add(match[1])
    if "total of" not in words and (match := _SUM.search(words)):
        return _add(*(part for part in match.groups() if part))
    for pattern in _REQUESTS:
        for match in pattern.finditer(words):
            number = _read_number(match)
            if number > window:
                return number
    counts = [_read_number(match) for match in _COUNT.finditer(words)]
    return next((count for count in counts if count > window), None) if window else None


def _read_number(match: re.Match[str]) -> int:
    return _add(match["n"]) * (1000 if match["k"] else 1)


def _add(*numbers: str) -> int:
    return sum(int(re.sub(r"\D", "", number)) for number in numbers)
