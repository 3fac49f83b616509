// A shelf for a topic: the products nearest to its words, ranked by fit and by what shoppers like.

import { ServiceError, health, rank, similar } from "./api.js";
import { card, el, languageOf, skeletons } from "./cards.js";

const CANDIDATES = 200;
const SHOWN = 60;
const FIELDS = ["name", "desc", "kwds", "date", "category"];

export function shelfAsk(fields) {
  return Object.fromEntries(FIELDS.map((name) => [name, fields.get(name)?.trim() ?? ""]));
}

export function shelfHash(ask) {
  const fields = new URLSearchParams(FIELDS.filter((name) => ask[name]).map((name) => [name, ask[name]]));
  return fields.size ? `#/shelf?${fields}` : "#/shelf";
}

const signed = new Intl.NumberFormat("en", { signDisplay: "always", minimumFractionDigits: 3, maximumFractionDigits: 3 });

/** One part of the score, as a bar between the least and the most on this shelf. */
function reason(label, value, [least, most]) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.inlineSize = `${most > least ? ((value - least) / (most - least)) * 100 : 100}%`;
  return el("span", { class: "reason", "data-testid": `reason-${label.toLowerCase()}` }, el("span", {}, label), bar, signed.format(value));
}

const rangeOf = (values) => [Math.min(...values), Math.max(...values)];

export class Shelf {
  #request = new AbortController();
  #shown = null;
  #scroll = 0;

  /** `view` holds the form and the grid; `go` follows an address. */
  constructor(view, go) {
    this.form = view.querySelector("form");
    this.grid = view.querySelector(".grid");
    this.status = view.querySelector(".status");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#shown = null;
      go(shelfHash(shelfAsk(new FormData(this.form))));
    });
    window.addEventListener("scroll", () => !view.hidden && (this.#scroll = window.scrollY), { passive: true });
  }

  show(ask) {
    this.#fill(ask);
    const heading = ask.name || "A shelf for a topic";
    document.title = `${heading} · shoplens`;
    if (shelfHash(ask) === this.#shown) {
      window.scrollTo(0, this.#scroll);
      return;
    }
    window.scrollTo(0, 0);
    this.#request.abort();
    this.#shown = null;
    this.grid.replaceChildren();
    this.#say("Describe the topic of the shelf. Products that fit it are ranked, best first.");
    if (ask.name || ask.desc || ask.kwds) this.#rank(ask);
  }

  /** `paths` are [id, name] of the categories to choose from. */
  offer(paths) {
    const { category } = this.form.elements;
    const chosen = category.value;
    category.replaceChildren(category.options[0], ...paths.map(([id, path]) => el("option", { value: id, lang: languageOf(path) }, path)));
    category.value = chosen;
  }

  #fill(ask) {
    const { category } = this.form.elements;
    const known = [...category.options].some(({ value }) => value === ask.category);
    if (!known) category.append(el("option", { value: ask.category }, ask.category));
    for (const name of FIELDS) this.form.elements[name].value = ask[name];
  }

  #say(sentence, { bad = false } = {}) {
    this.status.textContent = sentence;
    this.status.classList.toggle("bad", bad);
  }

  async #rank(ask) {
    const request = (this.#request = new AbortController());
    const { name, desc, date, category } = ask;
    const kwds = ask.kwds.split(",").map((word) => word.trim()).filter(Boolean);
    this.#say("Ranking…");
    this.grid.setAttribute("aria-busy", "true");
    this.grid.replaceChildren(...skeletons(12));
    try {
      const text = [name, desc, ...kwds].filter(Boolean).join(" ");
      const model = (await health()).ranker?.split("/")[0];
      const { data } = await similar({ text, ...(model && { model }) }, { k: CANDIDATES, category }, request.signal);
      const topic = { name, desc, kwds, ...(date && { date }) };
      const found = data.length ? await rank(topic, data, SHOWN, request.signal) : { results: [] };
      if (request.signal.aborted) return;
      const fits = rangeOf(found.results.map(({ fit }) => fit));
      const attractions = rangeOf(found.results.map(({ attraction }) => attraction));
      const cards = found.results.map(({ index, relevance_score: score, fit, attraction }, place) => {
        const node = card({ ...data[index], score: undefined });
        node.querySelector(".card-photo").append(el("span", { class: "tag" }, `${place + 1}`));
        node.title = `Scores ${score.toFixed(3)}: fit ${signed.format(fit)}, attraction ${signed.format(attraction)}`;
        node.append(reason("Fit", fit, fits), reason("Attraction", attraction, attractions));
        return node;
      });
      this.grid.replaceChildren(...cards);
      this.#shown = shelfHash(ask);
      this.#say(cards.length ? `The best ${cards.length} of ${data.length} products near the topic, by ${found.model}` : "No product is near this topic.");
    } catch (error) {
      if (request.signal.aborted || error.name === "AbortError") return;
      if (!(error instanceof ServiceError)) throw error;
      this.grid.replaceChildren();
      this.#say(error.sentence, { bad: true });
    } finally {
      if (request === this.#request) this.grid.setAttribute("aria-busy", "false");
    }
  }
}
