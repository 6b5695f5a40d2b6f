// The first screen: choose five items, continue as a user of the data, or open a conversation.
import {call} from "./api.js";
import {byId, el, icon} from "./dom.js";
import {openFile} from "./panels.js";
import {chip, searchBox} from "./search.js";
import {attempt, begin, keptBefore, learn, resume, talk, titled} from "./talk.js";

const WANTED = 5;
const chosen = new Map();
let popular = [], input;

export function setUp() {
  const {thing, things, users} = talk.models;
  byId("start-title").textContent = `Which ${things} do you like?`;
  byId("start-lead").textContent = `Choose five that you like. The model recommends from its `
    + `${talk.models.items.toLocaleString("en")} ${things} and says why. You can then ask for `
    + "something else.";
  byId("popular-title").textContent = "Often liked";
  ({input} = searchBox(byId("start-search"), {label: `Find a ${thing} by its title`,
    hint: "Type a part of a title", take: choose}));
  byId("start-user").hidden = !users;
  byId("start-go").addEventListener("click", () => go([...chosen.keys()]));
  byId("start-talk").addEventListener("click", () => go([]));
  byId("start-load").addEventListener("click", openFile);
  byId("start-continue").addEventListener("click", () => attempt(() => resume(keptBefore())));
  byId("start-user").addEventListener("submit", event => {
    event.preventDefault();
    attempt(() => begin({user: byId("user-id").value.trim()}));
  });
}

/** Shows the first screen. */
export async function start() {
  chosen.clear();
  byId("user-id").value = "";
  byId("start-continue").hidden = !keptBefore();
  draw();
  if (matchMedia("(hover: hover)").matches) input.focus();
  try {
    popular = learn((await call("GET", "/v1/items?q=&k=12")).items);
  } catch {
    popular = [];                    // only the suggestions are missing
  }
  draw();
}

function choose(card) {
  if (chosen.size < 20) chosen.set(card.id, card);
  draw();
}

function draw() {
  const cards = [...chosen.values()];
  byId("start-chosen").replaceChildren(...cards.map(card => el("li", {class: "chosen"},
    el("span", {}, titled(card)),
    el("button", {type: "button", class: "quiet round", "aria-label": `Remove ${titled(card)}`,
      onclick: () => {
        chosen.delete(card.id);
        draw();
        input.focus();
      }}, icon("close")))));
  const rest = popular.filter(card => !chosen.has(card.id)).slice(0, 8);
  byId("start-popular").hidden = !rest.length;
  const list = byId("start-popular").querySelector("ul");
  list.replaceChildren(...rest.map(card => chip(card, choose)));
  byId("start-go").disabled = !chosen.size;
  const left = WANTED - chosen.size;
  byId("start-count").textContent = !chosen.size ? `Choose ${WANTED}`
    : left > 0 ? `${chosen.size} of ${WANTED}; fewer are enough` : `${chosen.size} chosen`;
}

const go = liked => attempt(() => begin(liked.length
  ? {session: {opinions: liked.map(item => ({item, kind: "liked"}))}} : {}));
