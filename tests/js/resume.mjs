// Follows a response that is made in the background, and loses its connection again and again: node resume.mjs BASE_URL
// retrieve|stream. Prints the events it saw in pieces, those after the last, those of one whole replay, and the response, as JSON.
import OpenAI from 'openai';

const [baseURL, way] = process.argv.slice(2);
const api = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
const over = new Set(['response.completed', 'response.incomplete', 'response.failed']);
const input = 'Say 60 words.';

const after = (id, starting_after) => api.responses.retrieve(id, { stream: true, starting_after });
const follow = {
  retrieve: (id) => api.responses.retrieve(id, { stream: true }),
  stream: (response_id) => api.responses.stream({ response_id }),
};
const seen = [];
let pieces = 1;
const first = await api.responses.create({ model: 'simulated', input, background: true, stream: true });
for await (const event of first) {
  seen.push(event);
  if (seen.length === 3) break;
}
const id = seen[0].response.id;
while (!over.has(seen.at(-1).type)) {
  if (++pieces > 50) throw new Error('it does not end');
  let taken = 0;
  for await (const event of await after(id, seen.at(-1).sequence_number)) {
    seen.push(event);
    if (++taken === 9) break;
  }
}
const rest = [];
for await (const event of await after(id, seen.at(-1).sequence_number)) rest.push(event);
const whole = [];
for await (const event of await follow[way](id)) whole.push(event);
const kept = await api.responses.retrieve(id);
console.log(JSON.stringify({ pieces, seen, rest, whole, text: kept.output_text, status: kept.status }));
