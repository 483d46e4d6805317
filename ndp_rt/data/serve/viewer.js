// Pictures with their outlines, and the dialog that shows one image with all that is known of it.

import { make, showScore, showTime } from "./plot.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function word(picture) {
  return picture.is_defect ? "defect" : "good";
}

// The picture, its map where `heat` names one, and its outlines, one above the other.
export function stack(picture, address, heat, hasOutlines) {
  const box = element("div", { class: "stack" }, element("img", { src: address, alt: "" }));
  if (heat) box.append(element("img", { src: heat, alt: "", class: "heat" }));
  if (hasOutlines && picture.outlines.length) {
    const svg = make("svg", { viewBox: `0 0 ${picture.width_px} ${picture.height_px}`, "aria-hidden": "true" });
    for (const style of ["", "bright"]) {
      for (const line of picture.outlines) {
        const points = line.map((value, index) => value * (index % 2 ? picture.height_px : picture.width_px));
        svg.append(make("polygon", { points: points.map((value) => value.toFixed(1)).join(" "), class: style }));
      }
    }
    box.append(svg);
  }
  return box;
}

export class Viewer {
  constructor(dialog, load, ask, findNext) {
    this.dialog = dialog;
    this.load = load; // of a picture and a kind: the address of a picture
    this.ask = ask; // of a path: its JSON
    this.findNext = findNext; // of a number and a direction: another picture, or undefined
    this.picture = null;
    const part = (id) => dialog.querySelector(`#${id}`);
    this.parts = Object.fromEntries(["viewer-title", "large", "facts", "defects", "nearest", "newer", "older", "with-outlines", "with-heat", "no-heat"].map((id) => [id, part(id)]));
    part("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { this.picture = null; });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    for (const id of ["with-outlines", "with-heat"]) this.parts[id].addEventListener("change", () => this.draw());
    for (const [id, step] of [["newer", 1], ["older", -1]]) this.parts[id].addEventListener("click", () => this.move(step));
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
      if (step && !event.target.matches("input")) this.move(step);
    });
  }

  move(step) {
    const next = this.picture && this.findNext(this.picture.number, step);
    if (next) this.show(next);
  }

  refresh() { // others have come
    if (!this.picture) return;
    for (const [id, step] of [["newer", 1], ["older", -1]]) this.parts[id].disabled = !this.findNext(this.picture.number, step);
  }

  show(picture) {
    this.picture = picture;
    const { parts } = this;
    parts["viewer-title"].replaceChildren(`Image ${picture.number} `, element("span", { class: `badge ${word(picture)}` }, picture.is_defect ? "DEFECT" : "GOOD"));
    parts["with-heat"].disabled = !picture.has_heat;
    parts["no-heat"].textContent = picture.has_heat ? "" : "no map was drawn for this image";
    const brightness = picture.brightness.toFixed(3) + " of white" + (picture.brightness_word ? `, ${picture.brightness_word}` : "");
    const facts = [
      ["Score", showScore(picture.score)], ["Threshold", showScore(picture.threshold)], ["Time", showTime(picture.time_ms)],
      ["Size", `${picture.width_px} × ${picture.height_px} pixels`], ["Brightness", brightness],
      ["Waited", `${picture.waited_ms.toFixed(1)} ms`], ["Inspection", `${picture.total_ms.toFixed(1)} ms`],
    ];
    parts.facts.replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    this.listDefects(picture);
    if (!this.dialog.open) this.dialog.showModal();
    this.refresh();
    this.draw();
    this.compare(picture);
  }

  async draw() {
    const { picture, parts } = this;
    if (!picture) return;
    try {
      const address = await this.load(picture, "image");
      const heat = parts["with-heat"].checked && picture.has_heat ? await this.load(picture, "heat") : null;
      if (this.picture !== picture) return;
      const drawn = stack(picture, address, heat, parts["with-outlines"].checked);
      drawn.firstChild.alt = `image ${picture.number}, ${word(picture)}, ${picture.defect_count} defects`;
      parts.large.replaceChildren(drawn);
    } catch {
      if (this.picture === picture) parts.large.replaceChildren("This picture is not kept any longer.");
    }
  }

  listDefects(picture) {
    const { defects } = this.parts;
    if (!picture.defects.length) {
      defects.replaceChildren(element("p", { class: "quiet" }, "None."));
      return;
    }
    const hasMm = picture.defects[0].width_mm !== null;
    const columns = ["", "x", "y", "width", "height", "area", "peak"];
    const rows = picture.defects.map((one, index) => element("tr", {}, ...[index + 1, one.x_px, one.y_px, one.width_px, one.height_px, one.area_px, showScore(one.peak)].map((value) => element("td", {}, String(value)))));
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows));
    const more = picture.defect_count - picture.defects.length, worst = picture.defects[0];
    const notes = ["In pixels of the image; the highest peak first."];
    if (more > 0) notes.push(`${more} more are not listed.`);
    if (hasMm) notes.push(`The first is ${worst.width_mm.toFixed(2)} × ${worst.height_mm.toFixed(2)} mm.`);
    defects.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "defects" }, table), element("p", { class: "quiet" }, notes.join(" ")));
  }

  async compare(picture) {
    const { nearest } = this.parts;
    const say = (text) => nearest.replaceChildren(element("p", { class: "quiet" }, text));
    if (!picture.defects.length) return say("The image has no defect to compare.");
    say("Looking for it …");
    try {
      const found = await this.ask("page/nearest", { id: picture.id, number: picture.number });
      if (this.picture !== picture) return undefined;
      if (!found.source) return say("This model keeps no good image: its bundle has neither a reference nor calibration images.");
      const origin = found.source === "reference" ? "From the model's reference image." : `From the ${found.good_count} good calibration images of the bundle; the model keeps no reference image.`;
      const figure = (address, words) => element("figure", {}, element("img", { src: address, alt: words }), element("figcaption", {}, words));
      nearest.replaceChildren(...found.places.map((one, index) => element("div", { class: "pair" },
        figure(one.here, `defect ${index + 1}`), figure(one.good, "good"),
        element("p", {}, (found.source === "reference" ? "" : `Calibration image ${one.good_number}, `) + `${Math.round(one.x * 100)} % from the left, ${Math.round(one.y * 100)} % from the top. Differs by ${one.difference.toFixed(1)} of 255.`))),
      element("p", { class: "quiet" }, `${origin} The patch with the least squared difference of pixels.`));
    } catch (error) {
      if (this.picture === picture) say(`It could not be looked for: ${error.message}`);
    }
    return undefined;
  }
}
