// The products similar to one product: by the page's own model, and by a second model beside it.

import { ServiceError, similar } from "./api.js";
import { badges } from "./badges.js";
import { card, complaint, el, productHash, skeletons } from "./cards.js";
import { ARMS, armsOf, offer, whatCanBeAsked } from "./models.js";
import { RulesPanel, fieldsOf, rulesOf, sharedOf } from "./rules.js";
import { thumbs } from "./thumbs.js";

const MOST = 24;
const SKELETONS_AFTER_MS = 150;
const percent = new Intl.NumberFormat("en", { style: "percent" });
const places = new Intl.PluralRules("en", { type: "ordinal" });
const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };
const ordinal = (place) => `${place}${ENDINGS[places.select(place)]}`;

/** The fields of the address: the rules, the model of the list (`by`), the model of the list beside it (`beside`). */
export const neighboursAsk = (fields) => ({ rules: rulesOf(fields), by: fields.get("by") ?? "", beside: fields.get("with") ?? "" });

const askFields = ({ rules, by, beside }) => [...fieldsOf(rules), ...Object.entries({ by, with: beside }).filter(([, model]) => model)];

/** A card with its badges, its place in the other list, and its thumbs. */
function hit(found, rank, seed, { model, snapshot, dataset }) {
  const { product_id, ring, score, rules } = found;
  const pair = { seed_product_id: seed.product_id, product_id, model, snapshot, dataset, ring, rank, score, rules };
  const shown = card(found, { catalogId: seed.catalog_id ?? null });
  shown.querySelector(".card-photo").append(el("span", { class: "rank", title: `${ordinal(rank)} by ${model}` }, String(rank)));
  return el(
    "div",
    { class: found.stock === 0 ? "hit sold-out" : "hit", "data-testid": "hit", "data-product-id": product_id },
    shown,
    el("p", { class: "mark", "data-testid": "mark" }),
    badges(found, seed),
    thumbs(pair, found.title),
  );
}

/** The list of one model. `answer` is shown; `trouble` says why nothing is shown; both are null while it waits. */
class List {
  #request = new AbortController();
  #asked = null;
  answer = null;
  trouble = null;

  /** `arrived` is called whenever `answer` or `trouble` has changed. */
  constructor(name, arrived) {
    this.arrived = arrived;
    this.title = el("h3", {});
    this.line = el("p", { class: "status", role: "status", "aria-live": "polite", "data-testid": `${name}-status` });
    this.grid = el("div", { class: "grid", "data-testid": `${name}-grid` });
    this.element = el("section", { class: "list", "data-testid": name }, el("div", { class: "list-head" }, this.title, this.line), this.grid);
  }

  get hits() {
    return [...this.grid.querySelectorAll(".hit")];
  }

  /** The next `show` asks again, because a model may have been promoted meanwhile. */
  stale() {
    this.#asked = null;
  }

  forget() {
    this.#request.abort();
    this.#asked = this.answer = this.trouble = null;
    this.grid.replaceChildren();
  }

  async show(seed, model, rules) {
    const asked = JSON.stringify([model, rules]);
    if (asked === this.#asked) return;
    this.#request.abort();
    const request = (this.#request = new AbortController());
    this.#asked = asked;
    this.answer = this.trouble = null;
    this.arrived();
    this.title.textContent = model || "This page's model";
    const waiting = setTimeout(() => this.grid.replaceChildren(...skeletons(6)), this.grid.firstChild ? SKELETONS_AFTER_MS : 0);
    this.grid.setAttribute("aria-busy", "true");
    try {
      const query = { product_id: seed.product_id, ...(model && { model }) };
      const answer = await similar(query, { k: MOST, ...rules, attributes: sharedOf(rules, seed) }, request.signal);
      if (request.signal.aborted) return;
      this.answer = answer;
      this.title.textContent = model && model !== answer.model ? `${answer.model} (${model})` : answer.model;
      const widened = answer.data.filter(({ ring }) => ring > 0).length;
      this.line.textContent = answer.data.length
        ? `${answer.data.length} nearest${widened ? `, ${widened} of them from categories around` : ""}`
        : "These rules leave no other product to show.";
      this.grid.replaceChildren(...answer.data.map((found, place) => hit(found, place + 1, seed, answer)));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServiceError)) throw error;
      this.#asked = null;
      this.trouble = error.sentence;
      this.line.textContent = "";
      this.grid.replaceChildren(complaint(error, () => this.show(seed, model, rules)));
    } finally {
      clearTimeout(waiting);
      if (request === this.#request) this.grid.setAttribute("aria-busy", "false");
    }
    this.arrived();
  }
}

export class Neighbours {
  #ask = null;

  constructor(product) {
    this.product = product;
    const change = (part) => this.show({ ...this.#ask, ...part }, { rename: true });
    const ruled = (part) => change({ rules: { ...this.#ask.rules, ...part } });
    this.own = new List("similar", () => this.#compare());
    this.other = new List("compared", () => this.#compare());
    this.by = el("select", { "data-testid": "by" });
    this.beside = el("select", { "data-testid": "compare-with" });
    this.by.addEventListener("change", () => change({ by: this.by.value }));
    this.beside.addEventListener("change", async () => {
      const { value } = this.beside;
      if (value !== ARMS) return change({ beside: value });
      const [by, beside] = armsOf(await whatCanBeAsked());
      return change({ by: by.model, beside: beside.model });
    });
    this.box = el("input", { type: "checkbox", "data-testid": "exclude-catalog" });
    this.box.addEventListener("change", () => ruled({ excludeCatalog: this.box.checked }));
    this.panel = new RulesPanel(product, ruled);
    this.overlap = el("p", { class: "status", role: "status", "aria-live": "polite", "data-testid": "overlap" });
    const leap = el("button", { type: "button" }, "To the other list");
    leap.addEventListener("click", () => this.other.element.scrollIntoView());
    this.compared = el("div", { class: "overlap" }, this.overlap, leap);
    this.lists = el("div", { class: "lists" }, this.own.element, this.other.element);
    this.element = el(
      "section",
      { class: "neighbours", "aria-labelledby": "similar-title" },
      el(
        "div",
        { class: "neighbours-head" },
        el("h2", { id: "similar-title" }, "Similar products"),
        el("label", { class: "choice" }, "by", this.by),
        el("label", { class: "choice" }, "Compare with", this.beside),
        el("label", { class: "switched exclude" }, this.box, el("span", { class: "switch", "aria-hidden": "true" }), "Hide the same product"),
        this.panel.button,
      ),
      this.panel.form,
      this.compared,
      this.lists,
    );
    for (const [moment, on] of [["mouseover", true], ["focusin", true], ["mouseout", false], ["focusout", false]]) {
      this.lists.addEventListener(moment, ({ target }) => this.#pointOut(target.closest(".hit"), on));
    }
  }

  /** `rename` changes the address too, in place. */
  show(ask, { rename = false } = {}) {
    this.#ask = ask;
    const { rules, by, beside } = ask;
    if (rename) history.replaceState(null, "", productHash(this.product.product_id, askFields(ask)));
    else for (const list of [this.own, this.other]) list.stale();
    this.box.checked = rules.excludeCatalog;
    this.panel.show(rules);
    this.#offer();
    this.other.element.hidden = this.compared.hidden = !beside;
    this.lists.classList.toggle("two", Boolean(beside));
    this.own.show(this.product, by, rules);
    if (beside) this.other.show(this.product, beside, rules);
    else this.other.forget();
    this.#compare();
  }

  async #offer() {
    const asked = await whatCanBeAsked();
    const { by, beside } = this.#ask;
    offer(this.by, "this page's model", by, asked);
    offer(this.beside, "no other", beside, asked, { arms: true });
  }

  /** Marks products of both lists and of only one, and adds the comparison to the address of every card. */
  #compare() {
    const fields = askFields({ ...this.#ask, rules: { ...this.#ask.rules, same: [] } });
    const [own, other] = [this.own.answer, this.other.answer];
    for (const [list, there] of [[this.own, other], [this.other, own]]) {
      const place = there && new Map(there.data.map(({ product_id }, at) => [product_id, at + 1]));
      for (const node of list.hits) {
        const id = node.dataset.productId;
        node.querySelector(".card").href = productHash(id, fields);
        const mark = node.querySelector(".mark");
        mark.classList.toggle("alone", Boolean(place) && !place.has(id));
        mark.textContent = !place ? "" : place.has(id) ? `In both, ${ordinal(place.get(id))} there` : "Only here";
      }
    }
    const trouble = this.own.trouble ?? this.other.trouble;
    this.overlap.textContent = own && other ? overlapOf(own, other) : trouble ? `No comparison: ${trouble}` : "";
  }

  /** Highlights the same product in the other list. */
  #pointOut(node, on) {
    for (const twin of this.other.answer && node ? [...this.own.hits, ...this.other.hits] : []) {
      if (twin !== node && twin.dataset.productId === node.dataset.productId) twin.classList.toggle("twin", on);
    }
  }
}

/** The match rate is a share of the longer list, because rules may leave a list short. */
function overlapOf(own, other) {
  const k = Math.max(own.data.length, other.data.length);
  if (k === 0) return "Neither list has a product.";
  const ids = new Set(own.data.map(({ product_id }) => product_id));
  const both = other.data.filter(({ product_id }) => ids.has(product_id)).length;
  const shops = own.dataset === other.dataset ? "" : ` The lists are of two shops: ${own.dataset} and ${other.dataset}.`;
  const same = own.snapshot === other.snapshot ? " Both are the same version." : "";
  return `${both} of ${k} are in both lists: match rate ${percent.format(both / k)}.${same}${shops}`;
}
