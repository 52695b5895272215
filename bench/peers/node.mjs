/** Pipe the bytes of the upstream to the client, without sessions and without storage. */

import http from "node:http";

const upstream = new URL(`${process.env.UPSTREAM}/chat/completions`);
const agent = new http.Agent({ keepAlive: true });

http
  .createServer((request, response) => {
    const message = new URL(request.url, "http://127.0.0.1").searchParams.get("message");
    const messages = [{ role: "user", content: message }];
    const body = JSON.stringify({ model: "bench", messages, stream: true });
    const headers = {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(body),
    };
    const options = { method: "POST", agent, headers };
    const upstreamRequest = http.request(upstream, options, (upstreamResponse) => {
      response.writeHead(upstreamResponse.statusCode, {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
      });
      upstreamResponse.pipe(response);
    });
    upstreamRequest.on("error", (error) => response.destroy(error));
    response.on("close", () => upstreamRequest.destroy());
    upstreamRequest.end(body);
  })
  .listen(Number(process.env.PORT), "127.0.0.1");
