// A person is asked before a tool is called: node approve.mjs CLIENT BASE_URL MCP_URL yes|no. Prints what came of it, as JSON.
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';

const [client, baseURL, server_url, decision] = process.argv.slice(2);
const approve = decision === 'yes';
const question = 'charge {"number": 7}';

async function openai(streamed) {
  const api = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
  const tools = [{ type: 'mcp', server_label: 'till', server_url, require_approval: 'always' }];
  const make = (body) => {
    const whole = { model: 'simulated', tools, ...body };
    return streamed ? api.responses.stream(whole).finalResponse() : api.responses.create(whole);
  };
  const first = await make({ input: question });
  const asked = first.output.filter((item) => item.type === 'mcp_approval_request');
  const input = asked.map(({ id }) => ({ type: 'mcp_approval_response', approval_request_id: id, approve }));
  const last = await make({ input, previous_response_id: first.id });
  let again = null;
  try {
    await make({ input, previous_response_id: first.id });
  } catch (error) {
    again = { status: error.status, code: error.code, param: error.param };
  }
  const calls = last.output.filter((item) => item.type === 'mcp_call' && item.output !== null);
  return {
    asked: asked.map((item) => [item.name, JSON.parse(item.arguments)]),
    calls: calls.map((item) => [item.name, item.output, item.approval_request_id === asked[0].id]),
    text: last.output_text,
    again,
  };
}

async function vercel(streamed) {
  const provider = createOpenAI({ baseURL, apiKey: 'none' });
  const tools = { mcp: provider.tools.mcp({ serverLabel: 'till', serverUrl: server_url, requireApproval: 'always' }) };
  const ask = async (messages) => {
    const whole = { model: provider.responses('simulated'), tools, messages, maxRetries: 0 };
    if (!streamed) return generateText(whole);
    const going = streamText({ ...whole, onError: ({ error }) => { throw error; } });
    await going.consumeStream();
    return { content: await going.content, text: await going.text, response: await going.response };
  };
  const messages = [{ role: 'user', content: question }];
  const first = await ask(messages);
  const asked = first.content.filter((part) => part.type === 'tool-approval-request');
  // What the provider executes is answered to the provider.
  const answer = { type: 'tool-approval-response', approved: approve, providerExecuted: true };
  const answers = asked.map(({ approvalId }) => ({ ...answer, approvalId }));
  const last = await ask([...messages, ...first.response.messages, { role: 'tool', content: answers }]);
  const results = last.content.filter((part) => part.type === 'tool-result');
  return {
    asked: asked.map(({ toolCall }) => [toolCall.toolName, toolCall.input]),
    calls: results.map((part) => [part.toolName, part.output.output, true]),
    text: last.text,
  };
}

const clients = {
  openai: () => openai(false),
  'openai-streamed': () => openai(true),
  'ai-sdk-openai': () => vercel(false),
  'ai-sdk-openai-streamed': () => vercel(true),
};
console.log(JSON.stringify(await clients[client]()));
