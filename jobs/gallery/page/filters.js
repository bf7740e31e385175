// Words, facets, days and the order: what is asked for stands in the page's address, so that it can be bookmarked.

import { byId, element, number } from "./elements.js";

const RATING_NAMES = {
  5: "★★★★★", 4: "★★★★", 3: "★★★", 2: "★★", 1: "★", unrated: "Not rated yet", picked: "Picked", rejected: "Rejected",
};
const SPOKEN = { 5: "5 stars", 4: "4 stars", 3: "3 stars", 2: "2 stars", 1: "1 star" };
const FEW = 8;

// What the address says of how pictures are shown, not of which.
const isSetting = (name) => ["view", "x", "y", "by"].includes(name) || name.startsWith("at.");

export class Filters {
  constructor(changed) {
    this.changed = changed;
    const said = [...new URLSearchParams(location.search)];
    this.wanted = new URLSearchParams(said.filter(([name]) => !isSetting(name)));
    this.settings = new Map(said.filter(([name]) => isSetting(name)));
    this.sections = new Map();
    this.open = new Set(["rating", "model", "lora", "size", "steps", "scheduler", "tag"]);
    this.all = new Set();
    this.root = byId("filters");
    this.words = byId("words");
    this.sort = byId("sort");
    this.words.value = this.wanted.get("q") ?? "";
    this.sort.value = this.wanted.get("sort") ?? "newest";
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.searched();
    });
    this.words.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.searched(), 250);
    });
    this.sort.addEventListener("change", () => this.set("sort", this.sort.value === "newest" ? "" : this.sort.value));
    const close = () => this.toggle(false);
    this.root.append(
      element("div", { class: "drawer-head" }, element("h2", { text: "Filters" }), element("button", { type: "button", class: "quiet", text: "Close", on: { click: close } })),
    );
    this.days();
    byId("open-filters").addEventListener("click", () => this.toggle(!document.body.classList.contains("filters-open")));
  }

  toggle(isOpen) {
    document.body.classList.toggle("filters-open", isOpen);
    byId("open-filters").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.root.querySelector("button, input")?.focus();
    else byId("open-filters").focus();
  }

  searched() {
    clearTimeout(this.timer);
    const words = this.words.value.trim();
    if (words !== (this.wanted.get("q") ?? "")) this.set("q", words);
  }

  // What stands in the box is what is looked for again.
  unsearched() {
    clearTimeout(this.timer);
    this.words.value = this.wanted.get("q") ?? "";
  }

  days() {
    const field = (name, label) => {
      const input = element("input", { type: "date", name, value: this.wanted.get(name) ?? "", on: { change: () => this.set(name, input.value) } });
      return element("label", { class: "day" }, element("span", { text: label }), input);
    };
    this.root.append(element("fieldset", { class: "facet days" }, element("legend", { text: "Made" }), field("since", "from"), field("until", "until")));
  }

  set(name, value) {
    if (value) this.wanted.set(name, value);
    else this.wanted.delete(name);
    this.apply();
  }

  choose(name, value, isChosen) {
    const others = this.wanted.getAll(name).filter((one) => one !== value);
    this.wanted.delete(name);
    for (const one of isChosen ? [...others, value] : others) this.wanted.append(name, one);
    this.apply();
  }

  clear() {
    this.wanted = new URLSearchParams();
    this.words.value = "";
    this.sort.value = "newest";
    for (const input of this.root.querySelectorAll("input[type=date]")) input.value = "";
    this.apply();
  }

  // The page's address, which has all that is asked for.
  write() {
    const settings = this.settings.has("view") ? this.settings : [];
    const text = new URLSearchParams([...this.wanted, ...settings]).toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  apply() {
    this.write();
    this.chips();
    this.changed();
  }

  chips() {
    const chips = [];
    for (const [name, value] of this.wanted) {
      if (name === "sort") continue;
      const text = name === "q" ? `“${value}”` : name === "since" ? `from ${value}` : name === "until" ? `until ${value}` : this.label(name, value);
      const remove = () => {
        if (name === "q") this.words.value = "";
        if (name === "since" || name === "until") {
          this.root.querySelector(`input[name=${name}]`).value = "";
          this.set(name, "");
        } else this.choose(name, value, false);
      };
      chips.push(element("li", {}, element("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${text}`, on: { click: remove } }, element("span", { text }), element("span", { text: "×", "aria-hidden": "true" }))));
    }
    if (chips.length > 1) chips.push(element("li", {}, element("button", { type: "button", class: "quiet", text: "Clear all", on: { click: () => this.clear() } })));
    byId("chips").replaceChildren(...chips);
  }

  label(name, value) {
    return name === "rating" ? RATING_NAMES[value] ?? value : name === "trait" ? value.replaceAll("_", " ") : value;
  }

  show(facets) {
    for (const facet of facets) {
      let section = this.sections.get(facet.name);
      if (!section) {
        section = element("details", { class: "facet", open: this.open.has(facet.name) }, element("summary", {}, element("span", { text: facet.title })), element("div", { role: "group", "aria-label": facet.title }));
        this.sections.set(facet.name, section);
        this.root.append(section);
      }
      section.hidden = !facet.values.some(([value, count]) => count || this.wanted.getAll(facet.name).includes(value));
      this.fill(section.lastElementChild, facet);
    }
  }

  fill(group, facet) {
    const chosen = new Set(this.wanted.getAll(facet.name));
    const focused = group.contains(document.activeElement) ? document.activeElement.dataset.value : undefined;
    const isLong = facet.values.length > FEW + 2;
    const shown = isLong && !this.all.has(facet.name) ? facet.values.filter(([value], place) => place < FEW || chosen.has(value)) : facet.values;
    const items = shown.map(([value, count]) => {
      const box = element("input", { type: "checkbox", "data-value": value });
      box.checked = chosen.has(value);
      box.addEventListener("change", () => this.choose(facet.name, value, box.checked));
      const text = this.label(facet.name, value);
      if (SPOKEN[value] && facet.name === "rating") box.setAttribute("aria-label", `${SPOKEN[value]}, ${count}`);
      const name = element("span", { class: facet.name === "rating" && SPOKEN[value] ? "name stars-name" : "name", text, title: text });
      return element("label", { class: count ? "value" : "value none" }, box, name, element("span", { class: "number", text: number(count) }));
    });
    if (isLong) {
      const rest = facet.values.length - FEW;
      const isOpen = this.all.has(facet.name);
      const turn = () => {
        if (!this.all.delete(facet.name)) this.all.add(facet.name);
        this.fill(group, facet);
      };
      items.push(element("button", { type: "button", class: "quiet", text: isOpen ? "Fewer" : `${number(rest)} more`, on: { click: turn } }));
    }
    if (facet.more && this.all.has(facet.name)) items.push(element("p", { class: "muted", text: `and ${number(facet.more)} others: search for them` }));
    group.replaceChildren(...items);
    if (focused !== undefined) [...group.querySelectorAll("input")].find((one) => one.dataset.value === focused)?.focus();
  }
}
