// Elements for products. All text is inserted as text, never as HTML: titles come from sellers.

/** An element with properties (`class`, `data-*`, `aria-*` and `role` as attributes) and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** `ko` for text with Hangul, so that the browser picks a Korean font and reads it in Korean. */
export const languageOf = (text) => (/[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]/.test(text) ? "ko" : "");

export function money(price, currency) {
  if (price === null || price === undefined) return "";
  try {
    return new Intl.NumberFormat("en", {
      style: "currency",
      currency,
      currencyDisplay: "narrowSymbol",
      trailingZeroDisplay: "stripIfInteger",
    }).format(price);
  } catch {
    return `${new Intl.NumberFormat("en").format(price)} ${currency ?? ""}`.trim();
  }
}

export const pathOf = (product) =>
  Array.isArray(product.category_path) ? product.category_path : (product.category_path ?? "").split(" > ").filter(Boolean);

/** `fields` are further [name, value] pairs of the address; `/` and `@` of a version are not escaped. */
export function productHash(id, fields = []) {
  const query = new URLSearchParams(fields).toString().replaceAll("%2F", "/").replaceAll("%40", "@");
  return `#/product/${encodeURIComponent(id)}${query && `?${query}`}`;
}

/** A photo in a box that keeps its size while it loads, and says so if there is no photo. */
export function photo(url, alt, properties = {}) {
  const box = el("div", { class: "photo" });
  const missing = () => {
    box.classList.add("missing");
    box.replaceChildren(el("span", {}, "No photo"));
  };
  if (typeof url !== "string" || !url.startsWith("/v1/images/")) {
    missing();
    return box;
  }
  const image = el("img", { alt, decoding: "async", draggable: false, ...properties });
  image.addEventListener("load", () => image.classList.add("loaded"));
  image.addEventListener("error", missing);
  image.src = url;
  box.append(image);
  return box;
}

function score(value) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.inlineSize = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return el(
    "span",
    { class: "score", "data-testid": "card-score", title: "Likeness by the model: 1 is identical, 0 is unrelated" },
    bar,
    el("span", { class: "unseen" }, "Likeness "),
    value.toFixed(3),
  );
}

/** The card of one product; `catalogId` marks the offers of that catalog. */
export function card(product, { catalogId = null } = {}) {
  const path = pathOf(product);
  const same = catalogId !== null && product.catalog_id === catalogId;
  return el(
    "a",
    { class: "card", href: productHash(product.product_id), draggable: false, "data-testid": "card", "data-product-id": product.product_id },
    el("div", { class: "card-photo" }, photo(product.image, "", { loading: "lazy" }), same && el("span", { class: "tag" }, "Same catalog")),
    el("span", { class: "card-title", lang: languageOf(product.title), title: product.title }, product.title),
    el("span", { class: "card-path", title: path.join(" › ") }, path.join(" › ")),
    el(
      "span",
      { class: "card-line" },
      el("span", { class: "card-price" }, money(product.price, product.currency)),
      product.seller ? el("span", { class: "card-seller", lang: languageOf(product.seller), title: product.seller }, product.seller) : null,
    ),
    typeof product.score === "number" ? score(product.score) : null,
  );
}

export function skeletons(count) {
  return Array.from({ length: count }, () =>
    el(
      "div",
      { class: "card skeleton", "aria-hidden": "true" },
      el("div", { class: "card-photo" }, el("div", { class: "photo" })),
      el("span", { class: "line" }),
      el("span", { class: "line short" }),
      el("span", { class: "line shorter" }),
    ),
  );
}

/** An error in place of the content; `again` is offered if a second try may help. */
export function complaint(error, again) {
  const retry = el("button", { type: "button" }, "Try again");
  retry.addEventListener("click", again);
  return el("div", { class: "complaint", role: "alert" }, el("p", { class: "status bad" }, error.sentence), error.passing ? retry : null);
}
