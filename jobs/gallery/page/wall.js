// The wall: rows of cells of one size, of which only those in view are in the document.
//
// A box as tall as all rows would be gives a true scrollbar. Browsers limit the height of a box, so beyond MAX_HEIGHT
// the box is smaller than the rows are together, and `top`, the place in rows, is scaled to it.

import { element, keepsFocusForShift, notice, sayOf, stars } from "./elements.js";
import { MAX_IMAGES, TOO_MANY } from "./server.js";

const GAP = 6;
const MAX_HEIGHT = 8e6;
const OVERSCAN = 2;
const SETTLED_MS = 90;

export class Wall {
  // `source.row(index)` is a row or undefined; `source.need(first, last)` fetches rows and calls `fill` later.
  constructor(root, box, source, heard) {
    Object.assign(this, { root, box, source, heard });
    Object.assign(this, { count: 0, ratio: 1, size: 200, columns: 1, top: 0, focused: 0, selected: new Map() });
    this.lines = new Map();
    this.expected = null;
    this.moved = 0;
    this.isTouched = false; // whether a person has gone to a picture, and not just come
    root.addEventListener("scroll", () => this.scrolled(), { passive: true });
    root.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    root.addEventListener("click", (event) => this.clicked(event));
    keepsFocusForShift(root);
    root.addEventListener("focusin", (event) => {
      const cell = event.target.closest("[role=gridcell]");
      if (cell) this.mark(Number(cell.dataset.index));
    });
    new ResizeObserver(() => this.measure(true)).observe(root);
  }

  // What the page's other parts ask of whatever is shown: the picture that has the focus, and its place.
  get row() {
    return this.source.row(this.focused);
  }

  get place() {
    return [this.focused, this.count];
  }

  idAt(by) {
    return this.source.row(this.focused + by)?.image_id;
  }

  // When the row of the picture that has the focus is there.
  ready() {
    return this.source.need(this.focused, this.focused + 1);
  }

  // Lines that are as before stay, with the pictures in them, so that nothing flashes when a few are added.
  show(count, ratio, place = null) {
    this.count = count;
    this.ratio = ratio;
    this.focused = Math.max(0, Math.min(count - 1, place ?? 0));
    for (const [index, line] of this.lines) {
      const cells = Math.min(this.columns, count - index * this.columns);
      if (line.children.length !== cells) this.drop(index, line);
    }
    this.measure(false);
    if (place === null) this.goTo(0);
    else this.reveal(this.focused);
    this.draw();
  }

  resize(size) {
    this.size = size;
    this.measure(true);
  }

  measure(keeps) {
    const width = this.root.clientWidth - GAP * 2;
    if (width <= 0) return;
    const first = Math.round(this.top / (this.lineHeight || 1)) * this.columns;
    const columns = Math.max(2, Math.floor((width + GAP) / (this.size + GAP)));
    const cellWidth = (width - GAP * (columns - 1)) / columns;
    const cellHeight = Math.round(cellWidth / this.ratio);
    const isSame = columns === this.columns && cellHeight + GAP === this.lineHeight && cellWidth === this.cellWidth;
    Object.assign(this, { columns, cellWidth, cellHeight, lineHeight: cellHeight + GAP, height: this.root.clientHeight });
    this.lineCount = Math.ceil(this.count / columns);
    this.total = this.lineCount * this.lineHeight + GAP;
    const shown = Math.min(this.total, MAX_HEIGHT);
    this.scale = this.total > MAX_HEIGHT ? (this.total - this.height) / (shown - this.height) : 1;
    this.box.style.height = `${shown}px`;
    this.root.setAttribute("aria-rowcount", this.lineCount);
    this.root.setAttribute("aria-colcount", columns);
    if (!isSame) {
      for (const line of this.lines.values()) line.remove();
      this.lines.clear();
      if (keeps) this.goTo(Math.floor(first / columns) * this.lineHeight);
    }
    this.draw();
  }

  goTo(top) {
    this.top = Math.max(0, Math.min(top, Math.max(0, this.total - this.height)));
    this.expected = this.top / this.scale;
    this.root.scrollTop = this.expected;
    this.draw();
  }

  scrolled() {
    const at = this.root.scrollTop;
    if (this.expected === null || Math.abs(at - this.expected) > 1.5) {
      const before = this.top;
      this.top = at * this.scale;
      this.moved = Math.abs(this.top - before);
    }
    this.expected = null;
    this.draw();
    this.heard.moved();
  }

  wheeled(event) {
    if (this.scale === 1 || event.ctrlKey) return;
    event.preventDefault(); // a notch of the wheel is to move as far as on a short wall
    const unit = event.deltaMode === 1 ? 40 : event.deltaMode === 2 ? this.height : 1;
    this.goTo(this.top + event.deltaY * unit);
  }

  draw() {
    if (!this.lineHeight) return;
    const first = Math.max(0, Math.floor(this.top / this.lineHeight) - OVERSCAN);
    const last = Math.min(this.lineCount - 1, Math.ceil((this.top + this.height) / this.lineHeight) + OVERSCAN);
    const kept = Math.floor(this.focused / this.columns); // what has the focus stays in the document
    for (const [index, line] of this.lines) {
      if ((index < first || index > last) && !(index === kept && line.contains(document.activeElement))) {
        this.drop(index, line);
      }
    }
    const base = this.root.scrollTop - this.top;
    for (let index = first; index <= last; index++) if (!this.lines.has(index)) this.add(index);
    for (const [index, line] of this.lines) {
      line.style.transform = `translateY(${Math.round(base + index * this.lineHeight + GAP)}px)`;
    }
    clearTimeout(this.timer);
    const settle = () => {
      this.moved = 0;
      this.source.need(first * this.columns, Math.min(this.count, (last + 1) * this.columns));
      this.fill();
    };
    if (this.moved < this.height) settle();
    else this.timer = setTimeout(settle, SETTLED_MS);
  }

  drop(index, line) {
    for (const image of line.querySelectorAll("img")) image.removeAttribute("src"); // no longer wanted
    line.remove();
    this.lines.delete(index);
  }

  add(index) {
    const line = element("div", { role: "row", class: "line", "aria-rowindex": index + 1 });
    for (let column = 0; column < this.columns; column++) {
      const place = index * this.columns + column;
      if (place >= this.count) break;
      const cell = element(
        "div",
        { role: "gridcell", class: "cell", "data-index": place, "aria-colindex": column + 1, tabindex: -1 },
        element("img", { alt: "", draggable: "false", decoding: "async" }),
        element("span", { class: "stars", "aria-hidden": "true" }),
        element("span", { class: "caption", "aria-hidden": "true" }),
      );
      cell.style.width = `${this.cellWidth}px`;
      cell.style.height = `${this.cellHeight}px`;
      cell.style.left = `${GAP + column * (this.cellWidth + GAP)}px`;
      line.append(cell);
    }
    this.lines.set(index, line);
    // In the order of the document, so that who reads the page aloud hears it in the order of the wall.
    const after = [...this.lines.entries()].filter(([other]) => other > index).sort((a, b) => a[0] - b[0])[0];
    this.box.insertBefore(line, after ? after[1] : null);
  }

  // The first picture in view.
  get first() {
    return Math.min(this.count - 1, Math.ceil((this.top - GAP) / this.lineHeight) * this.columns);
  }

  fill() {
    for (const line of this.lines.values()) for (const cell of line.children) this.fillCell(cell);
  }

  fillCell(cell) {
    const index = Number(cell.dataset.index);
    cell.tabIndex = index === this.focused ? 0 : -1;
    const row = this.source.row(index);
    if (!row) return;
    const [image, rating, caption] = cell.children;
    if (cell.dataset.id !== row.image_id || !image.hasAttribute("src")) {
      cell.dataset.id = row.image_id;
      image.onload = () => cell.classList.replace("gone", "loaded") || cell.classList.add("loaded");
      image.onerror = () => cell.classList.replace("loaded", "gone") || cell.classList.add("gone");
      image.src = `/thumb/${row.image_id}/${this.cellWidth * devicePixelRatio > 300 ? 512 : 256}`;
      caption.textContent = `${row.model} · ${row.seed}`;
    }
    rating.textContent = stars(row.rating);
    cell.classList.toggle("picked", row.picked);
    cell.classList.toggle("rejected", row.rejected);
    const isSelected = this.selected.has(row.image_id);
    cell.setAttribute("aria-selected", String(isSelected));
    const said = sayOf(row);
    cell.setAttribute("aria-label", `${row.prompt.slice(0, 120)}, ${row.model}${said ? `, ${said}` : ""}`);
  }

  mark(index) {
    const before = this.cellAt(this.focused);
    if (before) before.tabIndex = -1;
    this.focused = Math.max(0, Math.min(this.count - 1, index));
    const cell = this.cellAt(this.focused);
    if (cell) cell.tabIndex = 0;
  }

  cellAt(index) {
    return this.lines.get(Math.floor(index / this.columns))?.querySelector(`[data-index="${index}"]`);
  }

  reveal(index) {
    const y = Math.floor(index / this.columns) * this.lineHeight;
    if (y < this.top) this.goTo(y);
    else if (y + this.lineHeight + GAP > this.top + this.height) this.goTo(y + this.lineHeight + GAP - this.height);
  }

  focus(index = this.focused) {
    if (!this.count) return;
    const place = Math.max(0, Math.min(this.count - 1, index));
    this.reveal(place);
    this.mark(place);
    this.draw();
    this.cellAt(place)?.focus({ preventScroll: true });
  }

  // Go to the next picture; whether there is one.
  go(by) {
    const next = this.focused + by;
    if (next < 0 || next >= this.count) return false;
    this.reveal(next);
    this.mark(next);
    this.draw();
    return true;
  }

  step(key) {
    const page = Math.max(1, Math.floor(this.height / this.lineHeight)) * this.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page,
      Home: -this.count, End: this.count,
    };
    if (!(key in steps)) return false;
    let next = this.focused + steps[key];
    if ((key === "ArrowUp" && next < 0) || (key === "ArrowDown" && next >= this.count)) next = this.focused;
    this.focus(next);
    this.isTouched = key !== "Home";
    return true;
  }

  clicked(event) {
    const cell = event.target.closest("[role=gridcell]");
    if (!cell) return;
    const index = Number(cell.dataset.index);
    const from = this.focused;
    this.focus(index);
    this.isTouched = true;
    if (event.shiftKey) this.selectRange(from, index);
    else if (event.ctrlKey || event.metaKey) this.select(index);
    else this.heard.open();
  }

  select(index = this.focused) {
    const row = this.source.row(index);
    if (!row) return;
    if (!this.selected.delete(row.image_id)) this.selected.set(row.image_id, row);
    this.fill();
    this.heard.selected();
  }

  async selectRange(from, to) {
    const first = Math.min(from, to);
    const last = Math.max(from, to);
    await this.source.need(first, Math.min(last, first + MAX_IMAGES) + 1);
    let isWhole = true;
    for (let index = first; index <= last && isWhole; index++) {
      const row = this.source.row(index);
      isWhole = Boolean(row) && (this.selected.has(row.image_id) || this.selected.size < MAX_IMAGES);
      if (isWhole) this.selected.set(row.image_id, row);
    }
    this.fill();
    this.heard.selected();
    if (!isWhole) notice(TOO_MANY);
  }

  // Whether a picture of this place would be in view at the top.
  isAtTop(index) {
    return index < this.columns * Math.max(1, Math.floor(this.height / this.lineHeight));
  }
}
