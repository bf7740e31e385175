// Elements are made of names and texts only: nothing that came from a prompt is ever read as markup.

export const byId = (id) => document.getElementById(id);

export function element(name, values = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    else if (key === "text") made.textContent = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A click with Shift is about all from where the focus is: the browser is not to move that before, nor to mark texts.
export function keepsFocusForShift(root) {
  root.addEventListener("mousedown", (event) => {
    if (event.shiftKey) event.preventDefault();
  });
}

export const number = (value) => new Intl.NumberFormat("en").format(value);

export const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;

export function tell(text) {
  const told = byId("told");
  told.textContent = told.textContent === text ? `${text} ` : text; // what is said twice is told twice
}

// In view for a while, above whatever is open.
export function notice(text) {
  tell(text);
  const box = byId("notice");
  box.textContent = text;
  if (box.matches(":popover-open")) box.hidePopover();
  box.showPopover();
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => box.hidePopover(), 6000);
}

export const stars = (rating) => (rating ? "★".repeat(rating) : "");

export function sayOf(row) {
  const said = [];
  if (row.rating) said.push(plural(row.rating, "star", "stars"));
  if (row.picked) said.push("picked");
  if (row.rejected) said.push("rejected");
  if (row.user_tags.length) said.push(`tags ${row.user_tags.join(", ")}`);
  return said.join(", ");
}

export function copying(text, label = "Copy") {
  const button = element("button", { type: "button", class: "quiet", text: label, on: { click: copy } });
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
      tell("copied");
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => (button.textContent = label), 1500);
  }
  return button;
}
