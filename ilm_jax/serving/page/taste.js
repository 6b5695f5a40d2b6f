// What is known of the user: sliders, limits and opinions; each can be removed.
import {byId, debounced, el, icon, toast} from "./dom.js";
import {searchBox} from "./search.js";
import {constraint, edit, known, likedItems, onChange, opinions, say, setSteps, steps, talk,
  titled, undo, wanted} from "./talk.js";

const FIRST = 5, MOST = 8, LIMIT = 3;
const PARTS = [["liked", "You like"], ["disliked", "You dislike"], ["seen", "You have seen"]];
const whole = new Set();              // parts that show all their lines
const sliders = new Map();            // attribute -> its row
let first = {};                       // {id, names}: the sliders that this session begins with

export function setUp() {
  byId("undo").addEventListener("click", undo);
  byId("attribute").addEventListener("input", drawSliders);
  byId("attribute-box").hidden = talk.models.attributes.length <= FIRST;
  byId("attribute").placeholder = `Find another, e.g. ${talk.models.attributes.at(-1)}`;
  byId("filter-genres").hidden = !talk.models.genres.length;
  byId("filter-genre").append(...talk.models.genres.map(genre => el("option", {}, genre)));
  byId("add-genre").addEventListener("click", addGenre);
  byId("filters").addEventListener("submit", addYears);
  byId("filters").addEventListener("input", () => byId("last-year").setCustomValidity(""));
  onChange(() => {
    if (!talk.session) return;
    byId("undo").disabled = !talk.earlier.length;
    drawSliders();
    drawKnown();
  });
}

// Sliders.

function drawSliders() {
  const typed = byId("attribute").value.trim().toLowerCase(), moved = steps();
  const {attributes} = talk.models;
  const names = typed ? attributes.filter(name => name.includes(typed)).slice(0, MOST)
    : [...new Set([...firstOf(attributes), ...moved.keys()])];
  const rows = names.map(name => sliderOf(name, moved.get(name) ?? 0));
  if (!rows.length) rows.push(el("p", {class: "hint"}, "No attribute has this name."));
  const box = byId("sliders");
  if (rows.length !== box.children.length || rows.some((row, n) => row !== box.children[n])) {
    box.replaceChildren(...rows);
  }
}

/** The year and the genres that the user likes most often, as of the first likes. */
function firstOf(attributes) {
  if (first.id !== talk.id || !first.liked) {
    const count = new Map(), liked = likedItems();
    for (const genre of liked.flatMap(item => known(item).genres)) {
      count.set(genre.toLowerCase(), (count.get(genre.toLowerCase()) ?? 0) + 1);
    }
    const weight = name => name === "new" ? Infinity : count.get(name) ?? 0;
    first = {id: talk.id, liked: liked.length, names: [...attributes]
      .sort((a, b) => (weight(b) > weight(a)) - (weight(b) < weight(a))).slice(0, FIRST)};
  }
  return first.names;
}

const valueText = value => value === 0 ? "unchanged"
  : `${Math.abs(value)} ${Math.abs(value) === 1 ? "step" : "steps"} ${value > 0 ? "more" : "less"}`;

/** The slider of an attribute, created once, so that it keeps the focus while it moves. */
function sliderOf(name, value) {
  let row = sliders.get(name);
  if (!row) {
    const input = el("input", {type: "range", min: -LIMIT, max: LIMIT, step: 1, id: `way-${name}`,
      title: `${name}: less to the left, more to the right`});
    const output = el("output", {for: input.id});
    const send = debounced(async () => {
      const wish = input.valueAsNumber;
      await setSteps(name, wish);
      if (input.valueAsNumber !== wish) return;
      delete input.dataset.moving;
      drawSliders();                   // after a failure: where it was
    }, 300);
    input.addEventListener("input", () => {
      input.dataset.moving = "yes";
      label(input, output, input.valueAsNumber);
      send();
    });
    row = el("div", {class: "slider"}, el("label", {for: input.id},
      name === "new" ? "newer" : name), input, output);
    sliders.set(name, row);
  }
  const input = row.querySelector("input");
  if (!input.dataset.moving) {
    input.value = value;
    label(input, row.querySelector("output"), value);
  }
  return row;
}

function label(input, output, value) {
  output.textContent = value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "";
  input.setAttribute("aria-valuetext", valueText(value));
  const share = `${50 + 50 * input.valueAsNumber / LIMIT}%`;
  input.style.setProperty("--from", value < 0 ? share : "50%");
  input.style.setProperty("--to", value < 0 ? "50%" : share);
}

// What the user said.

function drawKnown() {
  const of = new Map(PARTS.map(([kind]) => [kind, []]));
  for (const [item, kind] of opinions()) of.get(kind).unshift(item);
  const blocks = PARTS.map(([kind, title]) => part(title, kind, of.get(kind).map(item => ({
    text: titled(known(item)), remove: async () => done(await say("forget", item))}))));
  blocks.unshift(part("You asked for", "asked", [...critiqueLines(), ...limitLines()]));
  const active = document.activeElement?.closest("#known li");
  const place = active ? [...byId("known").querySelectorAll("li")].indexOf(active) : -1;
  byId("known").replaceChildren(...blocks.filter(Boolean));
  addBox();
  if (place >= 0) {
    const lines = byId("known").querySelectorAll("li button");
    (lines[Math.min(place, lines.length - 1)] ?? byId("undo")).focus({preventScroll: true});
  }
}

function critiqueLines() {
  return [...steps()].filter(([, value]) => value).map(([name, value]) => ({
    text: wanted(name, value > 0) + (Math.abs(value) === 1 ? "" : `, ${Math.abs(value)} steps`),
    remove: async () => done(await setSteps(name, 0) && `Removed: ${wanted(name, value > 0)}`)}));
}

function limitLines() {
  const now = constraint(), lines = [];
  const without = (key, value) => async () => done(await edit({do: "constrain",
    genres: now.genres, without: now.without, years: now.years, [key]: value}) && "Limit removed");
  for (const [key, word] of [["genres", "only"], ["without", "no"]]) {
    lines.push(...now[key].map(genre => ({text: `${word} ${genre}`,
      remove: without(key, now[key].filter(each => each !== genre))})));
  }
  const [first, last] = now.years;
  if (first !== null || last !== null) {
    const text = first === null ? `until ${last}` : last === null ? `from ${first}`
      : first === last ? `of ${first}` : `from ${first} to ${last}`;
    lines.push({text, remove: without("years", [null, null])});
  }
  return lines;
}

const done = words => words && toast(words, "Undo", undo);

function part(title, kind, lines) {
  if (!lines.length) return null;
  const some = whole.has(kind) ? lines : lines.slice(0, MOST);
  const block = el("section", {class: "part", "aria-label": title, "data-part": kind},
    el("h3", {}, title, lines.length > 1 ? el("small", {}, ` ${lines.length}`) : ""),
    el("ul", {}, some.map(({text, remove}) => el("li", {}, el("span", {}, text),
      el("button", {type: "button", class: "quiet round", "aria-label": `Remove ${text}`,
        onclick: remove}, icon("close"))))));
  if (lines.length > MOST) {
    block.append(el("button", {type: "button", class: "quiet", onclick: () => {
      if (!whole.delete(kind)) whole.add(kind);
      drawKnown();
    }}, whole.has(kind) ? "Show fewer" : `Show all ${lines.length}`));
  }
  return block;
}

const adder = el("div", {class: "add"});

/** The input for a liked item keeps its place and its text while the lines change. */
function addBox() {
  if (!adder.childElementCount) {
    searchBox(adder, {label: `Add a ${talk.models.thing} that you like`, quiet: true,
      hint: `Add a ${talk.models.thing} you like`,
      take: async card => done(await say("like", card.id))});
  }
  const after = byId("known").querySelector('[data-part="liked"]');
  if (after) after.append(adder);
  else byId("known").append(adder);
}

// New limits.

async function addGenre() {
  const key = byId("filter-kind").value, now = constraint()[key];
  const genre = byId("filter-genre").value;
  if (now.some(each => each.toLowerCase() === genre.toLowerCase())) return;
  done(await edit({do: "constrain", [key]: [...now, genre]}) && "Limit added");
}

async function addYears(event) {
  event.preventDefault();
  const boxes = [byId("first-year"), byId("last-year")], end = boxes[1];
  const years = boxes.map(box => box.value ? box.valueAsNumber : null);
  end.setCustomValidity(years[0] !== null && years[1] !== null && years[0] > years[1]
    ? "The last year is before the first." : "");
  if (!end.reportValidity() || years.every(year => year === null)) return;
  if (await edit({do: "constrain", years})) {
    for (const box of boxes) box.value = "";
    done("Limit added");
  }
}
