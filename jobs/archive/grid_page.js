"use strict";
// Draws the grid of `darkroom grid --html`. All that comes from images is set as text or as attributes, never as HTML.
(() => {
  const data = window.GRID || JSON.parse(document.getElementById("grid").textContent);
  const MAX_CELLS = 4000;
  const axes = data.axes;
  const at = (id) => document.getElementById(id);
  const cells = new Map(data.cells.map(([place, images, why]) => [place.join(","), { images, why }]));
  const chosen = axes.map(() => 0);
  let x = axes.length > 0 ? 0 : -1;
  let y = axes.length > 1 ? 1 : -1;

  function element(name, text, attributes) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  }

  function picker(label, options, value, changed) {
    const box = element("label", label);
    const list = element("select");
    options.forEach(([key, text]) => list.append(new Option(text, key)));
    list.value = String(value);
    list.addEventListener("change", () => { changed(Number(list.value)); draw(); });
    box.append(list);
    return box;
  }

  function tools() {
    const box = at("axes");
    box.replaceChildren();
    if (axes.length > 1) {
      const names = axes.map((axis, number) => [number, axis.name]);
      const swap = (mine, other, value) => (value === other ? [value, mine] : [value, other]);
      box.append(picker("x", names, x, (value) => { [x, y] = swap(x, y, value); }));
      box.append(picker("y", names, y, (value) => { [y, x] = swap(y, x, value); }));
    }
    axes.forEach((axis, number) => {
      if (number !== x && number !== y) {
        const options = axis.labels.map((text, value) => [value, text]);
        box.append(picker(axis.name, options, chosen[number], (value) => { chosen[number] = value; }));
      }
    });
  }

  function cell(place) {
    const box = element("td");
    const found = cells.get(place.join(","));
    if (!found || !found.images.length) {
      box.className = "empty";
      box.textContent = found ? found.why : data.none;
      return box;
    }
    const image = data.images[found.images[found.images.length - 1]];
    const button = element("button", null, { type: "button" });
    button.addEventListener("click", () => open(found.images, found.images.length - 1));
    if (image.src) {
      button.append(picture(image));
    } else {
      button.textContent = "its file is gone";
    }
    if (found.images.length > 1) button.append(element("span", "1 of " + found.images.length, { class: "more" }));
    box.append(button);
    return box;
  }

  function picture(image) {
    const shown = element("img", null, { src: image.src, alt: image.alt, loading: "lazy" });
    if (image.small) shown.className = "small";
    return shown;
  }

  // The file itself, or the thumbnail where the page was moved or the file has gone.
  function original(image) {
    const shown = picture(image);
    if (image.original) {
      shown.addEventListener("error", () => { shown.src = image.src; }, { once: true });
      shown.src = image.original;
    }
    return shown;
  }

  function draw() {
    tools();
    const across = x < 0 ? [""] : axes[x].labels;
    const down = y < 0 ? [""] : axes[y].labels;
    const table = at("table");
    table.replaceChildren();
    if (across.length * down.length > MAX_CELLS) {
      at("note").textContent = "These two axes have " + across.length * down.length + " cells, too many to show; choose others.";
      return;
    }
    at("note").textContent = "";
    const head = element("tr");
    if (y >= 0) head.append(element("td", null, { hidden: "" }), element("th", ""));
    across.forEach((text) => head.append(element("th", text, { scope: "col" })));
    const top = element("thead");
    top.append(head);
    const body = element("tbody");
    down.forEach((text, row) => {
      const line = element("tr");
      if (y >= 0) line.append(element("th", text, { scope: "row" }));
      across.forEach((_, column) => {
        const place = chosen.slice();
        if (x >= 0) place[x] = column;
        if (y >= 0) place[y] = row;
        line.append(cell(place));
      });
      body.append(line);
    });
    table.append(top, body);
  }

  function open(images, number) {
    const box = at("record");
    const image = data.images[images[number]];
    const bar = element("div", null, { class: "bar" });
    const close = element("button", "Close", { type: "button", class: "plain" });
    close.addEventListener("click", () => box.close());
    if (images.length > 1) {
      const next = element("button", "Next of " + images.length, { type: "button", class: "plain" });
      next.addEventListener("click", () => open(images, (number + 1) % images.length));
      bar.append(next);
    } else {
      bar.append(element("span", ""));
    }
    bar.append(close);
    const facts = element("dl");
    image.record.forEach(([name, value]) => facts.append(element("dt", name), element("dd", value)));
    const both = element("div", null, { class: "both" });
    both.append(image.src ? original(image) : element("p", "its file is gone"), facts);
    box.replaceChildren(bar, both);
    if (!box.open) box.showModal();
  }

  at("size").addEventListener("input", (event) => {
    document.documentElement.style.setProperty("--cell", event.target.value + "px");
  });
  draw();
})();
