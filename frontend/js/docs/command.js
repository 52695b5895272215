/** Write the curl command that calls an operation. */

/** Return a command with the examples of the document; `{…}` in it is for the reader to fill in. */
export function formatCommand(server, path, method, operation) {
  const words = ["curl"];
  if (operation.responses[200]?.content?.["text/event-stream"]) words.push("-N");
  if (path.startsWith("/api/")) words.push("-b cookies -c cookies");
  if (method !== "get") words.push(`-X ${method.toUpperCase()}`);
  if (operation.security) words.push(`-H "Authorization: Bearer $API_KEY"`);
  const body = operation.requestBody?.content["application/json"];
  if (body) {
    words.push("-H 'Content-Type: application/json'", `-d ${quote(JSON.stringify(body.example))}`);
  }
  words.push(quote(server + path + formatQuery(operation.parameters ?? [])));
  return words.join(" ");
}

function formatQuery(parameters) {
  const query = new URLSearchParams();
  for (const { name, in: place, schema } of parameters) {
    if (place === "query" && schema.examples) query.set(name, schema.examples[0]);
  }
  return query.size ? `?${query}` : "";
}

/** Quote a word for a POSIX shell. */
function quote(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
