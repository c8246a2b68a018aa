"use strict";
// Shows openapi.json: nothing comes from elsewhere.
function make(tag, text = "", name = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
}

const resolve = (api, schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  const bounds = [["minimum", "from"], ["maximum", "to"], ["maxLength", "characters at most"]]
    .filter(([key]) => key in schema).map(([key, name]) => `${name} ${schema[key]}`);
  return [schema.type ?? "any", ...bounds].join(", ");
}

function table(rows) {
  const node = make("table"), head = make("tr");
  head.append(...["Name", "Type", "Meaning"].map((name) => make("th", name)));
  node.append(head, ...rows.map((cells) => {
    const row = make("tr");
    row.append(...cells.map((cell, index) => make("td", cell, index === 2 ? "text" : "")));
    return row;
  }));
  const scroll = make("div", "", "scroll");
  scroll.append(node);
  return scroll;
}

function fields(api, reference) {
  const schema = resolve(api, reference);
  if (!schema?.properties) return [];
  return Object.entries(schema.properties).map(([name, field]) => [
    name + (schema.required?.includes(name) ? "" : " (optional)"), typeOf(field), field.description ?? "",
  ]);
}

function section(title, rows) {
  return rows.length ? [make("h3", title), table(rows)] : [];
}

function operation(api, path, method, found) {
  const card = make("section", "", "card");
  card.append(make("h2", `${method.toUpperCase()} ${path}`), make("p", found.summary ?? ""));
  const body = found.requestBody?.content["application/json"].schema;
  const parameters = (found.parameters ?? []).map((each) => [each.name, typeOf(each.schema), each.description ?? ""]);
  const answer = found.responses["200"]?.content?.["application/json"]?.schema;
  card.append(...section("Parameters", parameters), ...section("Body", fields(api, body)), ...section("Answer", fields(api, answer)));
  const inner = resolve(api, answer)?.properties?.results?.items ?? resolve(api, answer)?.properties?.texts?.items;
  if (inner) card.append(...section(typeOf(inner), fields(api, inner)));
  const errors = Object.entries(found.responses).filter(([status]) => status !== "200").map(([status, each]) => [status, "", each.description]);
  card.append(...section("Errors", errors));
  return card;
}

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  document.title = `${api.info.title}: API`;
  document.getElementById("title").textContent = `${api.info.title}: API`;
  document.getElementById("about").textContent = `${api.info.description.replaceAll("`", "")} Version ${api.info.version}.`;
  document.getElementById("curl").textContent =
    `curl ${location.origin}/v1/classify -H 'Content-Type: application/json' -d '{"input": "您好，您的快递到了。"}'`;
  document.getElementById("operations").append(...Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, found]) => operation(api, path, method, found))));
});
