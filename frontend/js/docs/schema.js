/** Describe the JSON Schemas of the document in words. */

const REFERENCE = "#/components/schemas/";

/** Return nodes and texts that name a type; a type of the document is a link. */
export function describeType(schema) {
  if (schema.$ref) {
    const link = document.createElement("a");
    link.textContent = schema.$ref.slice(REFERENCE.length);
    link.href = `#${link.textContent}`;
    return [link];
  }
  if (schema.anyOf) return join(schema.anyOf.map(describeType), " or ");
  if (schema.type === "array") return ["list of ", ...describeType(schema.items)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  return [`${schema.type ?? "any"}${describeLimits(schema)}`];
}

/** Return the fields of an object. */
export function listFields(schema) {
  const required = new Set(schema.required);
  return Object.entries(schema.properties ?? {}).map(([name, field]) => ({
    name,
    isRequired: required.has(name),
    type: describeType(field),
    description: field.description ?? "",
  }));
}

function describeLimits({ minimum, maximum, minLength, maxLength, default: initial }) {
  const limits = [];
  if (minimum !== undefined) limits.push(`${minimum} to ${maximum}`);
  if (maxLength !== undefined) limits.push(`${minLength} to ${maxLength} characters`);
  if (initial !== undefined && initial !== null) limits.push(`default ${initial}`);
  return limits.length ? ` (${limits.join(", ")})` : "";
}

function join(lists, separator) {
  return lists.flatMap((list, index) => (index ? [separator, ...list] : list));
}
