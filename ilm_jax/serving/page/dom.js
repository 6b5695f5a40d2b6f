// Small helpers for the document. Data enters it as text only, never as markup.

export const byId = id => document.getElementById(id);

/** An element; "on.." attributes are event listeners, true sets an attribute without a value. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** `run` once, `wait` ms after the last call. */
export function debounced(run, wait) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}

let hideToast;

/** The open dialog. It makes the rest of the page inert, so toasts and notices go into it. */
const host = () => [...document.querySelectorAll("dialog[open]")].at(-1);

/** Says what happened, with a button, e.g. to undo it. */
export function toast(text, label, action) {
  const box = byId("toast");
  (host() ?? document.body).append(box);
  clearTimeout(hideToast);
  box.replaceChildren(el("span", {}, text));
  if (action) {
    box.append(el("button", {type: "button", onclick: () => {
      box.replaceChildren();
      action();
    }}, label));
  }
  hideToast = setTimeout(() => box.replaceChildren(), 6000);
}

/** Text for screen readers only. */
export const speak = text => { byId("spoken").textContent = text; };

/** A line above everything, for errors that keep the page from working. */
export function notice(text, label, action) {
  const box = byId("notice"), dialog = host();
  if (dialog) dialog.prepend(box);
  else byId("main").before(box);
  box.replaceChildren(el("span", {}, text));
  if (action) {
    box.append(el("button", {type: "button", onclick: () => {
      clearNotice();
      action();
    }}, label));
  }
  box.append(el("button", {type: "button", class: "quiet round", "aria-label": "Close",
    onclick: clearNotice}, icon("close")));
  box.hidden = false;
}

export function clearNotice() {
  byId("notice").hidden = true;
  byId("notice").replaceChildren();
}

/** Whether a click was outside the dialog; the dialog's padding counts as inside. */
function outside(dialog, {target, clientX, clientY}) {
  const {left, right, top, bottom} = dialog.getBoundingClientRect();
  return target === dialog
    && (clientX < left || clientX > right || clientY < top || clientY > bottom);
}

/** Opens a dialog; Escape, a click outside it and its buttons with data-close close it. */
export function open(id) {
  const dialog = byId(id);
  if (!dialog.dataset.ready) {
    dialog.dataset.ready = "yes";
    for (const button of dialog.querySelectorAll("[data-close]")) {
      button.addEventListener("click", () => dialog.close());
    }
    dialog.addEventListener("click", event => { if (outside(dialog, event)) dialog.close(); });
    dialog.addEventListener("close", () => {
      if (dialog.contains(byId("toast"))) document.body.append(byId("toast"));
      if (dialog.contains(byId("notice"))) byId("main").before(byId("notice"));
    });
  }
  if (!dialog.open) dialog.showModal();
  return dialog;
}
