// Dialogs over the page: the text between two items, and the conversation as JSON.
import {call} from "./api.js";
import {byId, debounced, el, notice, open, toast} from "./dom.js";
import {searchBox} from "./search.js";
import {attempt, begin, firstModel, known, likedItems, talk} from "./talk.js";

export function setUp() {
  setUpBetween();
  setUpJson();
}

// Between two items.

const ends = {first: null, second: null};
const texts = new Map();
let boxes, newest = 0;

function setUpBetween() {
  const {thing} = talk.models;
  byId("between-hint").textContent = `Every ${thing} is a vector, and the language model reads `
    + "vectors. Move between two of them, and it describes the vector at that place.";
  boxes = Object.fromEntries([["first", `First ${thing}`], ["second", `Second ${thing}`]].map(
    ([end, label]) => [end, searchBox(byId(`between-${end}`), {label, keep: true,
      hint: "Type a part of a title", take: card => set(end, card)})]));
  byId("share").addEventListener("input", () => {
    place();
    ask();
  });
  byId("open-between").addEventListener("click", () => {
    const shown = [...document.querySelectorAll("#lists .card")].map(card => card.dataset.item);
    for (const end of ["first", "second"]) {
      if (ends[end]) continue;
      const item = [...likedItems().slice(-2), ...shown].find(
        each => each !== ends.first?.id && each !== ends.second?.id);
      if (item) set(end, known(item));
    }
    open("between");
    if (ends.first && ends.second) byId("share").focus();
  });
}

function set(end, card) {
  ends[end] = card;
  boxes[end].set(card);
  byId(`name-${end}`).textContent = card.title;
  byId("share").disabled = !(ends.first && ends.second);
  place();
  ask();
}

const share = () => byId("share").valueAsNumber / 10;

function place() {
  const percent = Math.round(100 * share());
  const text = `${100 - percent} : ${percent}`;
  byId("share-text").textContent = text;
  byId("share").setAttribute("aria-valuetext",
    `${100 - percent} % ${ends.first?.title ?? ""}, ${percent} % ${ends.second?.title ?? ""}`);
}

const ask = debounced(() => {
  if (!(ends.first && ends.second)) return;
  const wish = {first: ends.first.id, second: ends.second.id, share: share(), model: firstModel()};
  const key = JSON.stringify(wish), number = ++newest, box = byId("between-text");
  const write = text => {
    if (number !== newest) return;
    box.classList.remove("waiting");
    box.textContent = text;
  };
  if (texts.has(key)) {
    write(texts.get(key));
    return;
  }
  byId("between-said").hidden = false;
  box.classList.add("waiting");
  if (!box.textContent) box.textContent = "One moment";
  call("POST", "/v1/between", wish).then(({text}) => {
    texts.set(key, text);
    write(text);
  }).catch(failure => write(failure.message));
}, 350);

// The conversation as a file.

function setUpJson() {
  const text = () => byId("json-text").textContent;
  byId("open-json").addEventListener("click", () => {
    byId("json-text").textContent = JSON.stringify(talk.session, null, 1);
    open("json").scrollTop = 0;
  });
  byId("json-load").addEventListener("click", openFile);
  byId("json-copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      byId("json-copy").textContent = "Copied";
      setTimeout(() => { byId("json-copy").textContent = "Copy"; }, 2000);
    } catch {
      getSelection().selectAllChildren(byId("json-text"));
    }
  });
  byId("json-save").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([text()], {type: "application/json"}));
    el("a", {href: url, download: "conversation.json"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  byId("file").addEventListener("change", load);
}

/** Asks for a file, and continues its conversation. */
export const openFile = () => byId("file").click();

async function load() {
  const [file] = byId("file").files;
  byId("file").value = "";
  if (!file) return;
  byId("json").close();
  let session;
  try {
    session = JSON.parse(await file.text());
  } catch {
    notice(`${file.name} is not a JSON file. Open a conversation that was downloaded here.`);
    return;
  }
  if (await attempt(() => begin({session}))) toast(`Opened ${file.name}`);
}
