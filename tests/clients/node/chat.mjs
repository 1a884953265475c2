// OpenAI's client for Node, unmodified: a chat whole and streamed, a response, the models, and a wrong key. One JSON object.
import OpenAI from "openai";

const [baseURL, apiKey, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = { model: "demo", messages: [{ role: "user", content: question }], temperature: 0 };

const whole = await client.chat.completions.create(ask);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const response = await client.responses.create({ model: "demo", input: question, temperature: 0, store: false });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
let refused = null;
try {
  await new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).chat.completions.create(ask);
} catch (error) {
  refused = error instanceof OpenAI.AuthenticationError ? error.status : String(error);
}
const text = whole.choices[0].message.content;
console.log(JSON.stringify({ whole: text, streamed, response: response.output_text, models, refused }));
