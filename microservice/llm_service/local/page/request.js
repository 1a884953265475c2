/** A request: the body that this page sends, and the same as a line of curl and as a Python program. */

const byId = (id) => document.getElementById(id);

/** What OpenAI's Python client takes by name; the rest, which is vLLM's own, goes into its extra_body. */
const NAMED = new Set(["model", "messages", "temperature", "top_p", "max_tokens", "seed", "stream", "stream_options"]);

/** The body for these turns, [{role, content}], with the settings as they stand. */
export function bodyFor(turns) {
    const system = byId("system").value.trim();
    // A question that got no answer is left out: many chat templates refuse two of them in a row.
    const answered = turns.filter((turn, index) => turn.role !== "user" || turns[index + 1]?.role !== "user");
    const messages = answered.map(({ role, content }) => ({ role, content }));
    if (system) messages.unshift({ role: "system", content: system });
    const body = { model: byId("model").value, messages };
    for (const input of byId("sampling").querySelectorAll("input[type=number]")) {
        if (input.value !== "") body[input.name] = Number(input.value);
    }
    if (byId("stream").checked) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
    return body;
}

const base = () => new URL("v1", document.baseURI).href;

/** The request as a line of curl. The key is not in it: the shell puts it in. */
export function asCurl(body, withKey) {
    const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
    const lines = [`curl ${body.stream ? "-N " : ""}${base()}/chat/completions`, "-H 'Content-Type: application/json'"];
    if (withKey) lines.push('-H "Authorization: Bearer $LLM_API_KEY"');
    return [...lines, `-d '${quoted}'`].join(" \\\n  ");
}

/** The request as a Python program for OpenAI's client. */
export function asPython(body, withKey) {
    const extra = Object.entries(body).filter(([name]) => !NAMED.has(name));
    const values = Object.entries(body).filter(([name]) => NAMED.has(name));
    if (extra.length) values.push(["extra_body", Object.fromEntries(extra)]);
    const listed = values.map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
    const secret = withKey ? 'os.environ["LLM_API_KEY"]' : '"none"';
    const reading = body.stream
        ? [
              "for chunk in answer:",
              "    if chunk.choices:",
              '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
          ]
        : ["print(answer.choices[0].message.content)"];
    return [
        ...(withKey ? ["import os", ""] : []),
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url="${base()}", api_key=${secret})`,
        "answer = client.chat.completions.create(",
        ...listed,
        ")",
        ...reading,
    ].join("\n");
}

/** A JSON value as Python writes it. */
function literal(value, indent) {
    const deeper = `${indent}    `;
    if (value === true) return "True";
    if (Array.isArray(value))
        return `[\n${value.map((item) => `${deeper}${literal(item, deeper)},\n`).join("")}${indent}]`;
    if (typeof value !== "object") return JSON.stringify(value);
    return `{${Object.entries(value)
        .map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, deeper)}`)
        .join(", ")}}`;
}
