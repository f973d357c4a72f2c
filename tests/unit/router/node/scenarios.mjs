// One scenario with OpenAI's client for Node, against the router at an address: `node ... URL KEY NAME`.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey, name] = process.argv.slice(-3);
const api = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 10_000 });
const messages = [{ role: "user", content: "grüße aus Köln 東京 😀 end" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];

async function parts(stream) {
  const found = [];
  for await (const part of stream) found.push(part);
  return found;
}

const scenarios = {
  async whatIsAskedReachesTheEngine() {
    const wanted = { stop: ["\n", "END"], seed: 7, temperature: 0.125, response_format: { type: "json_object" } };
    const found = await api.chat.completions.create({ model: "auto", messages, ...wanted });
    assert.deepEqual(JSON.parse(found.choices[0].message.content), { ...wanted, model: "smol" });
  },
  async choicesAndLogprobs() {
    const found = await api.chat.completions.create({ model: "auto", messages, n: 3, logprobs: true });
    assert.deepEqual(found.choices.map((choice) => choice.index), [0, 1, 2]);
    assert.equal(found.choices[1].logprobs.content[0].logprob, -0.5);
  },
  async toolCalls() {
    const found = await api.chat.completions.create({ model: "auto", messages, tools });
    assert.equal(found.choices[0].message.tool_calls[0].function.arguments, '{"town":"Köln"}');
    const stream = await api.chat.completions.create({ model: "auto", messages, tools, stream: true });
    const calls = (await parts(stream)).flatMap((part) => part.choices[0].delta.tool_calls ?? []);
    assert.equal(calls.map((call) => call.function.arguments).join(""), '{"town":"Köln"}');
  },
  async aStreamWithUsage() {
    const stream_options = { include_usage: true };
    const found = await parts(await api.chat.completions.create({ model: "auto", messages, stream: true, stream_options }));
    const words = found.filter((part) => part.choices.length).map((part) => part.choices[0].delta.content);
    assert.deepEqual(words, ["", ...messages[0].content.split(" ")]);
    assert.equal(found.at(-1).usage.total_tokens, 10);
  },
  async embeddings() {
    const found = await api.embeddings.create({ model: "smol", input: "x", encoding_format: "float" });
    assert.deepEqual(found.data[0].embedding, [0.5, -0.25]);
  },
  async completions() {
    assert.equal((await api.completions.create({ model: "auto", prompt: "abc" })).choices[0].text, "ABC");
  },
  async responses() {
    const asked = { model: "auto", input: "say it", instructions: "be brief" };
    assert.equal((await api.responses.create(asked)).output_text, "be brief: say it");
    const events = await parts(await api.responses.create({ ...asked, stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    assert.deepEqual(deltas, ["be", "brief:", "say", "it"]);
  },
  async models() {
    assert.deepEqual((await parts(await api.models.list())).map((model) => model.id), ["auto", "general", "poetry", "smol"]);
  },
  async errors() {
    const stranger = new OpenAI({ baseURL, apiKey: "a-wrong-key-0123456789", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
    const unknown = api.chat.completions.create({ model: "nobody", messages });
    await assert.rejects(unknown, (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  },
  async a429IsARateLimitError() {
    const refused = api.chat.completions.create({ model: "auto", messages });
    await assert.rejects(refused, (error) => error instanceof OpenAI.RateLimitError && error.headers.get("retry-after") === "1");
  },
  async aTimeoutIsOne() {
    const late = api.chat.completions.create({ model: "auto", messages }, { timeout: 300 });
    await assert.rejects(late, OpenAI.APIConnectionTimeoutError);
  },
  async aStreamThatBreaksOffIsAnError() {
    const stream = await api.chat.completions.create({ model: "auto", messages, stream: true });
    await assert.rejects(parts(stream));
  },
  async aHundredStreamsKeepApart() {
    const words = (number) => Array.from({ length: 20 }, (_, word) => `${number}-${word}`);
    const one = async (number) => {
      const said = [{ role: "user", content: words(number).join(" ") }];
      const stream = await api.chat.completions.create({ model: "auto", messages: said, stream: true });
      return (await parts(stream)).map((part) => part.choices[0].delta.content);
    };
    const found = await Promise.all(Array.from({ length: 100 }, (_, number) => one(number)));
    assert.deepEqual(found, found.map((_, number) => ["", ...words(number)]));
  },
};

await scenarios[name]();
console.log(`ok ${name}`);
