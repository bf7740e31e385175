// The grid: pictures laid out by what varies among them, as `darkroom grid` does. The server says which axes there are,
// what each cell has and why a cell is empty; which axis goes where is decided here and stands in the page's address.
//
// Cells stay the same elements while axes move and pictures arrive, so that nothing flickers.

import { byId, element, keepsFocusForShift, notice, number, plural, sayOf, stars } from "./elements.js";
import { ask, MAX_IMAGES, TOO_MANY } from "./server.js";

const MAX_CELLS = 4000;
const NOTHING = "none";
const ANY = "any";
const MARGIN = 8;

export class Grid {
  // `settings` are the names and values of the address; `heard.changed()` is called when a person chose others.
  constructor(settings, selected, heard) {
    Object.assign(this, { settings, selected, heard });
    this.root = byId("grid");
    this.box = byId("cells");
    this.table = element("table", { role: "grid", "aria-label": "Pictures by what varies" });
    this.box.append(this.table);
    this.data = null;
    this.rows = new Map();
    this.cells = new Map();
    this.kept = new Map();
    this.order = [];
    this.focused = 0;
    this.figured = 0;
    this.box.addEventListener("click", (event) => this.clicked(event));
    keepsFocusForShift(this.box);
    this.box.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td");
      if (cell) this.mark(cell);
    });
  }

  // What the page's other parts ask of whatever is shown: the picture that has the focus, and its place.
  get row() {
    return this.rows.get(this.order[this.focused]?.id);
  }

  get place() {
    return [this.focused, this.order.length];
  }

  // The figure that is drawn in place of pictures.
  get by() {
    const wanted = this.settings.get("by");
    return this.data?.figures.includes(wanted) ? wanted : "";
  }

  idAt(by) {
    return this.order[this.focused + by]?.id;
  }

  known() {
    return [...this.rows.values()];
  }

  resize(size) {
    this.root.style.setProperty("--cell", `${size}px`);
    this.size = size;
  }

  // `held` is the picture that had the focus elsewhere: it is in view, where that leaves no cells empty.
  show(data, held) {
    if (data.error) {
      this.refuse(data.error);
      return;
    }
    this.data = data;
    this.held = data.cells.find(([, images]) => images.some((one) => data.images[one] === held))?.[0];
    this.heldId = held;
    this.root.style.setProperty("--ratio", data.ratio);
    const images = new Set(data.images);
    for (const id of this.rows.keys()) if (!images.has(id)) this.rows.delete(id);
    this.arrange();
  }

  refuse(text) {
    this.data = null;
    this.clear(text);
    byId("axes").replaceChildren();
    byId("alike").textContent = "";
  }

  clear(text) {
    Object.assign(this, { cells: new Map(), order: [], active: null, focused: -1 });
    this.table.replaceChildren();
    this.say(text);
  }

  say(text) {
    byId("note").textContent = text;
    byId("note").hidden = !text;
  }

  // The axes of x and y, by their numbers; -1 for none. Those of the address, else the first that are not too many.
  places() {
    const { axes } = this.data;
    const count = (axis) => (axis < 0 ? 1 : axes[axis].labels.length);
    const find = (name) => {
      const wanted = this.settings.get(name);
      if (wanted === NOTHING) return -1;
      const found = axes.findIndex((axis) => axis.name === wanted);
      return found < 0 ? undefined : found;
    };
    let x = find("x");
    let y = find("y");
    if (x >= 0 && x === y) y = undefined;
    const free = (other) => axes.findIndex((_, axis) => axis !== other && count(axis) * count(other ?? -1) <= MAX_CELLS);
    if (x === undefined) x = free(y);
    if (y === undefined) y = free(x);
    return [x, y];
  }

  // Which value of each other axis is shown: that of the address, else the one that was shown, else that of the picture
  // with the focus or the first one, if it fills two thirds of the cells that any value fills; else any.
  choices(x, y) {
    let cells = this.data.cells.filter(([, images]) => images.length);
    return this.data.axes.map((axis, at) => {
      if (at === x || at === y) return null;
      const wanted = this.settings.get(`at.${axis.name}`) ?? this.kept.get(axis.name);
      let value = wanted === ANY ? -1 : axis.keys.indexOf(wanted);
      if (value < 0 && wanted !== ANY) {
        const filled = axis.keys.map(() => new Set());
        const all = new Set();
        for (const [place] of cells) {
          const key = `${place[x]} ${place[y]}`;
          filled[place[at]].add(key);
          all.add(key);
        }
        const fills = (one) => filled[one]?.size * 3 >= all.size * 2;
        value = fills(this.held?.[at]) ? this.held[at] : axis.keys.findIndex((_, one) => fills(one));
      }
      this.kept.set(axis.name, value < 0 ? ANY : axis.keys[value]);
      if (value >= 0) cells = cells.filter(([place]) => place[at] === value);
      return value;
    });
  }

  arrange() {
    const [x, y] = this.places();
    const chosen = this.choices(x, y);
    this.tools(x, y, this.by ? [] : chosen);
    const { by } = this;
    this.root.classList.toggle("of-figures", Boolean(by));
    this.root.classList.toggle("of-one-line", y < 0);
    if (by) this.figures(by, x, y);
    else this.draw(x, y, chosen);
  }

  // Where axes are, and of those of `chosen` which value is shown.
  tools(x, y, chosen) {
    const { axes, figures, constant, images } = this.data;
    const focused = byId("axes").contains(document.activeElement) ? document.activeElement.name : "";
    const picker = (name, label, options, value) => {
      const list = element("select", { name, on: { change: () => this.choose(name, list.value) } });
      for (const [key, text] of options) list.append(new Option(text, key));
      list.value = value;
      return element("label", {}, element("span", { text: label }), list);
    };
    const names = axes.map((axis) => [axis.name, axis.name]);
    const nameOf = (axis) => (axis < 0 ? NOTHING : axes[axis].name);
    const pickers = [];
    if (axes.length) {
      pickers.push(picker("x", "across", [...names, [NOTHING, "nothing"]], nameOf(x)));
      pickers.push(picker("y", "down", [...names, [NOTHING, "nothing"]], nameOf(y)));
    }
    if (figures.length) {
      const titles = figures.map((name) => [name, name]);
      pickers.push(picker("by", "show", [["", "pictures"], ...titles], this.by));
    }
    axes.forEach((axis, at) => {
      if (chosen[at] === undefined || chosen[at] === null) return;
      const isNamed = (text) => text.startsWith(`${axis.name} `); // the name stands before the list already
      const options = axis.labels.map((text, value) => [axis.keys[value], isNamed(text) ? axis.keys[value] : text]);
      pickers.push(picker(`at.${axis.name}`, axis.name, [...options, [ANY, `any of ${axis.labels.length}`]], chosen[at] < 0 ? ANY : axis.keys[chosen[at]]));
    });
    byId("axes").replaceChildren(...pickers);
    if (focused) byId("axes").querySelector(`[name="${CSS.escape(focused)}"]`)?.focus();
    byId("alike").textContent = constant && images.length > 1 ? `All with ${constant}` : "";
    byId("alike").title = constant;
  }

  choose(name, value) {
    const [x, y] = this.places();
    const nameOf = (axis) => (axis < 0 ? NOTHING : this.data.axes[axis].name);
    const other = name === "x" ? "y" : "x";
    if (name === "x" || name === "y") {
      const [mine, others] = name === "x" ? [x, y] : [y, x];
      this.settings.set(other, value !== NOTHING && value === nameOf(others) ? nameOf(mine) : nameOf(others));
    }
    if (value) this.settings.set(name, value);
    else this.settings.delete(name);
    if (name === "x" || name === "y") for (const one of ["x", "y"]) this.settings.delete(`at.${this.settings.get(one)}`);
    this.heard.changed();
    this.arrange();
  }

  // Of each cell of x and y its pictures, the latest first, and why there is none.
  found(x, y, chosen) {
    const found = new Map();
    for (const [place, images, why] of this.data.cells) {
      if (chosen.some((value, at) => value !== null && value >= 0 && place[at] !== value)) continue;
      const key = `${x < 0 ? 0 : place[x]} ${y < 0 ? 0 : place[y]}`;
      const cell = found.get(key) ?? { images: [], whys: new Set() };
      found.set(key, cell);
      cell.images.push(...images);
      if (why && why !== this.data.none) cell.whys.add(why);
    }
    for (const cell of found.values()) cell.images.reverse();
    return found;
  }

  draw(x, y, chosen) {
    const { axes, images, none } = this.data;
    const side = (axis) => (axis < 0 ? [{ key: "", label: "" }] : axes[axis].labels.map((label, at) => ({ key: axes[axis].keys[at], label })));
    const across = side(x);
    const down = side(y);
    if (across.length * down.length > MAX_CELLS) {
      this.clear(`${number(across.length)} × ${number(down.length)} cells are too many to show: choose other axes.`);
      return;
    }
    if (!this.data.cells.length) {
      this.clear("");
      return;
    }
    this.say("");
    const held = this.holding();
    const found = this.found(x, y, chosen);
    const before = this.cells;
    this.cells = new Map();
    this.order = [];
    const lines = down.map(({ key: below, label }, row) => {
      const line = element("tr", {}, ...(y < 0 ? [] : [heading("row", label)]));
      across.forEach(({ key: beside }, column) => {
        const name = JSON.stringify([beside, below]);
        const cell = before.get(name) ?? element("td", { role: "gridcell", class: "cell", tabindex: "-1" });
        const { images: numbers = [], whys = new Set() } = found.get(`${column} ${row}`) ?? {};
        const ids = numbers.map((one) => images[one]);
        Object.assign(cell, { name, at: [row, column], first: this.order.length, ids });
        for (const id of ids) this.order.push({ id, cell });
        this.fillCell(cell, ids, ids.length ? "" : [...whys].slice(0, 3).join(", ") || none);
        this.cells.set(name, cell);
        line.append(cell);
      });
      return line;
    });
    const corner = y < 0 ? [] : [element("td", { class: "corner" })];
    const head = x < 0 ? [] : [element("thead", {}, element("tr", {}, ...corner, ...across.map(({ label }) => heading("col", label))))];
    this.table.replaceChildren(...head, element("tbody", {}, ...lines));
    Object.assign(this, { width: across.length, height: down.length });
    this.hold(held);
    this.fetch();
  }

  fillCell(cell, ids, why) {
    const id = ids[0] ?? "";
    cell.classList.toggle("empty", !id);
    if (!id) {
      if (cell.dataset.id !== undefined || cell.textContent !== why) cell.replaceChildren(element("span", { class: "why", text: why }));
      delete cell.dataset.id;
      cell.className = "cell empty";
    } else if (cell.dataset.id !== id) {
      cell.dataset.id = id;
      cell.classList.remove("loaded", "gone");
      const image = element("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
      image.onload = () => cell.classList.add("loaded");
      image.onerror = () => cell.classList.add("gone");
      image.src = `/thumb/${id}/${(this.size ?? 200) * devicePixelRatio > 300 ? 512 : 256}`;
      cell.replaceChildren(image, element("span", { class: "stars", "aria-hidden": "true" }), element("span", { class: "several", "aria-hidden": "true" }));
    }
    this.fillRow(cell);
  }

  fillRow(cell) {
    const row = this.rows.get(cell.ids[0]);
    if (!cell.dataset.id) {
      cell.removeAttribute("aria-label");
      cell.removeAttribute("aria-selected");
      cell.classList.remove("picked", "rejected");
      return;
    }
    const several = cell.ids.length > 1 ? plural(cell.ids.length, "picture", "pictures") : "";
    cell.lastElementChild.textContent = several && `1 of ${number(cell.ids.length)}`;
    cell.querySelector(".stars").textContent = stars(row?.rating);
    cell.classList.toggle("picked", Boolean(row?.picked));
    cell.classList.toggle("rejected", Boolean(row?.rejected));
    cell.setAttribute("aria-selected", String(this.selected.has(cell.dataset.id)));
    const said = row ? sayOf(row) : "";
    cell.setAttribute("aria-label", [row?.prompt.slice(0, 120) ?? "a picture", several, said].filter(Boolean).join(", "));
  }

  fill() {
    for (const cell of this.cells.values()) this.fillRow(cell);
  }

  // Rows of the pictures that cells show; all of them anew where something was said of some.
  async fetch(again = false) {
    const data = this.data;
    const shown = new Set([this.idAt(0), ...[...this.cells.values()].map((cell) => cell.ids[0])].filter(Boolean));
    if (again) for (const id of this.rows.keys()) if (!shown.has(id)) this.rows.delete(id);
    const missing = [...shown].filter((id) => again || !this.rows.has(id));
    for (let start = 0; start < missing.length && this.data === data; start += MAX_IMAGES) await this.read(missing.slice(start, start + MAX_IMAGES));
  }

  async read(ids) {
    try {
      const { rows } = await ask("/api/pictures", new URLSearchParams(ids.map((id) => ["id", id])));
      for (const row of rows) this.rows.set(row.image_id, row);
      this.fill();
      this.heard.rows();
    } catch (error) {
      this.say(error.message);
    }
  }

  // When the row of the picture that has the focus is there.
  ready() {
    const id = this.idAt(0);
    return id && this.read([id]);
  }

  // A cell in view, and where it is in the window: it stays there while others appear before it.
  holding() {
    const active = this.box.contains(document.activeElement) ? document.activeElement : null;
    const view = this.box.getBoundingClientRect();
    const isSeen = (cell) => {
      const at = cell.getBoundingClientRect();
      return at.bottom > view.top && at.right > view.left && at.top < view.bottom && at.left < view.right;
    };
    const cell = active?.name && isSeen(active) ? active : [...this.cells.values()].find(isSeen);
    const at = cell?.getBoundingClientRect();
    return { active, name: cell?.name, top: at?.top, left: at?.left, id: this.heldId ?? this.idAt(0) };
  }

  hold({ active, name, top, left, id }) {
    const cell = this.cells.get(name);
    if (cell) {
      const now = cell.getBoundingClientRect();
      this.box.scrollTop += now.top - top;
      this.box.scrollLeft += now.left - left;
    }
    this.focused = Math.max(0, this.order.findIndex((one) => one.id === id));
    this.mark(this.cells.get(active?.name) ?? this.order[this.focused]?.cell ?? this.cells.values().next().value, id);
    if (active) this.active?.focus({ preventScroll: true });
    this.heldId = undefined;
  }

  // The cell that keys are about, and which of its pictures.
  mark(cell, id = cell?.ids.includes(this.order[this.focused]?.id) ? this.order[this.focused].id : undefined) {
    if (this.active) this.active.tabIndex = -1;
    this.active = cell;
    if (!cell) return;
    cell.tabIndex = 0;
    this.focused = cell.ids.length ? cell.first + Math.max(0, cell.ids.indexOf(id)) : -1;
  }

  focus(at = this.focused) {
    const cell = at >= 0 ? this.order[at]?.cell : this.active;
    if (!cell) return;
    this.reveal(cell);
    this.mark(cell, this.order[at]?.id);
    cell.focus({ preventScroll: true });
  }

  // Into view, also from below the headings, which stay in place.
  reveal(cell) {
    const head = this.table.tHead?.getBoundingClientRect().height ?? 0;
    const side = this.table.querySelector("tbody th")?.getBoundingClientRect().width ?? 0;
    const view = this.box.getBoundingClientRect();
    const at = cell.getBoundingClientRect();
    const by = (start, end, from, to) => (start < from ? start - from : end > to ? Math.min(end - to, start - from) : 0);
    this.box.scrollTop += by(at.top - MARGIN, at.bottom + MARGIN, view.top + head, view.top + this.box.clientHeight);
    this.box.scrollLeft += by(at.left - MARGIN, at.right + MARGIN, view.left + side, view.left + this.box.clientWidth);
  }

  // Go to the next picture in the order of the grid; whether there is one.
  go(by) {
    const next = this.focused + by;
    if (next < 0 || next >= this.order.length) return false;
    const { id, cell } = this.order[next];
    this.reveal(cell);
    this.mark(cell, id);
    return true;
  }

  step(key) {
    if (!this.active) return false;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.active.getBoundingClientRect().height) - 1);
    const steps = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-page, 0], PageDown: [page, 0],
      Home: [0, -this.width], End: [0, this.width],
    };
    if (!(key in steps)) return false;
    const [row, column] = this.active.at.map((at, side) => Math.max(0, Math.min((side ? this.width : this.height) - 1, at + steps[key][side])));
    const cell = this.table.tBodies[0].rows[row].querySelectorAll("td")[column];
    this.reveal(cell);
    this.mark(cell);
    cell.focus({ preventScroll: true });
    return true;
  }

  clicked(event) {
    const cell = event.target.closest("td[role=gridcell]");
    if (!cell) return;
    const from = this.active;
    this.mark(cell);
    cell.focus({ preventScroll: true });
    if (event.shiftKey && from) this.selectBlock(from.at, cell.at);
    else if (event.ctrlKey || event.metaKey) this.select();
    else this.heard.open();
  }

  select() {
    const row = this.row;
    if (!row) return;
    if (!this.selected.delete(row.image_id)) this.selected.set(row.image_id, row);
    this.fill();
    this.heard.selected();
  }

  // The pictures in view of all cells between two corners.
  selectBlock(from, to) {
    const isWithin = (at, side) => at >= Math.min(from[side], to[side]) && at <= Math.max(from[side], to[side]);
    let isWhole = true;
    for (const cell of this.cells.values()) {
      const row = cell.at.every(isWithin) && this.rows.get(cell.ids[0]);
      if (row && (this.selected.has(row.image_id) || this.selected.size < MAX_IMAGES)) this.selected.set(row.image_id, row);
      else if (row) isWhole = false;
    }
    this.fill();
    this.heard.selected();
    if (!isWhole) notice(TOO_MANY);
  }

  // Means of a column over the pictures of two axes, whatever the others: a table, darker where there is more.
  async figures(by, x, y) {
    const data = this.data;
    const request = ++this.figured; // answers may overtake each other: the table is that of the last axes
    const isWanted = () => this.data === data && this.by === by && this.figured === request;
    const name = (axis) => (axis < 0 ? "" : data.axes[axis].name);
    let found;
    try {
      found = await ask("/api/figures", new URLSearchParams([...this.heard.wanted(), ["by", by], ["x", name(x)], ["y", name(y)]]));
    } catch (error) {
      if (isWanted()) this.say(error.message);
      return;
    }
    if (!isWanted()) return;
    this.clear(`Mean ${by} of ${plural(found.count, "picture", "pictures")}`);
    const [across, down] = found.labels;
    const lines = found.rows.map((row, at) => {
      const cells = row.map(([text, share]) => {
        const cell = element("td", { class: share === null ? "figure empty" : "figure", text });
        cell.style.setProperty("--share", share ?? 0);
        return cell;
      });
      return element("tr", {}, ...(y < 0 ? [] : [heading("row", down[at])]), ...cells);
    });
    const corner = y < 0 ? [] : [element("td", { class: "corner" })];
    const head = x < 0 ? [] : [element("thead", {}, element("tr", {}, ...corner, ...across.map((label) => heading("col", label))))];
    this.table.replaceChildren(...head, element("tbody", {}, ...lines));
  }
}

const heading = (scope, text) => element("th", { scope }, element("div", { text }));
