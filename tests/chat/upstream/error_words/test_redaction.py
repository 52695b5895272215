"""Words that are shown contain no key and no address, and ordinary prose is kept."""

import re
import timeit
from functools import partial

import pytest

from chat.upstream.error_words import redaction, sanitise
from tests.conftest import KEY

SECRETS = [
    KEY,
    KEY.upper(),
    KEY[:-5],
    "sk-proj-abcDEF",
    "sk-or-v1-0123456789abcdef",
    "sk-abcd********wxyz",
    "my-own-********y123",
    "Bearer opaque-token",
    "bearer dGhpcyBpcyBh",
    "Basic dXNlcjpwYXNz",
    "key-abcdef123456",
    "AIzaSyA1234567890abcdefghijk",
    "gsk_abcdefghijkl",
    "hf_abcdefghijkl",
    "xai-abcdefghijkl",
    "nvapi-abcdefghijkl",
    "github_pat_11ABCDEFG",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef.AbCdEfGh12345678",
    "https://user:hunter2@proxy.corp:3128/v1",
    "user:hunter2@proxy.corp:3128",
    "http://10.0.0.7:8000/v1/chat/completions?api-key=x",
    "wss://example.org/x",
    "www.example.org/x",
    "10.0.0.7",
    "10.0.0.7:11434",
    "[::1]:8000",
    "[fe80::1%eth0]:80",
    "2001:db8::ff00:42:8329",
    "::1",
    "localhost:11434",
    "vllm:8000",
    "my_vllm-1:8000",
    "model.internal:443",
    "api.openai.com",
    "llm.prod.svc.cluster.local",
    "ops@example.org",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("text", ["{}", "Error from {}: no", "('{}')", "See {}.", "在{}，失败"])
def test_a_key_or_address_is_replaced(secret: str, text: str) -> None:
    assert sanitise(text.format(secret), KEY) in (text.format("…"), "")


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: {}. You can find it in your account.",
        'api_key="{}"',
        "token={}",
        "password: {}",
    ],
)
def test_an_unknown_form_of_a_key_is_recognised_by_its_label(text: str) -> None:
    assert "abc123DEF456" not in sanitise(text.format("abc123DEF456"), KEY)


ADDRESSES = [
    ("http://gpu-7:8000/v1", "gpu-7 is down; see (gpu-7)", "… is down; see (…)"),
    ("http://gpu7.lab:80/v1", "GPU7 failed", "… failed"),
    ("http://ollama:11434/v1", "dial tcp: lookup ollama on", "dial tcp: lookup … on"),
    ("http://ollama:11434/v1", "(host='ollama', port=11434)", "(host='…', port=…)"),
    ("http://ollama:11434/v1", "ollama has no model x", "ollama has no model x"),
    ("http://model/v1", "The model could not connect to model", "The model could not connect to …"),
    ("http://127.0.0.1/tenant-4711/v1", "tenant-4711 is unknown in v1", "… is unknown in v1"),
    ("http://10.1.2.3:8000/v1", "10.1.2.3 port 8000: refused", "… port …: refused"),
    ("http://[2001:db8::7]:80/v1", "no route to 2001:db8::7", "no route to …"),
    ("not a URL", "words are kept", "words are kept"),
]


@pytest.mark.parametrize(("base_url", "text", "shown"), ADDRESSES)
def test_every_part_of_the_upstreams_address_is_replaced(
    base_url: str, text: str, shown: str
) -> None:
    assert sanitise(text, KEY, base_url) == shown


PROSE = [
    "The model gpt-4.1 (2025-04-14) does not exist, use claude-3-5-sonnet-20241022.",
    "Rate limit reached, try again in 15 s",
    "Please try again in 1m30.5s. Limit: 30000, Used: 29000, Requested: 1,500",
    "The service opens at 10:30, and again at 10:30:15 on 2024-01-01T10:30:00Z",
    "A ratio of 3:1; the aspect is 16:9",
    "limit:8192 max_tokens:4096 code:50001 status:404",
    "Model meta-llama/Llama-3.1-405B-Instruct-FP8 is not available for llama3.2:1b",
    "Version 1.2.3 of vLLM 0.9.1 with CUDA 12.8",
    "Basic authentication is required, or a Bearer token",
    "A key-value store, a risk-free task, a monkey-patch",
    "You need an API key to use the token endpoint; no password is set",
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "None of the models is available",
    "litellm.BadRequestError: std::bad_alloc in InternalError.Algo.InvalidParameter",
    "**NETWORK ERROR** due to high traffic",
    "输入长度超过模型最大长度 8192，请缩短后重试。",
    "Node.js and ASP.NET e.g. package.json",
]  # fmt: skip


@pytest.mark.parametrize("text", PROSE)
def test_ordinary_prose_is_kept(text: str) -> None:
    assert sanitise(text, KEY, "https://model.example/v1") == text


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert sanitise("word " * 100, KEY) == ("word " * 100)[:299] + "…"


@pytest.mark.parametrize("key", ["none", "x", ""])
def test_a_placeholder_key_leaves_other_words_unchanged(key: str) -> None:
    assert sanitise("nonexistent extra index", key) == "nonexistent extra index"


def test_a_key_at_the_end_of_the_text_that_is_read_is_not_shown_in_part() -> None:
    for length in range(3900, 4010):
        text = f"http://{'a' * length} {KEY}"
        assert KEY[:10] not in sanitise(text, KEY)


@pytest.mark.parametrize(
    "masked", ["***", "ab***", "***-cd", "a-b***cd***ef", "a*****b**c", "-***"]
)
@pytest.mark.parametrize("text", ["{}", "key {} is wrong", "**{}**", "(a*b {})", "错误{}，"])
def test_every_part_of_a_masked_word_is_replaced(masked: str, text: str) -> None:
    shown = sanitise(text.format(masked), KEY)
    assert not set(masked) - set("*-") & set(shown) - set(text)
    assert "***" not in shown


PIECES = [
    "a", "a-", "*", "**a", "1", "1.", "a.", ".", "/a", "/", "\\a", "@", "a@", ":", "a:", "1:",
    "sk-", "[", "[a", "bearer ", "key ", "key=", "port ", "_", "-", "a1", "http://", "www.", "org-",
    "%", "a,", "eyJ", "…", "~", "文",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_does_not_grow_with_the_square_of_the_length(piece: str) -> None:
    """A pattern that tries each character against the rest takes 64 times as long for 8 times."""
    patterns = [one for one in vars(redaction).values() if isinstance(one, re.Pattern)]
    patterns.remove(redaction._LABELS)  # it is matched with a host, of at most 253 characters
    for pattern in [*patterns, *redaction._SECRETS]:
        short, long = (
            min(timeit.repeat(partial(pattern.sub, "…", text), number=1, repeat=5))
            for text in (piece * 500, piece * 4000)
        )
        assert long < 30 * short + 0.01, pattern.pattern
