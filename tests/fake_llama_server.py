"""A fake `llama-server` for the PATH: it loads the `model` that a test writes, and answers with it.

A fake model is the magic bytes of GGUF and a line: `answer`, `load SECONDS`, or `fail MESSAGE`.
"""

import http.client
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeLlamaServer(ThreadingHTTPServer):
    """Respond 503 until the model is loaded, then answer each question with the options in use."""

    daemon_threads = True

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.ready_at = 0.0
        super().__init__((options["--host"], int(options["--port"])), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection to the fake llama-server."""

    server: FakeLlamaServer

    def do_GET(self) -> None:
        """Serve /health and /v1/models, which need no key."""
        if time.monotonic() < self.server.ready_at:
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            self.reply(http.client.SERVICE_UNAVAILABLE, {"error": error})
        elif self.path == "/health":
            self.reply(http.client.OK, {"status": "ok"})
        else:
            model = {"id": self.server.options["--alias"], "owned_by": "llamacpp"}
            self.reply(http.client.OK, {"data": [model | {"meta": {"n_ctx": 8192}}]})

    def do_POST(self) -> None:
        """Stream an answer that names the model, the options and the question."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['LLAMA_API_KEY']}":
            error = {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}
            return self.reply(http.client.UNAUTHORIZED, {"error": error})
        context, slots = os.environ["LLAMA_ARG_CTX_SIZE"], os.environ["LLAMA_ARG_N_PARALLEL"]
        question = body["messages"][-1]["content"]
        text = f"{self.server.options['--alias']} {context} {slots}: {question}"
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return self.send("text/event-stream", http.client.OK, "".join(events) + "data: [DONE]\n\n")

    def reply(self, status: int, body: object) -> None:
        """Send a JSON response."""
        self.send("application/json", status, json.dumps(body))

    def send(self, content_type: str, status: int, body: str) -> None:
        """Send a response with its length."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Log no requests."""


def main() -> None:
    """Serve the model in the arguments, or fail as it demands."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    model = Path(options["--model"]).read_text().removeprefix("GGUF\n")
    command, _, argument = model.partition(" ")
    if command == "fail":
        sys.exit(argument)
    server = FakeLlamaServer(options)
    if command == "load":
        server.ready_at = time.monotonic() + float(argument)
    server.serve_forever()


if __name__ == "__main__":
    main()
