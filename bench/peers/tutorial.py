"""A chat handler in the style of tutorials, with Sanic and the openai client.

It sends each chunk separately and stores a history as one value in Redis.
"""

import json
import os

from openai import AsyncOpenAI
from redis.asyncio import Redis
from sanic import Request, Sanic

app = Sanic("tutorial")
client = AsyncOpenAI(api_key="none", base_url=os.environ["UPSTREAM"])
# With the default limit of 100 connections, concurrent answers would end without a last frame.
redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=10_000)


@app.get("/api/chat_stream/")
async def chat_stream(request: Request) -> None:
    """Request an answer from the upstream and send its deltas to the client."""
    key = f"chat:{request.cookies.get('session')}"
    stored = await redis.get(key)
    history = json.loads(stored) if stored else []
    history.append({"role": "user", "content": request.args.get("message")})
    response = await request.respond(
        content_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )
    answer = ""
    stream = await client.chat.completions.create(model="bench", messages=history, stream=True)
    async for chunk in stream:
        delta = chunk.choices[0].delta.content if chunk.choices else None
        if delta:
            answer += delta
            await response.send(f"data: {delta}\n\n")
    history.append({"role": "assistant", "content": answer})
    await redis.set(key, json.dumps(history))
    await response.send(f"event: end\ndata: {answer}\n\n")
    await response.eof()


if __name__ == "__main__":
    app.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        single_process=True,
        motd=False,
        access_log=False,
    )
