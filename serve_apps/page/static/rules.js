// The rules of the shop for a product's list, in the address and in a panel.

import { el, languageOf } from "./cards.js";

/** A number of at least 0, or null if the text is not one. */
export const number = (text) => (text === null || text.trim() === "" || !(Number(text) >= 0) ? null : Number(text));

const whole = (text) => (/^[1-9]\d{0,5}$/.test(text ?? "") ? Number(text) : null);

export const rulesOf = (fields) => ({
  excludeCatalog: fields.get("other") === "1",
  soldOut: fields.get("sold") === "1",
  dearer: fields.get("dear") === "1",
  photoCap: whole(fields.get("cap")),
  price: { min: number(fields.get("min")), max: number(fields.get("max")) },
  same: [...new Set(fields.getAll("same"))],
});

/** [name, value] of the rules that differ from the shop's defaults. */
export const fieldsOf = ({ excludeCatalog, soldOut, dearer, photoCap, price, same }) =>
  [
    ["other", excludeCatalog ? "1" : null],
    ["sold", soldOut ? "1" : null],
    ["dear", dearer ? "1" : null],
    ["cap", photoCap],
    ["min", price.min],
    ["max", price.max],
    ...same.map((key) => ["same", key]),
  ].filter(([, value]) => value !== null);

/** The attributes of `product` that other products must share. */
export const sharedOf = ({ same }, product) =>
  Object.fromEntries(same.map((key) => [key, product.attributes?.[key]?.[0]]).filter(([, value]) => value));

function toggle(name, words) {
  return el("label", { class: "switched" }, el("input", { type: "checkbox", name, value: "1", "data-testid": `rule-${name}` }), el("span", { class: "switch", "aria-hidden": "true" }), words);
}

/** `button` unfolds `form`; `changed` gets the rules chosen in it. */
export class RulesPanel {
  constructor(product, changed) {
    this.same = Object.entries(product.attributes ?? {}).filter(([, values]) => values?.length);
    const price = (name, words) =>
      el("input", { type: "number", min: "0", step: "any", inputMode: "decimal", name, placeholder: words, "aria-label": `Price ${words}`, "data-testid": `rule-${name}` });
    const cap = el("input", { type: "number", min: "1", step: "1", inputMode: "numeric", name: "cap", placeholder: "any", "data-testid": "rule-cap" });
    this.form = el(
      "form",
      { class: "rules", id: "rules", hidden: true },
      toggle("sold", "Show sold-out products"),
      toggle("dear", "Show dearer listings of a product"),
      el("label", { class: "field" }, "Most products with the same photo ", cap),
      el("div", { class: "field" }, `Price${product.currency ? ` in ${product.currency}` : ""} `, price("min", "from"), "–", price("max", "to")),
      this.same.length > 0 &&
        el("fieldset", { class: "same" }, el("legend", {}, "Must share"), ...this.same.map(([key, [value]]) =>
          el("label", { class: "chip" }, el("input", { type: "checkbox", name: "same", value: key, "data-testid": "rule-same" }), el("span", { lang: languageOf(value) }, `${key}: ${value}`)))),
    );
    this.button = el("button", { type: "button", class: "rules-toggle", "data-testid": "rules", "aria-expanded": "false", "aria-controls": "rules" });
    this.button.addEventListener("click", () => {
      this.form.hidden = !this.form.hidden;
      this.button.setAttribute("aria-expanded", String(!this.form.hidden));
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => {
      const { excludeCatalog, ...chosen } = rulesOf(new URLSearchParams(new FormData(this.form)));
      changed(chosen);
    });
  }

  show(rules) {
    const { sold, dear, cap, min, max } = this.form.elements;
    sold.checked = rules.soldOut;
    dear.checked = rules.dearer;
    cap.value = rules.photoCap ?? "";
    min.value = rules.price.min ?? "";
    max.value = rules.price.max ?? "";
    for (const box of this.form.querySelectorAll('[name="same"]')) box.checked = rules.same.includes(box.value);
    const set = fieldsOf({ ...rules, excludeCatalog: false }).length;
    this.button.textContent = set ? `Rules (${set})` : "Rules";
  }
}
