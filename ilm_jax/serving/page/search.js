// An input that searches the catalogue: arrow keys move, Enter takes, Escape closes.
import {call} from "./api.js";
import {debounced, el} from "./dom.js";
import {attempt, learn, titled} from "./talk.js";

let count = 0;

/**
 * Fills `box` with a labelled search; `take` gets the chosen card.
 * keep: whether the input keeps the chosen title; if not, it is emptied for the next search.
 */
export function searchBox(box, {label, hint = "", take, keep = false, quiet = false}) {
  const id = `search-${++count}`;
  let cards = [], at = -1, asked = "", chosen = "";
  const input = el("input", {id, type: "text", role: "combobox", placeholder: hint,
    autocomplete: "off", spellcheck: "false", "aria-expanded": "false",
    "aria-autocomplete": "list", "aria-controls": `${id}-list`});
  const list = el("ul", {id: `${id}-list`, class: "options", role: "listbox", "aria-label": label,
    hidden: true});
  box.classList.add("search");
  box.replaceChildren(el("label", {for: id, class: quiet ? "hidden" : ""}, label), input, list);

  const close = () => {
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = card => {
    close();
    set(keep ? titled(card) : "");
    take(card);
  };
  const set = text => { chosen = asked = input.value = text; };
  const point = to => {
    at = to;
    for (const [n, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", String(n === at));
      if (n === at) option.scrollIntoView({block: "nearest"});
    }
    input.setAttribute("aria-activedescendant", `${id}-${at}`);
  };
  const show = () => {
    list.replaceChildren(...cards.map((card, n) => el("li", {id: `${id}-${n}`, role: "option",
      "aria-selected": "false", onpointerdown: event => event.preventDefault(),
      onclick: () => choose(card)}, el("span", {}, titled(card)),
    el("small", {}, card.genres.join(", ")))));
    if (!cards.length) list.append(el("li", {class: "none"}, "No title matches"));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (cards.length) point(0);
  };
  const search = debounced(() => attempt(async () => {
    const wish = asked;
    const answer = await call("GET", `/v1/items?q=${encodeURIComponent(wish)}&k=8`);
    if (wish !== asked || document.activeElement !== input) return;
    cards = learn(answer.items);
    show();
  }), 150);

  input.addEventListener("input", () => {
    asked = input.value.trim();
    if (asked) search();
    else close();
  });
  input.addEventListener("blur", () => {
    close();
    if (keep) set(chosen);             // removes text that was typed but not taken
  });
  input.addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      if (!list.hidden && cards[at]) choose(cards[at]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key) && !list.hidden && cards.length) {
      event.preventDefault();
      point((at + (event.key === "ArrowDown" ? 1 : cards.length - 1)) % cards.length);
    }
  });
  return {input, set: card => set(titled(card))};
}

/** A title as a button: the suggestions of the first screen. */
export const chip = (card, take) => el("li", {},
  el("button", {type: "button", class: "chip", onclick: () => take(card)}, titled(card)));
