// Starts the page, and shows the first screen or the conversation.
import * as chat from "./chat.js";
import * as panels from "./panels.js";
import * as picks from "./picks.js";
import * as starting from "./start.js";
import * as taste from "./taste.js";
import {call} from "./api.js";
import {byId, clearNotice, notice} from "./dom.js";
import {end, keptHere, likedItems, onChange, resume, talk} from "./talk.js";

let conversation = null;               // whether the conversation is shown; null: nothing yet

function show(talking) {
  if (conversation === talking) return;
  conversation = talking;
  byId("loading").hidden = true;
  byId("start").hidden = talking;
  for (const id of ["app", "tabs", "tools"]) byId(id).hidden = !talking;
  scrollTo(0, 0);
  if (talking) {
    const silent = !likedItems().length;
    pane(silent ? "chat" : "picks");
    byId(silent ? "say" : "main").focus({preventScroll: true});
  } else {
    starting.start();
  }
}

/** On a narrow screen one part is shown at a time. */
function pane(name) {
  document.body.dataset.pane = name;
  if (name === "picks") delete byId("tabs").dataset.fresh;
  for (const tab of byId("tabs").children) {
    if (tab.dataset.pane === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

async function boot() {
  try {
    talk.models = await call("GET", "/v1/models");
  } catch (failure) {
    byId("loading").textContent = "Nothing to show yet";
    notice(failure.message, "Try again", boot);
    addEventListener("online", boot, {once: true});
    return;
  }
  if (conversation !== null) return;
  removeEventListener("online", boot);
  talk.models.thing ??= "item";
  const {items, things, data} = talk.models;
  byId("catalogue").textContent = `${items.toLocaleString("en")} ${things}`;
  document.title = `${data[0].label}: ${things} for you`;
  for (const part of [starting, chat, picks, taste, panels]) part.setUp();
  onChange(() => show(true));
  const kept = keptHere();
  if (kept) {
    try {
      await resume(kept);
      return;
    } catch (failure) {
      notice(`The conversation could not be resumed: ${failure.message}`);
    }
  }
  show(false);
}

byId("start-over").addEventListener("click", async () => {
  await end();
  picks.reset();
  clearNotice();
  show(false);
});
for (const tab of byId("tabs").children) {
  tab.addEventListener("click", () => {
    pane(tab.dataset.pane);
    scrollTo(0, 0);
  });
}
boot();
