"""What the demo model says in English; `demo_chinese` has the same names, `demo_answers` uses both."""

from chat.demo.essays import ENGLISH as LONG

QUOTED = "“{}”"
EARLIER = "Earlier you asked: {question}"
EARLIER_MORE = "Earlier you asked: {question} (and {count} more before that)"
SYSTEM = "A system message is set for this conversation. The demo notes it, but does not follow it."
REASONING = (
    "The question is in English and {length} characters long. Of the few topics that I know, it is nearest "
    "to “{topic}”. I look no deeper than its keywords, for I am a demo. Now for the answer."
)
NOTE = """*This comes from the demo model built into Holdline: it matches keywords and knows a few answers \
by heart. For real answers set `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `CHAT_MODEL`; ask “how do I set a \
real model?” for the details.*"""

RECALL = """## What you have asked

I can see {count} earlier in this conversation:

{questions}

A real model would be sent the same history, as much of it as fits `CONTEXT_TOKENS`."""
RECALL_NONE = (
    "Nothing yet: this is the first question of yours that I can see in this conversation."
)
COUNTED = ("one question", "{} questions")

SETUP = """### Real answers

Holdline asks any API that speaks OpenAI's protocol. Three settings choose it, in the environment or in a \
file named `.env`:

| Setting | Meaning |
| --- | --- |
| `OPENAI_API_KEY` | the key; a local server usually takes any word |
| `OPENAI_BASE_URL` | where the API is; unset, it is OpenAI's own |
| `CHAT_MODEL` | the model to ask; several, separated by commas, give a choice |

```sh
# OpenAI
OPENAI_API_KEY=sk-your-key CHAT_MODEL=gpt-5-mini python server.py

# Ollama on this machine: ollama pull llama3.2
OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=ollama CHAT_MODEL=llama3.2 python server.py
```

Restart the server, and the demo is gone. Conversations stay."""

HELLO = """Hello, and welcome to **Holdline**.

I am its demo model: a few prepared answers that arrive over the same protocol as a real model's. Try:

- *write some Python code*, for a code block
- *compare green, black and oolong tea*, for a table
- *how does it work?*, for what Holdline does with an answer
- *a long answer, please*, and reload the page in the middle of it
- *what did I ask?*, once you have asked a few things

Chinese works as well: 中文提问，中文回答。"""

DEFAULT = """## You asked

{question}

I cannot answer that. I am the demo model built into Holdline, and I know a few things by heart. What I can \
do is show you how an answer looks on this page.

### Text and lists

Words may be **strong**, *emphasised* or `code`, and [CommonMark](https://commonmark.org) says how.

1. Lists may be numbered,
2. and may hold others:
   - 中文与 English 可以混排，**重点**也能正确显示；
   - so can math signs: ∑ ≤ π.

> A quotation stands apart like this.

### A table: what to ask for

| Ask for | and see |
| --- | --- |
| `python` | a code example with tests |
| `compare` | a table |
| `how does it work` | how Holdline keeps an answer |
| `long` | some 1,500 words, good for a reload in the middle |
| `what did I ask` | your questions so far |

### Code

```python
def greet(name: str = "world") -> str:
    return f"Hello, {name}!"
```"""

CODE = """## Merging overlapping intervals

Whatever program you asked for, this is the one that the demo knows by heart. Sort the intervals by their \
start; then each one either overlaps the last one kept, and extends it, or begins a new one.

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

- **Sorted by start**, an interval can only overlap the last one kept, for all earlier ones end before that \
begins.
- **`max(last, end)`** matters when an interval lies wholly within the last one.
- The cost is *O(n log n)* for sorting and *O(n)* for the pass."""

TABLE = """## Green, oolong and black tea

Whatever you asked to compare, this is the table that the demo knows by heart. All three come from one \
plant, *Camellia sinensis*; what differs is how far the leaves oxidise before heat stops them.

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

1. **Every byte has a number.** A segment says the number of its first byte, so the receiver can tell a gap.
2. **The receiver says what it expects next.** An acknowledgement names the first byte still missing, \
however much has arrived after it; selective acknowledgements (SACK) add which ranges those are.
3. **The gap shows.** Each later segment brings the same acknowledgement once more. Three such duplicates, \
and the sender takes the segment for lost: *fast retransmit*.
4. **If nothing comes back at all**, a timer runs out, set by the measured round trip, and the sender sends \
again; each further timeout doubles the wait.
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
| timeout | silence | a few round trips, 200 ms or more |

The program on top notices nothing but the delay: it reads the bytes in order, each exactly once."""

HOW = """## How Holdline keeps an answer

**What you have seen on the screen is durable, and what you asked is asked once.** An answer takes this way:

1. Your browser opens an event stream with the question and an id for the turn, chosen by the page.
2. One atomic step in Redis begins the turn. The same id never begins a second one: it only attaches.
3. A task of its own asks the model. It does not belong to your connection, so a closed tab does not end it.
4. Each token becomes a *frame* and is appended to the turn's *log*: the very bytes of the event stream.
5. Only when Redis has a frame does your browser get it. Frames go to Redis in groups, so the cost per \
token falls as the load grows.

The id of each frame says where in the log it ends:

```text
id: 5TqXk0dZr1mPw8yLc3aVhQ.1482
data: the next few words
```

So a browser that comes back names the last frame it has had, and gets the log from there on:

| What happens | What you see |
| --- | --- |
| you reload the page | the answer goes on where it was |
| the line drops | the browser reconnects; nothing is lost or doubled |
| you open a second tab | both show the same answer as it grows |
| you press Stop | what was made is kept, and nothing more is asked |
| the server's process dies | what was shown is kept; another sees to the turn |

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
