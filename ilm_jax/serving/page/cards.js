// A recommended item: its title and details, and its buttons.
import {call} from "./api.js";
import {byId, el, icon, open, toast} from "./dom.js";
import {attempt, firstModel, learn, onChange, opinions, post, say, talk, titled, undo}
  from "./talk.js";

const OPINIONS = [["like", "liked", "Like"], ["dislike", "disliked", "Dislike"],
  ["seen", "seen", "Seen"]];
const KIND_OF = Object.fromEntries(OPINIONS);

/**
 * The card as a list item; its `renew()` requests the reasons again if they are open.
 * rank: its number or null; model: whose reasons "Why?" gives.
 */
export function cardOf(card, {rank = null, model = firstModel()} = {}) {
  const reasons = el("div", {class: "why", id: `why-${model}-${card.id}`, role: "region",
    "aria-live": "polite", "aria-label": `Why ${card.title}`, hidden: true});
  const name = `${card.id}-name-${model}`;
  const said = opinions().get(card.id);
  const why = el("button", {type: "button", class: "quiet", "data-does": "why",
    "aria-expanded": "false", "aria-controls": reasons.id, "aria-describedby": name,
    onclick: () => toggleWhy(card, model, why, reasons)}, "Why?");
  const node = el("li", {class: "card", "data-item": card.id},
    el("div", {class: "what"},
      rank === null ? null : el("span", {class: "rank", "aria-hidden": "true"}, rank),
      el("div", {class: "name"}, el("h3", {id: name}, card.title),
        el("p", {class: "meta"}, [card.year, card.genres.join(", ")].filter(Boolean).join(" · "))),
      el("span", {class: "mark"})),
    el("div", {class: "actions", role: "group", "aria-labelledby": name},
      OPINIONS.map(([does, kind, label]) => el("button", {type: "button", class: "quiet opinion",
        "data-does": does, "aria-pressed": String(said === kind), "aria-describedby": name,
        title: label, onclick: () => give(does, card)}, icon(kind), el("span", {}, label))),
      el("span", {class: "break"}),
      el("button", {type: "button", class: "quiet", "data-does": "similar",
        "aria-describedby": name, onclick: () => showSimilar(card)}, "More like this"),
      why),
    reasons);
  node.renew = () => {
    reasons.replaceChildren();
    if (!reasons.hidden) giveReasons(card, model, reasons);
  };
  return node;
}

async function give(does, card) {
  const again = opinions().get(card.id) === KIND_OF[does];
  const words = await say(again ? "forget" : does, card.id);
  if (words) toast(words, "Undo", undo);
}

/** Marks opinions about the items in the sheet; lists leave out items with an opinion. */
function press() {
  const kinds = talk.session ? opinions() : new Map();
  for (const button of byId("sheet").querySelectorAll(".opinion")) {
    const kind = kinds.get(button.closest(".card").dataset.item);
    button.setAttribute("aria-pressed", String(kind === KIND_OF[button.dataset.does]));
  }
}
onChange(press);

function toggleWhy(card, model, button, reasons) {
  reasons.hidden = !reasons.hidden;
  button.setAttribute("aria-expanded", String(!reasons.hidden));
  if (!reasons.hidden && !reasons.childElementCount) giveReasons(card, model, reasons);
}

function giveReasons(card, model, reasons) {
  const wait = el("p", {class: "hint"}, "One moment");
  reasons.replaceChildren(wait);
  const body = {item: card.id, model};
  attempt(async () => {
    const {why} = await post("/v1/explain", body);
    const about = el("button", {type: "button", onclick: async () => {
      about.disabled = true;
      about.textContent = "The language model is thinking";
      const done = await attempt(async () => {
        const answer = await post("/v1/explain", {...body, about: true});
        about.replaceWith(el("p", {class: "quote"}, answer.about ?? "The model says nothing."));
      });
      if (!done) Object.assign(about, {disabled: false, textContent: ASK});
    }}, ASK);
    if (wait.isConnected || !reasons.isConnected) {
      reasons.replaceChildren(...why.split("\n").map(line => el("p", {}, line)), about);
    }
  }).then(done => { if (!done) wait.textContent = "The server gave no answer."; });
}

const ASK = "Ask the language model about it";

/** Cards over the page, under a title. */
export function showSheet(title, cards, options = {}) {
  byId("sheet-title").textContent = title;
  byId("sheet-body").replaceChildren(cards.length
    ? el("ul", {class: "cards"}, cards.map(card => cardOf(card, options)))
    : el("p", {class: "hint"}, "Nothing found."));
  open("sheet").scrollTop = 0;
  byId("sheet-title").focus();
}

const showSimilar = card => attempt(async () => {
  const answer = await call("POST", "/v1/similar", {item: card.id, k: 6});
  showSheet(`More like ${titled(card)}`, learn(answer.recommendations));
});
