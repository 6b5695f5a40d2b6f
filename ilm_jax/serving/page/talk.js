// What the page knows: a copy of the server's session, and the titles of items.
import {call, events, request} from "./api.js";
import {notice} from "./dom.js";

const KEPT = "ilm.session", EARLIER = "ilm.earlier", UNDO_LIMIT = 20;
const KINDS = {like: "Liked", dislike: "Disliked", seen: "Marked as seen", forget: "Forgot"};

/** `models` is the answer of /v1/models; `earlier` are the sessions that undo returns to. */
export const talk = {id: null, session: null, models: null, earlier: []};

const items = new Map(), listeners = [];
let busy = Promise.resolve();

export const onChange = listener => listeners.push(listener);
export const known = item => items.get(item) ?? {id: item, title: item, year: null, genres: []};
export const titled = item => item.year ? `${item.title} (${item.year})` : item.title;
export const firstModel = () => talk.models.data[0].id;

/** Stores the titles of cards, and returns the cards. */
export function learn(cards) {
  for (const {id, title, year, genres} of cards) items.set(id, {id, title, year, genres});
  return cards;
}

async function learnAll(session) {
  const wanted = new Set([...session.opinions.map(each => each.item),
    ...session.turns.flatMap(turn => turn.items)]);
  const missing = [...wanted].filter(item => !items.has(item));
  for (let n = 0; n < missing.length; n += 100) {
    const ids = missing.slice(n, n + 100).map(encodeURIComponent).join(",");
    learn((await call("GET", `/v1/items?ids=${ids}`)).items);
  }
}

/** The user's present opinions: {item: "liked" | "disliked" | "seen"}, oldest first. */
export function opinions() {
  const last = new Map();
  for (const {item, kind} of talk.session.opinions) last.set(item, kind);
  return last;
}

export const likedItems = () => [...opinions()].filter(([, kind]) => kind === "liked")
  .map(([item]) => item);

export const constraint = () => talk.session.constraints.at(-1)
  ?? {genres: [], without: [], years: [null, null]};

/** Steps by attribute, critiques added up; of the year the last. */
export function steps() {
  const sum = new Map();
  for (const each of talk.session.critiques) {
    const before = each.attribute === "new" ? 0 : sum.get(each.attribute) ?? 0;
    sum.set(each.attribute, before + each.steps);
  }
  return sum;
}

// Where the session is kept: in this tab's storage, for a reload, and a copy for a later tab.

const read = (storage, key = KEPT) => {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
};
export const keptHere = () => read(sessionStorage);
export const keptBefore = () => read(localStorage);

async function show({id, session}) {
  await learnAll(session);
  Object.assign(talk, {id, session});
  const kept = JSON.stringify({id, session});
  for (const [storage, key, value] of [[sessionStorage, KEPT, kept], [localStorage, KEPT, kept],
    [sessionStorage, EARLIER, JSON.stringify(talk.earlier)]]) {
    try {
      storage.setItem(key, value);
    } catch {
      // If the storage is full, a reload loses the session, but the conversation goes on.
    }
  }
  for (const listener of listeners) listener();
}

// Changes run one after another, so that each starts from the newest session.

function inOrder(run) {
  const result = busy.then(run);
  busy = result.catch(() => {});
  return result;
}

/** Runs `run`; if the server no longer knows the session, creates it again and runs it again. */
async function withSession(run) {
  try {
    return await run();
  } catch (failure) {
    if (failure.code !== "session_not_found") throw failure;
    talk.id = (await call("POST", "/v1/sessions", {session: talk.session})).id;
    return run();
  }
}

/** POST with the session's id. */
export const post = (path, body) => withSession(
  () => call("POST", path, {session_id: talk.id, ...body}));

const patch = body => withSession(() => call("PATCH", `/v1/sessions/${talk.id}`, body));

/** A new conversation: {} or {user} or {session}. */
export const begin = wish => inOrder(async () => {
  const begun = await call("POST", "/v1/sessions", wish);
  talk.earlier = [];
  await show(begun);
});

/** Continues a kept session; the server may have forgotten it. */
export const resume = kept => inOrder(async () => {
  Object.assign(talk, kept, {earlier: read(sessionStorage, EARLIER) ?? []});
  await show(await withSession(() => call("GET", `/v1/sessions/${talk.id}`)));
});

/** Ends the conversation here and on the server. */
export const end = () => inOrder(async () => {
  const {id} = talk;
  Object.assign(talk, {id: null, session: null, earlier: []});
  for (const key of [KEPT, EARLIER]) sessionStorage.removeItem(key);
  localStorage.removeItem(KEPT);
  await call("DELETE", `/v1/sessions/${encodeURIComponent(id)}`).catch(() => {});
});

function remember(session) {
  talk.earlier.push(session);
  talk.earlier.splice(0, talk.earlier.length - UNDO_LIMIT);
}

/** Changes the session; false if that failed: then a notice says why. */
export const edit = (...edits) => attempt(() => inOrder(async () => {
  const before = talk.session;
  const after = await patch({edits});
  remember(before);
  await show(after);
}));

/** Records an opinion about an item; returns the words that confirm it, null if it failed. */
export async function say(does, item) {
  return await edit({do: does, item}) ? `${KINDS[does]}: ${titled(known(item))}` : null;
}

/** What a critique asks for, in words. */
export const wanted = (attribute, more) => attribute === "new" ? (more ? "newer" : "older")
  : `${more ? "more" : "less"} ${attribute}`;

/** Sets an attribute to `value` steps: replaces earlier critiques of it. */
export function setSteps(attribute, value) {
  const old = talk.session.critiques.flatMap((each, n) => each.attribute === attribute ? [n] : []);
  const edits = old.reverse().map(number => ({do: "remove", part: "critiques", number}));
  if (value) edits.push({do: "critique", attribute, steps: value});
  return edits.length ? edit(...edits) : true;
}

/** Undoes the last change made on this page, which may be several edits. */
export const undo = () => attempt(() => inOrder(async () => {
  const session = talk.earlier.at(-1);
  if (!session) return;
  const after = await patch({session});
  talk.earlier.pop();
  await show(after);
}));

/** Sends a message; `heard` gets the part of the reply that has arrived, each time it grows. */
export const chat = (text, heard) => inOrder(async () => {
  const before = talk.session;
  let reply = "", last = {};
  const response = await withSession(() => request("POST", "/v1/chat/completions", {
    session_id: talk.id, model: firstModel(), stream: true,
    messages: [{role: "user", content: text}]}));
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    reply += event.choices?.[0]?.delta?.content ?? "";
    if (event.session) last = event;
    heard(reply);
  }
  const after = last.session ? {id: talk.id, session: last.session}
    : await call("GET", `/v1/sessions/${talk.id}`);
  learn(last.recommendations ?? []);
  remember(before);
  await show(after);
});

/** Runs `run`; false if it failed: then a notice says why, with a button to try again. */
export async function attempt(run, retry = true) {
  try {
    await run();
    return true;
  } catch (failure) {
    const again = retry && [0, 401, 429, 503].includes(failure.status);
    notice(failure.message, "Try again", again ? () => attempt(run) : undefined);
    return false;
  }
}
