// One picture, large, with what is known of it beside.

import { byId, copying, element, tell } from "./elements.js";
import { ask, post } from "./server.js";

export class Viewer {
  constructor(heard) {
    this.heard = heard;
    this.dialog = byId("viewer");
    this.row = null;
    const button = (text, label, click) => element("button", { type: "button", class: "quiet", text, "aria-label": label, title: label, on: { click } });
    this.picture = element("img", { alt: "" });
    this.stage = element("div", { class: "stage", tabindex: "-1", autofocus: true }, this.picture);
    this.place = element("p", { class: "muted place" });
    this.marks = element("div", { class: "marks", role: "group", "aria-label": "What you say of it" });
    this.text = element("div", { class: "panel-text" });
    this.panel = element("aside", { class: "panel", "aria-label": "About this picture" }, this.marks, this.text);
    this.dialog.append(
      this.stage,
      element("div", { class: "viewer-bar" }, button("←", "Previous picture", () => heard.step(-1)), this.place, button("→", "Next picture", () => heard.step(1)), button("Close", "Close the picture", () => this.dialog.close())),
      this.panel,
    );
    this.picture.addEventListener("click", (event) => {
      if (event.detail < 2) this.stage.classList.toggle("actual"); // not with the second one of those that opened it
    });
    this.picture.addEventListener("load", () => {
      this.stage.classList.remove("waiting");
      heard.shown(); // time to get the next ones
    });
    this.picture.addEventListener("error", () => {
      if (this.row) this.stage.classList.add("gone");
    });
    this.dialog.addEventListener("close", () => {
      this.row = null;
      this.picture.removeAttribute("src");
      heard.closed();
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  show(row, index, count) {
    const isSame = this.row?.image_id === row.image_id;
    this.row = row;
    this.place.textContent = `${(index + 1).toLocaleString("en")} of ${count.toLocaleString("en")}`;
    if (!this.dialog.open) this.dialog.showModal();
    if (!isSame) {
      this.stage.classList.remove("actual", "gone");
      this.stage.classList.add("waiting");
      this.picture.width = row.width;
      this.picture.height = row.height;
      this.picture.alt = row.prompt.slice(0, 300);
      this.stage.style.backgroundImage = "";
      this.picture.src = `/picture/${row.image_id}`;
      this.text.replaceChildren(element("p", { class: "prompt", text: row.prompt }));
      this.tags = this.note = null;
      this.panel.scrollTop = 0;
      this.fetch(row);
    }
    this.mark(row);
  }

  mark(row) {
    const { say } = this.heard;
    const star = (value) => element("button", { type: "button", class: value <= (row.rating ?? 0) ? "star on" : "star", text: value <= (row.rating ?? 0) ? "★" : "☆", "aria-label": value === 1 ? "1 star" : `${value} stars`, "aria-pressed": String(row.rating === value), on: { click: () => say("rating", row.rating === value ? "none" : String(value)) } });
    const toggle = (kind, text, isOn) => element("button", { type: "button", class: isOn ? "mark on" : "mark", text, "aria-pressed": String(isOn), on: { click: () => say(kind, isOn ? "no" : "yes") } });
    const held = this.marks.contains(document.activeElement) ? [...this.marks.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    this.marks.replaceChildren(
      element("span", { class: "stars-row", role: "group", "aria-label": row.rating ? `Rated ${row.rating} of 5` : "Not rated" }, ...[1, 2, 3, 4, 5].map(star)),
      toggle("pick", "Pick", row.picked),
      toggle("reject", "Reject", row.rejected),
      element("button", { type: "button", class: "mark", text: "Tag", on: { click: () => this.heard.tag() } }),
      element("button", { type: "button", class: "mark", text: "Note", on: { click: () => this.heard.note() } }),
    );
    if (held >= 0) this.marks.querySelectorAll("button")[held]?.focus();
    this.note?.replaceChildren(row.note ?? "");
    this.tags?.replaceChildren(...row.user_tags.map((tag) => element("span", { class: "tag", text: tag })));
  }

  async fetch(row) {
    clearTimeout(this.waiting);
    await new Promise((done) => (this.waiting = setTimeout(done, 60))); // while leafing through, only the last is asked
    if (this.row?.image_id !== row.image_id) return;
    let found;
    try {
      found = await ask(`/api/picture/${row.image_id}`);
    } catch (error) {
      found = null;
      this.text.append(element("p", { class: "muted", text: error.message }));
    }
    if (found && this.row?.image_id === row.image_id) this.describe(found);
  }

  describe(found) {
    this.tags = element("p", { class: "tags" });
    this.note = element("p", { class: "note" });
    const part = (title, ...children) => element("section", {}, element("h3", { text: title }), ...children);
    const parts = [element("p", { class: "prompt", text: found.prompt })];
    if (found.negative_prompt) parts.push(element("p", { class: "muted", text: `Not: ${found.negative_prompt}` }));
    parts.push(element("p", { text: found.recipe }), this.tags, this.note);
    if (found.reasons) parts.push(part("Why it was made so", element("p", { text: found.reasons })));
    parts.push(this.more(found));
    if (found.failures.length) {
      const lines = found.failures.map((one) => element("li", { text: `${one.created_at}, attempt ${one.attempt}: ${one.error_kind ?? one.status}${one.error_message ? `: ${one.error_message}` : ""}` }));
      parts.push(part("What failed before", element("ul", {}, ...lines)));
    }
    const commands = found.commands.filter((one) => one.does !== "More like this");
    parts.push(part("Commands", ...commands.map((one) => this.command(one.does, one.command))));
    const facts = found.facts.map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", { text: value })));
    parts.push(element("details", {}, element("summary", { text: "The whole record" }), element("dl", {}, element("div", {}, element("dt", { text: "file" }), element("dd", { text: found.path })), ...facts)));
    this.text.replaceChildren(...parts);
    if (this.row) this.mark(this.row);
  }

  command(does, text) {
    return element("div", { class: "command" }, element("span", { text: does }), element("code", { text }), copying(() => text));
  }

  // The command that makes more is built by the server, of a closed list of keys.
  more(found) {
    const code = element("code", { text: found.commands.find((one) => one.does === "More like this").command });
    const field = (name, label, kind, value) => element("label", { "data-of": name }, element("span", { text: label }), element("input", { name, inputmode: kind, placeholder: value, autocomplete: "off", size: "5" }));
    const chosen = (name, label, value) => element("label", { "data-of": name }, element("span", { text: label }), element("select", { name, "aria-label": label }, new Option(value, "")));
    const numbers = [["seeds", "new seeds", "numeric", "4"], ["steps", "steps", "numeric", found.steps], ["guidance_scale", "guidance", "decimal", found.guidance_scale], ["width", "width", "numeric", found.width], ["height", "height", "numeric", found.height]];
    const scheduler = chosen("scheduler", "scheduler", found.scheduler);
    const model = chosen("model", "model", found.model);
    const form = element("form", { class: "more" }, ...numbers.map(([name, label, kind, value]) => field(name, label, kind, String(value))), scheduler, model);
    const offer = (label, names, own) => label.lastChild.append(...names.filter((name) => name !== own).map((name) => new Option(name, name)));
    this.choices ??= ask("/api/choices").catch(() => ({ schedulers: [], models: [] }));
    this.choices.then(({ schedulers, models }) => { offer(scheduler, schedulers, found.scheduler); offer(model, models, found.model); });
    const told = element("p", { class: "muted", role: "status" });
    const values = () => {
      const asked = { image: found.image_id };
      for (const input of form.querySelectorAll("input")) if (input.value.trim()) asked[input.name] = Number(input.value.replace(",", "."));
      for (const select of form.querySelectorAll("select")) if (select.value) asked[select.name] = select.value;
      return asked;
    };
    let last = 0; // answers may overtake each other: the command is that of the last values
    const shown = async () => {
      const request = ++last;
      let error = "";
      let command = null;
      try {
        ({ command } = await post("/api/more", values()));
      } catch (refused) {
        error = refused.message;
      }
      if (request !== last) return;
      if (command !== null) code.textContent = command;
      told.textContent = error;
    };
    form.addEventListener("input", shown);
    const parts = [form, element("div", { class: "command" }, code, copying(() => code.textContent))];
    const make = async (event) => {
      event?.preventDefault();
      if (document.body.dataset.mayMake !== "yes") return;
      try {
        await post("/api/make", values());
        tell("a run has started");
        this.heard.made();
      } catch (error) {
        told.textContent = error.message;
      }
    };
    form.addEventListener("submit", make);
    if (document.body.dataset.mayMake === "yes") parts.push(element("button", { type: "button", class: "accent", text: "Make them", on: { click: make } }));
    this.log = element("pre", { class: "log", hidden: true, tabindex: "0", "aria-label": "Output of the run" });
    return element("section", { "aria-label": "More like this" }, element("h3", { text: "More like this" }), ...parts, told, this.log);
  }

  showRun(making) {
    if (!this.log || !making) return;
    this.log.hidden = false;
    const end = making.code === null ? "" : making.code === 0 ? "\ndone" : `\nended with exit code ${making.code}`;
    const text = `$ ${making.command}\n${making.lines.join("\n")}${end}`;
    if (this.log.textContent !== text) {
      this.log.textContent = text;
      this.log.scrollTop = this.log.scrollHeight;
    }
  }
}
