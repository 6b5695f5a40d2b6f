// The conversation: its turns, and the input for the next one.
import {byId, el} from "./dom.js";
import {showSheet} from "./cards.js";
import {attempt, chat, known, onChange, talk} from "./talk.js";

let drawn = [];                       // JSON of each turn on the page
let waiting = false;

export function setUp() {
  const {genres} = talk.models, say = byId("say");
  say.placeholder = "Say what you like or want";
  const genre = genres.includes("Drama") ? "Drama" : genres[0];
  const ideas = ["Something newer", ...genre ? [`More ${genre.toLowerCase()}`,
    `No ${genres.at(genres.indexOf("Horror")).toLowerCase()}`] : [], "Why number 1?"];
  byId("ideas").append(...ideas.map(idea => el("button", {type: "button", class: "chip",
    onclick: () => send(idea)}, idea)));
  byId("composer").addEventListener("submit", event => {
    event.preventDefault();
    send(say.value);
  });
  say.addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(say.value);
    }
  });
  say.addEventListener("input", fit);
  onChange(draw);
  let height = 0;                      // of the log; 0 while it is hidden and cannot scroll
  new ResizeObserver(([{contentRect}]) => {
    if (!height && contentRect.height) bottom();
    height = contentRect.height;
  }).observe(byId("log"));
}

/** Makes the input as high as its text, up to a limit in the style sheet. */
function fit() {
  const say = byId("say");
  say.style.height = "auto";
  say.style.height = `${say.scrollHeight + 2}px`;
}

async function send(text) {
  text = text.trim();
  if (!text || waiting) return;
  const say = byId("say"), log = byId("log");
  const typed = say.value.trim() === text;
  waiting = true;
  if (typed) {
    say.value = "";
    fit();
  }
  const reply = el("p", {class: "text"}, el("span", {class: "dots", "aria-label": "Writing"}));
  const pending = [turnOf({role: "user", text, items: []}),
    el("div", {class: "turn recommender", "aria-busy": "true"}, reply)];
  log.append(...pending);
  bottom();
  let started = false;
  const done = await attempt(() => chat(text, heard => {
    if (!started) {
      started = true;
      pending.forEach(node => node.remove());     // `draw` writes both when the reply is complete
      log.append(...pending);
    }
    reply.textContent = heard;
    bottom();
  }), false);                          // no retry: below, the text goes back into the input
  pending.forEach(node => node.remove());
  waiting = false;
  if (!done && typed && !say.value) {
    say.value = text;
    fit();
  }
  bottom();
}

/** Redraws the first changed turn and all after it; screen readers do not repeat the others. */
function draw() {
  const log = byId("log"), turns = talk.session?.turns ?? [];
  const now = turns.map(turn => JSON.stringify(turn));
  log.querySelectorAll(".turn[aria-busy], .greeting").forEach(node => node.remove());
  let same = 0;
  while (same < now.length && now[same] === drawn[same]) same++;
  [...log.children].slice(same).forEach(node => node.remove());
  log.append(...turns.slice(same).map(turnOf));
  drawn = now;
  if (!turns.length) {
    log.append(el("div", {class: "turn recommender greeting"}, el("p", {class: "text"},
      "Tell me what you liked and what you did not, in your words. Ask for “something newer”, "
      + "“less romance”, “from the nineties”, or ask why.")));
  }
  bottom();
}

function turnOf({role, text, items}) {
  const turn = el("div", {class: `turn ${role}`},
    el("span", {class: "hidden"}, role === "user" ? "You: " : "Reply: "));
  const words = items.length ? text.split("\n").filter(line => !/^\d+\. /.test(line)) : [text];
  const said = words.join("\n").trim();
  if (said) turn.append(el("p", {class: "text"}, said));
  if (role === "recommender" && items.length) {
    turn.append(el("ol", {class: "titles"}, items.map(known).map(item => el("li", {},
      el("button", {type: "button", onclick: () => showSheet(item.title, [item])},
        el("span", {}, item.title), el("small", {}, item.year ?? ""))))));
  }
  return turn;
}

function bottom() {
  const log = byId("log");
  log.scrollTop = log.scrollHeight;
}
