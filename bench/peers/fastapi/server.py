"""The tutorial's handler with FastAPI and sse-starlette, under uvicorn (uvloop, httptools)."""

import json
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Cookie, FastAPI
from openai import AsyncOpenAI
from redis.asyncio import Redis
from sse_starlette import EventSourceResponse

app = FastAPI()
client = AsyncOpenAI(api_key="none", base_url=os.environ["UPSTREAM"])
# With the default limit of 100 connections, concurrent answers would end without a last frame.
redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=10_000)


@app.get("/api/chat_stream/")  # type: ignore[untyped-decorator]
async def chat_stream(message: str, session: Annotated[str, Cookie()]) -> EventSourceResponse:
    """Request an answer from the upstream and send its deltas to the client."""
    return EventSourceResponse(events(message, f"chat:{session}"))


async def events(message: str, key: str) -> AsyncIterator[dict[str, str]]:
    """Yield the events of one answer."""
    stored = await redis.get(key)
    history = json.loads(stored) if stored else []
    history.append({"role": "user", "content": message})
    answer = ""
    stream = await client.chat.completions.create(model="bench", messages=history, stream=True)
    async for chunk in stream:
        delta = chunk.choices[0].delta.content if chunk.choices else None
        if delta:
            answer += delta
            yield {"data": delta}
    history.append({"role": "assistant", "content": answer})
    await redis.set(key, json.dumps(history))
    yield {"event": "end", "data": answer}
