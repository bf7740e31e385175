// Two to four pictures side by side, two also one over the other, and what differs in their records.

import { byId, element, notice, stars } from "./elements.js";
import { ask } from "./server.js";

const BASIC = [
  ["model", (one) => one.model],
  ["LoRA", (one) => one.loras?.join(", ") ?? ""],
  ["size", (one) => `${one.width} × ${one.height}`],
  ["steps", (one) => one.steps],
  ["guidance", (one) => one.guidance_scale],
  ["scheduler", (one) => one.scheduler],
  ["seed", (one) => one.seed],
  ["prompt", (one) => one.prompt],
  ["negative prompt", (one) => one.negative_prompt],
  ["seconds", (one) => one.seconds?.toFixed(1) ?? ""],
  ["rating", (one) => stars(one.rating)],
];
const LEFT_OUT = new Set(["created", "batch", "image", "job", "pixels", "size", "steps", "guidance scale", "scheduler", "seed", "model", "loras", "seconds"]);

export class Compare {
  constructor(heard) {
    this.heard = heard;
    this.dialog = byId("compare");
    this.dialog.addEventListener("close", () => heard.closed());
  }

  get isOpen() {
    return this.dialog.open;
  }

  async show(rows) {
    let found;
    try {
      found = await Promise.all(rows.map((row) => ask(`/api/picture/${row.image_id}`)));
    } catch (error) {
      notice(error.message);
      return;
    }
    const pictures = found.map((one, place) => {
      const choose = element("button", { type: "button", class: "mark", text: "Pick this one", on: { click: () => this.pick(one, choose) } });
      if (rows[place].picked) this.chosen(choose, true);
      const gone = (event) => event.target.parentElement.classList.add("gone");
      return element(
        "figure", {},
        element("img", { src: `/picture/${one.image_id}`, alt: one.prompt.slice(0, 300), width: one.width, height: one.height, on: { error: gone } }),
        element("figcaption", {}, element("span", { text: `${place + 1}. ${one.model} · ${one.seed}` }), choose),
      );
    });
    const figures = element("div", { class: `figures of-${found.length}` }, ...pictures);
    const close = element("button", { type: "button", class: "quiet", text: "Close", on: { click: () => this.dialog.close() } });
    this.dialog.replaceChildren(
      element("div", { class: "compare-head" }, element("h2", { text: `${found.length} pictures` }), found.length === 2 ? this.laying(figures) : null, close),
      figures,
      this.table(found),
    );
    if (!this.dialog.open) this.dialog.showModal();
  }

  // A box that lays two pictures one over the other, and the slider between them.
  laying(figures) {
    const box = element("input", { type: "checkbox" });
    const slider = element("input", { type: "range", class: "wipe", min: 0, max: 100, step: 0.5, value: 50, "aria-label": "How much of the first picture is seen" });
    const wipe = () => figures.style.setProperty("--at", `${slider.value}%`);
    slider.addEventListener("input", wipe);
    box.addEventListener("change", () => {
      figures.classList.toggle("over", box.checked);
      if (box.checked) figures.append(slider);
      else slider.remove();
      wipe();
    });
    return element("label", { class: "check" }, box, element("span", { text: "One over the other" }));
  }

  async pick(one, button) {
    await this.heard.say([one], "pick", "yes");
    for (const other of this.dialog.querySelectorAll("figcaption .mark")) this.chosen(other, other === button);
  }

  chosen(button, isPicked) {
    button.classList.toggle("on", isPicked);
    button.textContent = isPicked ? "Picked" : "Pick this one";
  }

  table(found) {
    const facts = found.map((one) => new Map(one.facts));
    const names = [...new Set(found.flatMap((one) => one.facts.map(([name]) => name)))].filter((name) => !LEFT_OUT.has(name));
    const rows = [
      ...BASIC.map(([name, value]) => [name, found.map((one) => String(value(one) ?? ""))]),
      ...names.map((name) => [name, facts.map((one) => one.get(name) ?? "")]),
    ];
    const differing = rows.filter(([, values]) => new Set(values).size > 1);
    if (!differing.length) return element("p", { class: "muted", text: "Their records say the same." });
    const head = element("tr", {}, element("th", { scope: "col", text: "differs" }), ...found.map((_, place) => element("th", { scope: "col", text: String(place + 1) })));
    const lines = differing.map(([name, values]) => element("tr", {}, element("th", { scope: "row", text: name }), ...values.map((text) => element("td", { text }))));
    return element("div", { class: "differences" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
  }
}
