// One product: its photos and facts, its attributes and caption by the model, and the products similar to it.

import { ServiceError, getProduct } from "./api.js";
import { showAttributes } from "./attributes.js";
import { showCaption } from "./captions.js";
import { complaint, el, languageOf, money, pathOf, photo } from "./cards.js";
import { Neighbours } from "./neighbours.js";

function gallery(product) {
  const urls = (product.images ?? []).map((image) => (typeof image === "string" ? image : image.image ?? image.url));
  if (!urls.length) urls.push(product.image);
  const large = el("div", { class: "large" }, photo(urls[0], product.title));
  if (urls.length === 1) return el("div", { class: "gallery" }, large);
  const thumbs = urls.map((url, i) => {
    const thumb = el("button", { type: "button", "aria-label": `Photo ${i + 1} of ${urls.length}`, "aria-pressed": String(i === 0) }, photo(url, "", { loading: "lazy" }));
    thumb.addEventListener("click", () => {
      large.replaceChildren(photo(url, product.title));
      for (const other of thumbs) other.setAttribute("aria-pressed", String(other === thumb));
    });
    return thumb;
  });
  return el("div", { class: "gallery" }, large, el("div", { class: "thumbs" }, ...thumbs));
}

export class ProductView {
  #request = new AbortController();
  #product = null;
  #neighbours = null;

  /** `back` gives [address, words] of the view that the product was opened from; `place` the links to its categories. */
  constructor(view, { back, place }) {
    this.view = view;
    this.back = back;
    this.place = place;
  }

  async show({ id, ...ask }) {
    if (this.#product?.product_id === id) {
      this.view.querySelector(".back").replaceWith(this.#backLink());
      document.title = `${this.#product.title} · shoplens`;
      this.#neighbours.show(ask);
      return;
    }
    this.#request.abort();
    const request = (this.#request = new AbortController());
    this.#product = null;
    this.view.setAttribute("aria-busy", "true");
    this.view.replaceChildren(this.#backLink(), el("div", { class: "detail-top" }, el("div", { class: "gallery" }, el("div", { class: "photo" }))));
    window.scrollTo(0, 0);
    let product;
    try {
      product = await getProduct(id, request.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServiceError)) throw error;
      this.view.replaceChildren(this.#backLink(), complaint(error, () => this.show({ id, ...ask })));
      return;
    } finally {
      if (request === this.#request) this.view.setAttribute("aria-busy", "false");
    }
    if (request.signal.aborted) return;
    this.#product = product;
    this.#neighbours = new Neighbours(product);
    this.view.replaceChildren(this.#backLink(), this.#top(product), this.#neighbours.element);
    document.title = `${product.title} · shoplens`;
    this.view.querySelector("h1").focus({ preventScroll: true });
    const { product_id, title: text, category_id, attributes: listed } = product;
    const query = { product_id, text, ...(category_id && { category: category_id }) };
    showAttributes(this.view.querySelector(".attributes"), query, { listed, signal: request.signal });
    showCaption(this.view.querySelector(".caption"), { product_id }, { signal: request.signal });
    this.#neighbours.show(ask);
  }

  #backLink() {
    const [href, label] = this.back();
    return el("a", { class: "back", href, "data-testid": "back" }, el("span", { "aria-hidden": "true" }, "←"), ` ${label}`);
  }

  #top(product) {
    const links = this.place(product.category_id);
    const place = links.length ? links : pathOf(product).map((name) => el("span", { lang: languageOf(name) }, name));
    const facts = [
      ["Seller", product.seller],
      ["Catalog", product.catalog_id],
      ["Product id", product.product_id],
      ...Object.entries(product.attributes ?? {}).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : String(value)]),
    ].filter(([, value]) => value);
    return el(
      "div",
      { class: "detail-top" },
      gallery(product),
      el(
        "div",
        { class: "about" },
        el("nav", { class: "crumbs", "aria-label": "Category" }, ...place),
        el("h1", { id: "detail-title", tabIndex: -1, lang: languageOf(product.title) }, product.title),
        el("p", { class: "detail-price" }, money(product.price, product.currency)),
        product.description ? el("p", { class: "description", lang: languageOf(product.description) }, product.description) : null,
        el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", { lang: languageOf(name) }, name), el("dd", { lang: languageOf(value) }, value)])),
        el("section", { class: "attributes", "aria-label": "Attributes by the model", "data-testid": "attributes", hidden: true }),
        el("section", { class: "caption", "aria-label": "Caption by the model", "data-testid": "caption", hidden: true }),
      ),
    );
  }
}
