/** A bare byte pipe: asks the model and hands its bytes on, with no session and nothing kept. */

import http from "node:http";

const upstream = new URL(`${process.env.UPSTREAM}/chat/completions`);
const agent = new http.Agent({ keepAlive: true });

http
  .createServer((request, response) => {
    const message = new URL(request.url, "http://127.0.0.1").searchParams.get("message");
    const body = JSON.stringify({ model: "bench", messages: [{ role: "user", content: message }], stream: true });
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
    const asked = http.request(upstream, { method: "POST", agent, headers }, (answer) => {
      response.writeHead(answer.statusCode, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
      answer.pipe(response);
    });
    asked.on("error", (error) => response.destroy(error));
    response.on("close", () => asked.destroy());
    asked.end(body);
  })
  .listen(Number(process.env.PORT), "127.0.0.1");
