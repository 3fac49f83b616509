// The public endpoints, as functions. `service` passes on the model version and the dataset that each answer names.

/** Events "model" and "dataset", each with the name as `detail`. */
export const service = new EventTarget();

export class ServiceError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** True if the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status >= 500 || this.status === 429;
  }

  /** A sentence for people, in the words of the service if it gave any. */
  get sentence() {
    if (this.code === "no_champion") return `No model is promoted yet. The service says: ${this.message}`;
    if (this.status === 0) return "The service cannot be reached. Is it running?";
    if (this.status === 503 || this.status === 429) return `The service is not ready just now: ${this.message}`;
    if (/^\S+[/@]/.test(this.message)) return this.message; // begins with the name of a version
    return this.message.charAt(0).toUpperCase() + this.message.slice(1);
  }
}

/** `aside`: the answer may come from another model than the page's own, and the badge stays as it is. */
async function ask(path, { body, signal, aside = false } = {}) {
  let response;
  let answer = null;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: body ? { "Content-Type": "application/json", Accept: "application/json" } : { Accept: "application/json" },
      body: body && JSON.stringify(body),
      signal,
    });
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!response) throw new ServiceError(0, "unreachable", "no answer");
  }
  if (!response.ok || answer === null) {
    const { message, code } = answer?.error ?? {};
    throw new ServiceError(response.status, code, message ?? `the answer was ${response.status} ${response.statusText}`);
  }
  const model = response.headers.get("X-Model-Version") ?? answer.model;
  if (model && !aside) service.dispatchEvent(new CustomEvent("model", { detail: model }));
  if (answer.dataset) service.dispatchEvent(new CustomEvent("dataset", { detail: answer.dataset }));
  return answer;
}

/** `price` is {min, max}, either of them null. */
export function listProducts({ category, price, offset, limit }, signal) {
  const query = new URLSearchParams({ offset, limit });
  if (category) query.set("category", category);
  if (price.min !== null) query.set("price_min", price.min);
  if (price.max !== null) query.set("price_max", price.max);
  return ask(`/v1/products?${query}`, { signal });
}

export const getProduct = (id, signal) => ask(`/v1/products/${encodeURIComponent(id)}`, { signal });

export const listCategories = () => ask("/v1/categories");

export const health = () => ask("/healthz", { aside: true });

export const listModels = async () => (await ask("/v1/models")).data;

/** The experiment that runs, {name, arms: [{name, share, model}]}, or null. */
export async function runningExperiment() {
  try {
    const found = await ask("/v1/experiment");
    return found.running ? found : null;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/**
 * `query` is one of {product_id}, {text}, {image}, and may name a {model}; `price` as above; a product must have the
 * `attributes`. Wishes that are not set are left out.
 */
export function similar(query, { k, category, price, attributes, excludeCatalog, soldOut, dearer, photoCap }, signal) {
  const body = { ...query, k };
  if (category) body.category = category;
  const limits = Object.entries(price ?? {}).filter(([, value]) => value !== null);
  if (limits.length) body.price = Object.fromEntries(limits);
  if (Object.keys(attributes ?? {}).length) body.attributes = attributes;
  if (excludeCatalog) body.exclude_catalog = true;
  if (soldOut) body.in_stock = false;
  if (dearer) body.cheapest = false;
  if (photoCap) body.photo_cap = photoCap;
  return ask("/v1/similar", { body, signal, aside: Boolean(query.model) });
}

/** `query` is {image} or {product_id}, {text}, or both, and may have a {category} as a hint. */
export const attributes = (query, signal) => ask("/v1/attributes", { body: query, signal, aside: true });

/** `query` is {image} or {product_id}. */
export const caption = (query, signal) => ask("/v1/captions", { body: query, signal, aside: true });

/** `topic` as /v1/rank takes it; the best `top` of `products` are answered, by their photos. */
export const rank = (topic, products, top, signal) =>
  ask("/v1/rank", { body: { topic, images: products.map(({ product_id }) => ({ type: "product", product_id })), top_n: top }, signal, aside: true });
