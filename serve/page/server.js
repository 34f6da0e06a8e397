// All that this page asks of the server. The token is kept in this module alone, and no longer than the page.

let token = null;

// What went wrong, in the words of the server: what happened, and how to mend it.
export class Trouble extends Error {
  constructor(message, hint = "", status = 0, requestId = "") {
    super(message);
    Object.assign(this, { hint, status, requestId });
  }
}

export function useToken(text) {
  token = text;
}

export const hasToken = () => token !== null;

async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Trouble("the server cannot be reached", "is it still running? try again in a moment");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  if (!answer?.error) throw new Trouble(`the server answered with status ${response.status}`, "", response.status);
  const { message, hint, request_id: requestId } = answer.error;
  throw new Trouble(message, hint, response.status, requestId);
}

const at = (name) => `models/${encodeURIComponent(name)}`;

// {default, models: [{name, default, model, task}]}
export const listModels = async () => (await request("models")).json();

// What GET /models/NAME says: labels, limits, metrics.
export const readModel = async (name) => (await request(at(name))).json();

export const reportAddress = (name) => `${at(name)}/report`;

// The report as a file, for where a link could not carry the token.
export const readReport = async (name) => (await request(reportAddress(name))).blob();

// {answer, split: [[phase, ms]], roundTrip in ms}. `item` is a text, or a Blob with an image.
export async function classify(name, item, topK) {
  const asked = typeof item === "string"
    ? { path: "", type: "application/json", body: JSON.stringify({ inputs: [item], top_k: topK }) }
    : { path: `?top_k=${topK}`, type: item.type.startsWith("image/") ? item.type : "application/octet-stream", body: item };
  const began = performance.now();
  const response = await request(`${at(name)}/classify${asked.path}`, {
    method: "POST", headers: { "Content-Type": asked.type }, body: asked.body,
  });
  const answer = await response.json();
  const roundTrip = performance.now() - began;
  return { answer, roundTrip, split: phases(response.headers.get("server-timing") ?? "") };
}

// "queue;dur=0.1, compute;dur=2.3" as [["queue", 0.1], ["compute", 2.3]].
function phases(header) {
  return [...header.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, phase, ms]) => [phase, Number(ms)]);
}
