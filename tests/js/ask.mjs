// Asks a gateway as its users do: node ask.mjs CLIENT BASE_URL. Prints what came of it, as JSON.
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenResponses } from '@ai-sdk/open-responses';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';

const [client, baseURL] = process.argv.slice(2);
const question = 'count_sheep {"field": "north"}';
const schema = { type: 'object', properties: { field: { type: 'string' } }, required: ['field'], additionalProperties: false };

async function openai() {
  const api = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
  const tools = [{ type: 'function', name: 'count_sheep', parameters: schema, strict: true }];
  const first = await api.responses.create({ model: 'simulated', input: question, tools });
  const call = first.output.find((item) => item.type === 'function_call');
  const input = [{ type: 'function_call_output', call_id: call.call_id, output: 'seventeen sheep' }];
  const stream = api.responses.stream({ model: 'simulated', input, tools, previous_response_id: first.id });
  let text = '';
  stream.on('response.output_text.delta', (event) => (text += event.delta));
  const last = await stream.finalResponse();
  return { calls: [JSON.parse(call.arguments)], text, whole: last.output_text };
}

async function vercel(model) {
  const calls = [];
  const count = async (given) => (calls.push(given), 'seventeen sheep');
  const tools = { count_sheep: tool({ description: 'Count sheep.', inputSchema: jsonSchema(schema), execute: count }) };
  const asked = { model, tools, prompt: question, stopWhen: stepCountIs(3), maxRetries: 0 };
  const plain = await generateText(asked);
  let text = '';
  const streamed = streamText({ ...asked, onError: ({ error }) => { throw error; } });
  for await (const piece of streamed.textStream) text += piece;
  return { calls, text, whole: plain.text };
}

const clients = {
  openai,
  'ai-sdk-openai': () => vercel(createOpenAI({ baseURL, apiKey: 'none' }).responses('simulated')),
  'ai-sdk-open-responses': () =>
    vercel(createOpenResponses({ name: 'shepherd', url: `${baseURL}/responses`, apiKey: 'none' })('simulated')),
};
console.log(JSON.stringify(await clients[client]()));
