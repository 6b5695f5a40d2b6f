// Requests to the server. Asks for a token if the server needs one, waits if it is busy.
import {byId, clearNotice, notice, open} from "./dom.js";

const TOKEN = "ilm.token", ATTEMPTS = {429: 5, 503: 12};
const BUSY = {429: "The server is busy.", 503: "The server is not ready."};

export class Failure extends Error {
  /** status 0: the server did not answer. */
  constructor(status, message, code = null) {
    super(message);
    Object.assign(this, {status, code});
  }
}

/** The JSON of the answer. */
export async function call(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json();
}

/** The answer when it succeeds; retries while the server is busy, asks for a token on 401. */
export async function request(method, path, body) {
  for (let attempt = 1; ; attempt++) {
    const token = sessionStorage.getItem(TOKEN);
    const response = await send(method, path, body, token);
    if (response.ok) {
      clearNotice();
      return response;
    }
    if (response.status === 401) {
      if (token === sessionStorage.getItem(TOKEN)) await askForToken(token !== null);
      attempt = 0;
    } else if (response.status in BUSY && attempt < ATTEMPTS[response.status]) {
      const wait = Number(response.headers.get("Retry-After") ?? NaN);
      await pause(BUSY[response.status], Number.isFinite(wait) ? Math.max(wait, 1) : 2 ** attempt);
    } else {
      throw await failure(response);
    }
  }
}

async function send(method, path, body, token) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  try {
    return await fetch(path, {method, headers, body: JSON.stringify(body)});
  } catch {
    throw new Failure(0, navigator.onLine ? "The server does not answer. Is it still running?"
      : "You are offline: the server cannot be reached.");
  }
}

async function failure(response) {
  if (response.status in BUSY) {
    return new Failure(response.status, `${BUSY[response.status]} Try again in a while.`);
  }
  try {
    const {error} = await response.json();
    return new Failure(response.status, error.message, error.code);
  } catch {
    return new Failure(response.status, `The server answered with status ${response.status}.`);
  }
}

async function pause(why, seconds) {
  for (let left = Math.ceil(Math.min(seconds, 60)); left > 0; left--) {
    notice(`${why} Trying again in ${left} s.`);
    await new Promise(done => setTimeout(done, 1000));
  }
  clearNotice();
}

let asking = null;

/** Several requests without a token share one dialog. */
function askForToken(refused) {
  asking ??= new Promise((done, fail) => {
    const dialog = open("token"), input = byId("token-value");
    byId("token-hint").textContent = refused ? "The server did not accept that token. Try another."
      : "The person who started the server knows it. It is kept until you close this tab.";
    input.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (!input.value || dialog.returnValue !== "yes") {
        fail(new Failure(401, "The server needs its token."));
      } else {
        sessionStorage.setItem(TOKEN, input.value);
        done();
      }
      input.value = "";
    }, {once: true});
  });
  return asking;
}

/** The JSON of each event of a streamed answer, up to [DONE]. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split(/\r?\n\r?\n/);
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter(line => line.startsWith("data:"))
        .map(line => line.slice(5).trimStart()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
