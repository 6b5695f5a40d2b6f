// The present recommendations: the list of the run's model, and one of another model to compare.
import {byId, el, speak} from "./dom.js";
import {cardOf} from "./cards.js";
import {attempt, firstModel, learn, likedItems, onChange, opinions, post, talk, titled}
  from "./talk.js";

const COMPARED = "ilm.compared", MOST = 50;
const shown = new Map();               // model -> the cards of its last list
let k = 5, newest = 0, drawnFor = null;

export function setUp() {
  k = talk.models.k;
  const others = talk.models.data.slice(1), select = byId("compare-model");
  byId("compare").hidden = !others.length;
  select.append(el("option", {value: ""}, "nothing"),
    ...others.map(({id, label}) => el("option", {value: id}, label)));
  const kept = sessionStorage.getItem(COMPARED);
  if (others.some(({id}) => id === kept)) select.value = kept;
  select.addEventListener("change", () => {
    sessionStorage.setItem(COMPARED, select.value);
    refresh();
  });
  onChange(refresh);
}

/** Forgets the last lists, so that no card of the next list is marked as moved. */
export function reset() {
  shown.clear();
  k = talk.models.k;
  byId("lists").replaceChildren();
}

function refresh() {
  if (!talk.session) return;
  const number = ++newest, beside = byId("compare-model").value;
  const models = [firstModel(), ...beside ? [beside] : []];
  if (!likedItems().length) {
    shown.clear();
    byId("lists").replaceChildren(el("p", {class: "empty"}, `Say which ${talk.models.things} you `
      + "like, in the conversation or under “Your taste”. Recommendations then appear here."));
    return;
  }
  byId("lists").setAttribute("aria-busy", "true");
  attempt(async () => {
    const lists = await Promise.all(models.map(async model =>
      learn((await post("/v1/recommend", {k, model})).recommendations)));
    if (number === newest) draw(models, lists);
  }).then(() => {
    if (number === newest) byId("lists").removeAttribute("aria-busy");
  });
}

function draw(models, lists) {
  const box = byId("lists"), back = focusOf(box), from = places(box);
  const changed = drawnFor !== talk.session, taken = opinions();
  drawnFor = talk.session;
  const open = new Map([...box.querySelectorAll(".card")].map(card => [keyOf(card), card]));
  box.classList.toggle("two", models.length > 1);
  box.replaceChildren(...models.map((model, n) => {
    const cards = lists[n], label = labelOf(model);
    const before = shown.get(model)?.filter(({id}) => !taken.has(id));
    const column = el("section", {"data-model": model, "aria-label": `Ranked by ${label}`});
    if (models.length > 1) column.append(el("h3", {class: "by"}, label));
    column.append(cards.length ? el("ol", {class: "cards"}, cards.map((card, place) => {
      const old = open.get(`${model} ${card.id}`);
      if (old && changed) old.renew();
      const item = old ?? cardOf(card, {rank: place + 1, model});
      item.querySelector(".rank").textContent = place + 1;
      mark(item.querySelector(".mark"), models.length > 1
        ? elsewhere(models[1 - n], lists[1 - n], card) : moved(before, card, place));
      return item;
    })) : el("p", {class: "empty"}, "Nothing fits all your limits. Remove one under “Your "
      + "taste”."));
    return column;
  }));
  if (lists.some(cards => cards.length === k) && k < MOST) {
    box.append(el("button", {type: "button", class: "more", onclick: () => {
      k = Math.min(2 * k, MOST);
      refresh();
    }}, "Show more"));
  }
  models.forEach((model, n) => shown.set(model, lists[n]));
  glide(box, from);
  restore(box, back);
  if (changed && document.body.dataset.pane !== "picks") byId("tabs").dataset.fresh = "yes";
  speak(lists[0].length ? `${lists[0].length} recommended, first ${titled(lists[0][0])}`
    : "Nothing fits all your limits");
}

const labelOf = model => talk.models.data.find(({id}) => id === model).label;

/** The item's place in the other model's list. */
function elsewhere(model, cards, card) {
  const place = cards.findIndex(({id}) => id === card.id);
  return place < 0 ? ["", ""] : [`#${place + 1} in ${labelOf(model)}`, "both"];
}

const keyOf = card => `${card.closest("[data-model]").dataset.model} ${card.dataset.item}`;

function mark(box, [text, kind]) {
  box.textContent = text;
  box.className = text ? `mark ${kind}` : "mark";
}

/** How the item moved since the last list, not counting items that got an opinion meanwhile. */
function moved(before, card, place) {
  if (!before) return ["", ""];
  const was = before.findIndex(({id}) => id === card.id);
  if (was < 0) return place < before.length ? ["new", "new"] : ["", ""];
  return was === place ? ["", ""]
    : was > place ? [`▲ ${was - place}`, "up"] : [`▼ ${place - was}`, "down"];
}

// A liked item leaves the list: the focus moves to the item that takes its place.

function focusOf(box) {
  const at = document.activeElement;
  if (!box.contains(at) || at === box) return null;
  const card = at.closest(".card");
  return {at, does: at.dataset.does, model: at.closest("[data-model]")?.dataset.model,
    place: card ? [...card.parentElement.children].indexOf(card) : 0};
}

function restore(box, back) {
  if (!back || document.activeElement !== document.body) return;
  if (back.at.isConnected) {
    back.at.focus({preventScroll: true});
    return;
  }
  const cards = box.querySelectorAll(`[data-model="${CSS.escape(back.model ?? "")}"] .card`);
  const card = cards[Math.min(back.place, cards.length - 1)];
  card?.querySelector(`[data-does="${back.does}"]`)?.focus({preventScroll: true});
}

const places = box => new Map([...box.querySelectorAll(".card")]
  .map(card => [keyOf(card), card.getBoundingClientRect().top]));

/** Animates cards to their new places, unless the user prefers reduced motion. */
function glide(box, from) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const card of box.querySelectorAll(".card")) {
    const was = from.get(keyOf(card));
    const far = was - card.getBoundingClientRect().top;
    const frames = was === undefined ? [{opacity: 0}, {opacity: 1}]
      : [{transform: `translateY(${far}px)`}, {transform: "none"}];
    card.animate(frames, {duration: 220, easing: "ease-out"});
  }
}
