"""The demo model's texts in English; `chinese` defines the same names, and `answers` uses both."""

from chat.demo.essays import ENGLISH as LONG

QUOTED = "“{}”"
EARLIER = "Earlier you asked: {question}"
EARLIER_MORE = "Earlier you asked: {question} (and {count} more before that)"
SYSTEM = "A system message is set for this conversation. The demo notes it, but does not follow it."
REASONING = (
    "The question is in English and {length} characters long. Of the few topics that I know, it is "
    "nearest to “{topic}”. I look no deeper than its keywords, because I am a demo. Now for the "
    "answer."
)
NOTE = """*This comes from the demo model built into Holdline: it matches keywords and knows a few \
answers by heart. For real answers set `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `CHAT_MODEL`; ask \
“how do I set a real model?” for the details.*"""

RECALL = """## What you have asked

I can see {count} earlier in this conversation:

{questions}

A real model would be sent the same history, as much of it as fits `CONTEXT_TOKENS`."""
RECALL_NONE = (
    "Nothing yet: this is the first question of yours that I can see in this conversation."
)
COUNTED = ("one question", "{} questions")

SETUP = """### Real answers

Holdline works with any OpenAI-compatible API. Three settings choose it, in the environment or in \
a file named `.env`:

| Setting | Meaning |
| --- | --- |
| `OPENAI_API_KEY` | the key; a local server usually accepts any value |
| `OPENAI_BASE_URL` | the address of the API; if unset, OpenAI's own |
| `CHAT_MODEL` | the model; several, separated by commas, offer a choice |

```sh
# OpenAI
OPENAI_API_KEY=sk-your-key CHAT_MODEL=gpt-5-mini python server.py

# Ollama on this machine: ollama pull llama3.2
OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=ollama CHAT_MODEL=llama3.2 python server.py
```

After a restart the real model answers instead of the demo. Existing conversations are kept."""

HELLO = """Hello, and welcome to **Holdline**.

I am its demo model: a few prepared answers that arrive over the same protocol as a real model's. \
Try:

- *write some Python code*, for a code block
- *compare green, black and oolong tea*, for a table
- *how does it work?*, for what Holdline does with an answer
- *a long answer, please*, and reload the page in the middle of it
- *what did I ask?*, once you have asked a few things

Chinese works as well: 中文提问，中文回答。"""

DEFAULT = """## You asked

{question}

I cannot answer that. I am the demo model built into Holdline, and I know a few things by heart. \
What I can do is show you how an answer looks on this page.

### Text and lists

Words may be **strong**, *emphasised* or `code`; [CommonMark](https://commonmark.org) has the rules.

1. Lists may be numbered,
2. and may contain other lists:
   - 中文与 English 可以混排，**重点**也能正确显示；
   - so can math signs: ∑ ≤ π.

> A quotation is set apart like this.

### A table: what to ask for

| Ask for | and see |
| --- | --- |
| `python` | a code example with tests |
| `compare` | a table |
| `how does it work` | how Holdline keeps an answer |
| `long` | about 1,500 words, good for a reload in the middle |
| `what did I ask` | your questions so far |

### Code

```python
def greet(name: str = "world") -> str:
    return f"Hello, {name}!"
```"""

CODE = """## Merging overlapping intervals

Whatever program you asked for, this is the one that the demo knows by heart. Sort the intervals \
by their start; then each one either overlaps the last one kept and extends it, or begins a new one.

```python
def merge(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    \"\"\"Merge the closed intervals that overlap or touch; the result is sorted.\"\"\"
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            first, last = merged[-1]
            merged[-1] = (first, max(last, end))
        else:
            merged.append((start, end))
    return merged


def test_merge() -> None:
    assert merge([]) == []
    assert merge([(8, 10), (1, 3), (2, 6)]) == [(1, 6), (8, 10)]
    assert merge([(1, 4), (4, 5)]) == [(1, 5)]      # they touch
    assert merge([(1, 10), (2, 3)]) == [(1, 10)]    # one lies within the other
```

### Why it is right

- **Sorted by start**, an interval can only overlap the last one kept, because all earlier ones \
end before that one begins.
- **`max(last, end)`** matters when an interval lies wholly within the last one.
- The cost is *O(n log n)* for sorting and *O(n)* for the pass."""

TABLE = """## Green, oolong and black tea

Whatever you asked to compare, this is the table that the demo knows by heart. All three come from \
one plant, *Camellia sinensis*; what differs is how far the leaves oxidise before heat stops them.

| | Green | Oolong | Black |
| :--- | :--- | :--- | :--- |
| **Oxidation** | hardly any | partial | full |
| **Taste** | fresh, grassy | floral to roasted | malty, full |
| **Water** | 70 to 80 °C | 85 to 95 °C | 95 to 100 °C |
| **Steeping** | 2 to 3 minutes | 3 to 5 minutes | 3 to 5 minutes |
| **A classic** | Longjing (龙井) | Tieguanyin (铁观音) | Keemun (祁门红茶) |

In short:

1. For something light, **green**, with water well off the boil.
2. For many infusions of the same leaves, **oolong**.
3. With milk, **black**."""

TCP = """## How TCP recovers a lost packet

1. **Every byte has a number.** A segment carries the number of its first byte, so the receiver \
notices a gap.
2. **The receiver states which byte it expects next.** An acknowledgement names the first byte \
still missing, however much has arrived after it; selective acknowledgements (SACK) list the other \
ranges received.
3. **The gap shows.** Each later segment causes the same acknowledgement once more. After three \
such duplicates the sender takes the segment for lost and sends it again: *fast retransmit*.
4. **If nothing comes back at all**, a timer based on the measured round trip expires, and the \
sender sends again; each further timeout doubles the wait.
5. **The gap closes.** One acknowledgement now covers everything that had arrived in the meantime.
6. **The sender slows down**, because a loss usually means that a queue on the way was full.

```text
sender                    receiver           (100 bytes a segment)
seq   1  ───────────────▶ ack 101
seq 101  ──────╳                             lost
seq 201  ───────────────▶ ack 101  have 201–300
seq 301  ───────────────▶ ack 101  have 201–400
seq 401  ───────────────▶ ack 101  have 201–500   the third duplicate
seq 101  ───────────────▶ ack 501                 sent again: all is there
```

| Recovery by | Starts after | Typical wait |
| --- | --- | --- |
| duplicates | three equal acknowledgements | about one round trip |
| timeout | no acknowledgement at all | a few round trips, 200 ms or more |

The program on top notices nothing but the delay: it reads the bytes in order, each exactly once."""

HOW = """## How Holdline keeps an answer

**Every word you have seen is durable, and every question is sent to the model once.** These are \
the steps:

1. Your browser opens an event stream with the question and an id for the turn, chosen by the page.
2. One atomic step in Redis begins the turn. The same id never begins a second turn; it attaches \
to the first.
3. A separate task sends the question to the model. It does not belong to your connection, so \
closing the tab does not stop it.
4. Each token becomes a *frame* and is appended to the turn's *log*: the very bytes of the event \
stream.
5. Your browser receives a frame only after Redis has stored it. Frames go to Redis in batches, so \
the cost per token falls as the load grows.

The id of each frame is the position in the log at which it ends:

```text
id: 5TqXk0dZr1mPw8yLc3aVhQ.1482
data: the next few words
```

So a browser that reconnects names the last frame it has received, and gets the log from there on:

| What happens | What you see |
| --- | --- |
| you reload the page | the answer resumes where it was |
| the connection drops | the browser reconnects; nothing is lost or doubled |
| you open a second tab | both show the same answer as it grows |
| you press Stop | the text so far is kept, and the model stops |
| the server's process dies | the text shown is kept; another process continues the turn |

Try it: ask for *a long answer*, and reload this page in the middle of it."""

ANSWERS = {
    "setup": SETUP,
    "hello": HELLO,
    "code": CODE,
    "table": TABLE,
    "tcp": TCP,
    "how": HOW,
    "long": LONG,
    "default": DEFAULT,
}
