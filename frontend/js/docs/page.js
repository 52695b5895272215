/** Show the OpenAPI document of this server: its operations by group, then its types. */

import { formatCommand } from "./command.js";
import { describeType, listFields } from "./schema.js";
import { fillTable, fillText } from "./text.js";

const DOCUMENT = "docs/openapi.json";

const response = await fetch(DOCUMENT);
const api = await response.json();
const server = new URL(api.servers[0].url, response.url).href.replace(/\/$/, "");
const main = document.querySelector("main");
const nav = document.querySelector("nav");

fillText(main.querySelector('[data-part="introduction"]'), api.info.description);
for (const tag of api.tags) addGroup(tag.name, tag.description, listOperations(tag.name));
addGroup("Types", "The JSON of bodies and responses.", listSchemas());
openTarget();
addEventListener("hashchange", openTarget);

function addGroup(name, description, entries) {
  const title = create("h2", name);
  title.id = name;
  const words = create("p");
  fillText(words, description);
  main.append(title, words, ...entries.map((entry) => entry.element));
  const list = create("ul");
  for (const { id, label } of entries) {
    const link = create("a", label);
    link.href = `#${id}`;
    const item = create("li");
    item.append(link);
    list.append(item);
  }
  nav.append(create("h2", name), list);
}

function listOperations(tag) {
  const found = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!operation.tags.includes(tag)) continue;
      const id = operation.operationId;
      const label = `${method.toUpperCase()} ${path}`;
      found.push({ id, label, element: showOperation(path, method, operation) });
    }
  }
  return found;
}

function showOperation(path, method, operation) {
  const { element, part } = clone("operation", operation.operationId);
  part("method").textContent = method.toUpperCase();
  part("path").textContent = path;
  fillText(part("summary"), operation.summary);
  fillText(part("description"), operation.description ?? "");
  const parameters = (operation.parameters ?? []).map((parameter) => [
    code(parameter.name),
    `${parameter.in}${parameter.required ? ", required" : ""}`,
    describeType(parameter.schema),
    parameter.description ?? "",
  ]);
  fillTable(part("parameters"), ["name", "in", "type", "description"], parameters);
  const body = operation.requestBody?.content["application/json"];
  part("body").append(...(body ? ["JSON: ", ...describeType(body.schema)] : []));
  const responses = Object.entries(operation.responses).map(([status, one]) => [
    status,
    Object.entries(one.content ?? {}).flatMap(([type, { schema }], index) => [
      ...(index ? [create("br")] : []),
      `${type}: `,
      ...describeType(schema),
    ]),
    one.description,
  ]);
  fillTable(part("responses"), ["status", "content", "description"], responses);
  part("example").textContent = formatCommand(server, path, method, operation);
  for (const name of ["parameters", "body"]) hideIfEmpty(part(name));
  return element;
}

function listSchemas() {
  return Object.entries(api.components.schemas).map(([name, schema]) => {
    const { element, part } = clone("schema", name);
    part("name").textContent = name;
    fillText(part("description"), schema.description ?? "");
    const fields = listFields(schema).map(({ name: field, isRequired, type, description }) => [
      code(field),
      isRequired ? "always" : "",
      type,
      description,
    ]);
    fillTable(part("fields"), ["field", "present", "type", "description"], fields);
    return { id: name, label: name, element };
  });
}

/** Open the entry that the URL names, so that a link to it shows it. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

function clone(template, id) {
  const element = document.getElementById(template).content.cloneNode(true).firstElementChild;
  element.id = id;
  return { element, part: (name) => element.querySelector(`[data-part="${name}"]`) };
}

/** Hide an element without content, and the title before it. */
function hideIfEmpty(element) {
  if (element.hasChildNodes()) return;
  element.hidden = true;
  element.previousElementSibling.hidden = true;
}

function create(name, text = "") {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function code(text) {
  return [create("code", text)];
}
