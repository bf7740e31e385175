// The page: what is asked for, the wall or the grid of it, keys, and what is new.

import { Compare } from "./compare.js";
import { byId, element, notice, number, plural, tell } from "./elements.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { ask, MAX_IMAGES, post } from "./server.js";
import { Viewer } from "./viewer.js";
import { Wall } from "./wall.js";

const PAGE = 100;
const KEPT_PAGES = 60;
const NEWS_MS = 2000;

const state = { view: null, pages: new Map(), news: null, pictures: 0, request: 0, rest: 0 };

const kept = (name, otherwise) => {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
};
const keep = (name, value) => {
  try {
    localStorage.setItem(name, value);
  } catch {
    // then it is as at first the next time
  }
};

const source = {
  row: (index) => state.pages.get(Math.floor(index / PAGE))?.rows?.[index % PAGE],
  need(first, last) {
    const fetched = [];
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(first, last - 1) / PAGE); page++) fetched.push(fetchPage(page));
    return Promise.all(fetched);
  },
};

async function fetchPage(page, again = false) {
  const view = state.view;
  const before = state.pages.get(page);
  if (!view || page * PAGE >= view.count || (before && !(again && !before.isAsked))) return before?.coming;
  const entry = { rows: before?.rows, isAsked: true };
  state.pages.delete(page);
  state.pages.set(page, entry);
  if (state.pages.size > KEPT_PAGES) state.pages.delete(state.pages.keys().next().value);
  entry.coming = fill(entry, page, view);
  return entry.coming;
}

async function fill(entry, page, view) {
  try {
    const found = await ask("/api/page", new URLSearchParams({ view: view.view, start: page * PAGE, count: PAGE }));
    entry.rows = found.rows;
  } catch (error) {
    state.pages.delete(page);
    if (error.status === 410 && state.view === view) await look(true);
    return;
  } finally {
    entry.isAsked = false;
  }
  if (state.view === view) {
    renew(entry.rows);
    wall.fill();
    if (viewer.isOpen && viewer.row) {
      const row = entry.rows.find((one) => one.image_id === viewer.row.image_id);
      if (row) viewer.show(row, ...shown().place);
    }
  }
}

// What was selected is known as it is now.
function renew(rows) {
  for (const row of rows) if (wall.selected.has(row.image_id)) wall.selected.set(row.image_id, row);
}

const wall = new Wall(byId("wall"), byId("rows"), source, { open, selected: tray, moved: dated });
const viewer = new Viewer({ step, say: (kind, value) => say(targets(), kind, value), tag, note, closed: back, shown: prepare, made: news });
const compare = new Compare({ say, closed: back });
const filters = new Filters(() => look(false));
const grid = new Grid(filters.settings, wall.selected, { open, selected: tray, changed: () => filters.write(), rows: gridRows, wanted: asked });

const isGrid = () => filters.settings.get("view") === "grid";
const shown = () => (isGrid() ? grid : wall);

// Ask for what is wanted. With `stays`, the picture that has the focus keeps it, wherever it is now.
async function look(stays, held = shown().row) {
  const request = ++state.request;
  const started = performance.now();
  const wanted = new URLSearchParams(filters.wanted);
  if (held && stays) wanted.set("keep", held.image_id);
  let view;
  let laid = null;
  try {
    view = await ask("/api/view", wanted);
    if (isGrid()) laid = await ask("/api/grid", asked()).catch((error) => ({ error: error.message }));
  } catch (error) {
    if (request === state.request) byId("count").textContent = error.message;
    return;
  }
  if (request !== state.request) return;
  const isAtTop = wall.top < 1;
  if (stays && isAtTop && !laid && wall.isTouched && view.place !== null && !wall.isAtTop(view.place)) {
    fresh(); // else the picture that somebody looks at would go out of view
    return;
  }
  const hadFocus = byId("wall").contains(document.activeElement);
  const place = stays && !isAtTop ? view.place : null;
  state.view = view;
  state.pages.clear();
  if (!laid) await fetchPage(Math.floor((place ?? 0) / PAGE)); // first, so that no cell is empty meanwhile
  if (request !== state.request) return;
  state.pictures = state.news?.pictures ?? state.pictures;
  state.shown = versionOf(view.pictures_version);
  state.rest = performance.now() + 5 * (performance.now() - started); // a grid that takes long is asked for less often
  byId("fresh").hidden = true;
  byId("count").textContent = plural(view.count, "picture", "pictures");
  if (laid) grid.show(laid, held?.image_id);
  else {
    wall.show(view.count, view.ratio, place);
    if (stays && isAtTop && view.place !== null && wall.isAtTop(view.place)) wall.mark(view.place);
    if (!stays) wall.isTouched = false;
    if (hadFocus) wall.focus();
  }
  empty();
  if (!(laid && stays)) tell(plural(view.count, "picture", "pictures"));
  await facets();
}

// The grid also changes where a run fails: its cells say why they are empty.
function versionOf(version) {
  const failed = isGrid() && state.news ? state.news.runs.map((run) => `${run.id} ${run.failed}`).join() : "";
  return `${version} ${failed}`;
}

function asked() {
  const wanted = new URLSearchParams(filters.wanted);
  wanted.delete("sort");
  return wanted;
}

function gridRows() {
  const row = viewer.isOpen && grid.rows.get(viewer.row.image_id);
  if (row) viewer.show(row, ...grid.place);
}

async function showAs(view) {
  if ((view === "grid") === isGrid()) return;
  const held = shown().row;
  if (view === "grid") filters.settings.set("view", "grid");
  else filters.settings.delete("view");
  filters.write();
  turn();
  await look(true, held);
  shown().focus();
}

function turn() {
  byId("grid").hidden = !isGrid();
  byId("wall").hidden = byId("sort").hidden = isGrid();
  byId("as-grid").setAttribute("aria-pressed", String(isGrid()));
  byId("as-wall").setAttribute("aria-pressed", String(!isGrid()));
}

function empty() {
  const isEmpty = state.view && !state.view.count && !(isGrid() && grid.cells.size);
  const isFiltered = [...filters.wanted.keys()].some((name) => name !== "sort");
  byId("empty").hidden = !isEmpty;
  byId("empty").textContent = isFiltered
    ? "No picture has all of this. Take a filter away."
    : state.view?.is_complete
      ? "No pictures yet. They appear here while a run makes them."
      : "Reading the manifest …";
}

async function facets() {
  const request = state.request;
  const found = await ask("/api/facets", asked());
  if (request === state.request) filters.show(found.facets);
}

async function open() {
  const wasOpen = viewer.isOpen;
  const [at] = shown().place;
  if (!shown().row) await shown().ready();
  const { row, place } = shown();
  if (!row || place[0] !== at || wasOpen !== viewer.isOpen) return;
  state.place = place[0]; // the browser gives the focus back to where it was before, however far one has gone
  viewer.show(row, ...place);
}

function prepare() {
  for (const by of [1, -1]) {
    const id = viewer.isOpen && shown().idAt(by);
    if (id) new Image().src = `/picture/${id}`;
  }
}

function step(by) {
  if (shown().go(by)) open();
}

function back() {
  if (viewer.isOpen || compare.isOpen) return;
  shown().focus(state.place ?? undefined);
  state.place = null;
}

// While one scrolls, the day of what is in view.
function dated() {
  clearTimeout(state.dating);
  const row = source.row(wall.first);
  const when = byId("when");
  if (row) when.textContent = new Date(row.created_at).toLocaleDateString(undefined, { dateStyle: "medium" });
  when.classList.toggle("shown", Boolean(row) && wall.top > 1);
  state.dating = setTimeout(() => (row ? when.classList.remove("shown") : dated()), row ? 900 : 120);
}

// What a key is about: the open picture, else all that are selected, else the one that has the focus.
function targets() {
  if (viewer.isOpen) return [viewer.row];
  if (wall.selected.size) return [...wall.selected.values()];
  const { row } = shown();
  return row ? [row] : [];
}

// One at a time: of two that are under way at once either may come first, and the last word counts.
let said = Promise.resolve();
let unsaid = 0;

function send(images, kind, value) {
  unsaid += 1;
  const sent = said.then(() => post("/api/say", { images, kind, value })).finally(() => (unsaid -= 1));
  said = sent.catch(() => {});
  return sent;
}

// The browser asks whether to leave: what is said on the way would be lost.
addEventListener("beforeunload", (event) => {
  if (unsaid) event.preventDefault();
});

const SAID = { rating: (value) => (value === "none" ? "not rated" : plural(Number(value), "star", "stars")), pick: (value) => (value === "yes" ? "picked" : "not picked any more"), reject: (value) => (value === "yes" ? "rejected" : "not rejected any more"), tag: (value) => `tags ${value}`, note: (value) => (value ? "noted" : "note taken away") };

async function say(rows, kind, value) {
  if (!rows.length) return;
  const known = rows.map((row) => row.image_id);
  const all = () => (isGrid() ? grid.known() : [...state.pages.values()].flatMap((page) => page.rows ?? []));
  const changed = () => [...new Set([...all(), ...wall.selected.values()])].filter((row) => known.includes(row.image_id));
  const before = changed().map((row) => [row, { ...row }]);
  for (const row of changed()) {
    if (kind === "rating") row.rating = value === "none" ? null : Number(value);
    if (kind === "pick") Object.assign(row, { picked: value === "yes", rejected: value === "yes" ? false : row.rejected });
    if (kind === "note") row.note = value || null;
    if (kind === "reject") Object.assign(row, { rejected: value === "yes", picked: value === "yes" ? false : row.picked });
  }
  const redraw = () => {
    shown().fill();
    const row = viewer.isOpen && changed().find((one) => one.image_id === viewer.row.image_id);
    if (row) viewer.show(row, ...shown().place);
  };
  redraw();
  try {
    await send(known, kind, value);
    clearTimeout(state.timer);
    state.timer = setTimeout(news, 400); // the counts of the facets
    tell(`${rows.length > 1 ? `${rows.length} pictures: ` : ""}${SAID[kind](value)}`);
  } catch (error) {
    for (const [row, values] of before) Object.assign(row, values);
    redraw();
    notice(error.message);
    return;
  }
  if (rows.length === 1 && kind !== "tag" && kind !== "note" && byId("goes-on").checked) {
    if (viewer.isOpen) step(1);
    else if (!compare.isOpen && shown().go(1)) shown().focus();
  }
}

function tag() {
  const rows = targets();
  if (!rows.length) return;
  const dialog = byId("tagging");
  const input = element("input", { type: "text", maxlength: "400", autocomplete: "off", placeholder: "sea keep -draft", "aria-label": "Tags to add; a minus before one takes it away" });
  const has = [...new Set(rows.flatMap((row) => row.user_tags))];
  const form = element(
    "form", { method: "dialog" },
    element("h2", { text: rows.length > 1 ? `Tags of ${rows.length} pictures` : "Tags" }),
    element("p", { class: "tags" }, ...has.map((text) => element("span", { class: "tag", text }))),
    input,
    element("p", { class: "muted", text: "Enter adds them; a minus before one takes it away." }),
  );
  form.addEventListener("submit", () => {
    const words = input.value.split(/\s+/).filter(Boolean).map((word) => (/^[+-]/.test(word) ? word : `+${word}`));
    if (words.length) say(rows, "tag", words.join(" "));
  });
  dialog.replaceChildren(form);
  dialog.onclose = () => (viewer.isOpen ? null : shown().focus());
  dialog.showModal();
}

function note() {
  const row = viewer.row;
  const dialog = byId("tagging");
  const text = element("textarea", { rows: "5", maxlength: "2000", "aria-label": "Note" });
  text.value = row.note ?? "";
  const form = element("form", { method: "dialog" }, element("h2", { text: "Note" }), text, element("button", { class: "accent", text: "Keep it" }));
  form.addEventListener("submit", () => {
    const said = text.value.trim() && text.value;
    if (said !== (row.note ?? "")) say([row], "note", said);
  });
  dialog.replaceChildren(form);
  dialog.onclose = null;
  dialog.showModal();
}

function tray() {
  const count = wall.selected.size;
  byId("tray").hidden = !count;
  document.body.classList.toggle("has-tray", count > 0);
  if (!count) return;
  byId("tray").replaceChildren(
    element("span", { text: `${number(count)} selected` }),
    element("button", { type: "button", class: "accent", text: "Compare", disabled: count < 2 || count > 4, on: { click: comparing } }),
    element("button", { type: "button", class: "quiet", text: "Tag", on: { click: tag } }),
    element("button", { type: "button", class: "quiet", text: "Clear", on: { click: clear } }),
  );
  tell(`${count} selected`);
}

function clear() {
  wall.selected.clear();
  shown().fill();
  tray();
}

function comparing() {
  const row = viewer.isOpen ? viewer.row : shown().row;
  if (row && wall.selected.size < 2 && !wall.selected.has(row.image_id)) {
    wall.selected.set(row.image_id, row);
    shown().fill();
    tray();
  }
  if (wall.selected.size < 2) notice("select one more to compare");
  else if (wall.selected.size > 4) notice("four at most can be compared");
  else compare.show([...wall.selected.values()]);
}

const BY = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

// Go through the pictures with one open; the text beside it keeps the keys that scroll.
function leaf(key) {
  const [at, count] = shown().place;
  step(Math.max(0, Math.min(count - 1, at + BY[key])) - at);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const isTyping = event.target.matches("input:not([type=checkbox]):not([type=range]), select, textarea");
  if (event.key === "Escape") {
    if (document.body.classList.contains("filters-open")) filters.toggle(false);
    else if (isTyping && event.target === byId("words")) {
      event.preventDefault(); // the browser would empty the box
      filters.unsearched();
      shown().focus();
    }
    else if (!document.querySelector("dialog[open]") && wall.selected.size) clear();
    return;
  }
  if (isTyping) {
    if (event.target === byId("words") && (event.key === "Enter" || event.key === "ArrowDown")) {
      event.preventDefault();
      filters.searched();
      shown().focus();
    }
    return;
  }
  if (compare.isOpen || byId("tagging").open || byId("keys").open) return;
  const onWall = byId(isGrid() ? "cells" : "wall").contains(event.target) || event.target === document.body;
  const onPictures = onWall || viewer.isOpen || byId("tray").contains(event.target);
  const isSide = event.key === "ArrowLeft" || event.key === "ArrowRight";
  if (viewer.isOpen && event.key in BY && (isSide || !viewer.panel.contains(event.target))) leaf(event.key);
  else if (onWall && !viewer.isOpen && shown().step(event.key)) void 0;
  else if (onWall && event.key === "Enter") open();
  else if (onWall && event.key === " ") shown().select();
  else if (onPictures && /^[0-5]$/.test(event.key)) say(targets(), "rating", event.key === "0" ? "none" : event.key);
  else if (!pressed(event.key.toLowerCase(), onPictures)) return;
  event.preventDefault();
});

function pressed(key, onPictures) {
  const rows = onPictures ? targets() : [];
  if (key === "p" && rows.length === 1) say(rows, "pick", rows[0].picked ? "no" : "yes");
  else if (key === "p" && rows.length) notice("a pick is of one picture");
  else if (key === "x" && rows.length) say(rows, "reject", rows.every((row) => row.rejected) ? "no" : "yes");
  else if (key === "t" && rows.length) tag();
  else if (key === "c" && onPictures) comparing();
  else if (key === "g" && !viewer.isOpen) showAs(isGrid() ? "wall" : "grid");
  else if (key === "/") byId("words").focus();
  else if (key === "n" && !viewer.isOpen) look(false);
  else if (key === "?") byId("keys").showModal();
  else return false;
  return true;
}

// What is new is asked for every other second while the page is in view; the list does not move under a reader.
async function news() {
  clearTimeout(state.timer);
  if (!document.hidden) {
    try {
      const found = await ask("/api/news");
      const before = state.news;
      state.news = found;
      if (before === null) state.pictures = found.pictures;
      await heard(found, before);
    } catch (error) {
      byId("runs").replaceChildren(element("span", { class: "muted", text: error.status ? error.message : "The gallery was ended." }));
    }
  }
  clearTimeout(state.timer); // another may have been asked for meanwhile: one goes on
  state.timer = setTimeout(news, NEWS_MS);
}

async function heard(found, before) {
  runs(found);
  viewer.showRun(found.making);
  if (isGrid()) {
    const isOld = state.view && versionOf(found.pictures_version) !== state.shown;
    if (isOld && performance.now() > state.rest && !document.querySelector("dialog[open]")) await look(true);
  } else if (state.view && versionOf(found.pictures_version) !== state.shown) {
    const sort = filters.wanted.get("sort") ?? "newest";
    const wouldMove = wall.isTouched && !byId("fresh").hidden; // as the last answer was
    if (wall.top < 1 && sort === "newest" && !wouldMove && !document.querySelector("dialog[open]")) await look(true);
    else fresh();
  }
  if (before && found.said_version !== before.said_version && wall.selected.size) {
    const { rows } = await ask("/api/pictures", new URLSearchParams([...wall.selected.keys()].slice(0, MAX_IMAGES).map((id) => ["id", id])));
    renew(rows);
  }
  if (before && found.said_version !== before.said_version && isGrid()) {
    grid.fetch(true);
    await facets();
  } else if (before && found.said_version !== before.said_version) {
    const first = Math.floor(wall.focused / PAGE);
    const pages = new Set([first, ...[...wall.lines.keys()].map((line) => Math.floor((line * wall.columns) / PAGE))]);
    for (const page of [...state.pages.keys()]) {
      if (pages.has(page)) fetchPage(page, true);
      else state.pages.delete(page);
    }
    await facets();
  }
  empty();
}

function fresh() {
  const count = state.news.pictures - state.pictures;
  byId("fresh").hidden = count <= 0;
  byId("fresh").textContent = `${number(count)} new`;
  byId("fresh").setAttribute("aria-label", `Show ${plural(count, "new picture", "new pictures")}`);
}

function runs(found) {
  const shown = found.runs.map((run) => {
    const all = (run.made ?? 0) + (run.failed ?? 0) + (run.left ?? 0);
    const text = `${number(run.made ?? 0)} of ${number(all)} made${run.failed ? `, ${number(run.failed)} failed` : ""}`;
    const bar = element("progress", { max: all || 1, value: run.made ?? 0, "aria-label": `Run ${run.id}` });
    return element("span", { class: "run", title: run.id }, bar, element("span", { text }));
  });
  const text = shown.map((one) => one.textContent).join();
  if (byId("runs").dataset.text !== text) {
    byId("runs").dataset.text = text;
    byId("runs").replaceChildren(...shown);
  }
}

byId("fresh").addEventListener("click", () => look(false));
byId("open-keys").addEventListener("click", () => byId("keys").showModal());
byId("size").value = kept("size", innerWidth < 700 ? 112 : 208);
wall.size = Number(byId("size").value);
grid.resize(wall.size);
byId("size").addEventListener("input", () => {
  keep("size", byId("size").value);
  wall.resize(Number(byId("size").value));
  grid.resize(wall.size);
});
byId("as-wall").addEventListener("click", () => showAs("wall"));
byId("as-grid").addEventListener("click", () => showAs("grid"));
byId("goes-on").checked = kept("goes-on", "no") === "yes";
byId("goes-on").addEventListener("change", () => keep("goes-on", byId("goes-on").checked ? "yes" : "no"));
document.addEventListener("visibilitychange", () => document.hidden || news());

filters.chips();
turn();
await look(false);
await news();
if (document.activeElement === document.body) shown().focus();
