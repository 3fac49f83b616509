// The page has three views: the list (browse and search), a shelf for a topic, and a product. The address after "#" names the view.

import { ServiceError, health, listCategories, listProducts, service, similar } from "./api.js";
import { showAttributes } from "./attributes.js";
import { showCaption } from "./captions.js";
import { card, el, languageOf, skeletons } from "./cards.js";
import { Categories } from "./categories.js";
import { abilities, forgetModels, inWords } from "./models.js";
import { neighboursAsk } from "./neighbours.js";
import { PhotoError, keepPhoto, keptPhoto, readPhoto } from "./photo.js";
import { ProductView } from "./product.js";
import { number } from "./rules.js";
import { Shelf, shelfAsk } from "./shelf.js";
import { judgedBar } from "./thumbs.js";

const PAGE = 60;
const MOST_RESULTS = 1000;
const PAGES_PER_STEP = 10;
const SKELETONS_AFTER_MS = 150;
const HEALTH_EVERY_MS = 30_000;

const at = (id) => document.getElementById(id);
const grid = at("grid");
const status = at("status");
const more = at("more");
const listView = at("list-view");
const detailView = at("detail-view");
const shelfView = at("shelf-view");
const numbers = new Intl.NumberFormat("en");

// ---------------------------------------------------------------- addresses

function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const fields = new URLSearchParams(query);
  const product = path.match(/^\/product\/(.+)$/);
  if (product) {
    try {
      return { view: "product", id: decodeURIComponent(product[1]), ...neighboursAsk(fields) };
    } catch {
      return { view: "list", ...everything };
    }
  }
  if (path === "/shelf") return { view: "shelf", ...shelfAsk(fields) };
  return {
    view: "list",
    text: fields.get("q") ?? "",
    photo: fields.get("photo") ?? "",
    category: fields.get("category") ?? "",
    price: { min: number(fields.get("min")), max: number(fields.get("max")) },
  };
}

const everything = { text: "", photo: "", category: "", price: { min: null, max: null } };

function listHash({ text, photo, category, price }) {
  const fields = new URLSearchParams();
  if (text) fields.set("q", text);
  if (photo) fields.set("photo", photo);
  if (category) fields.set("category", category);
  if (price.min !== null) fields.set("min", price.min);
  if (price.max !== null) fields.set("max", price.max);
  const query = fields.toString();
  return query ? `#/?${query}` : "#/";
}

/** Shows one view in place of the others. */
function turnTo(view) {
  if (!listView.hidden) list.scroll = window.scrollY;
  for (const each of [listView, detailView, shelfView]) each.hidden = each !== view;
}

function go(hash) {
  if (hash === location.hash || (hash === "#/" && location.hash === "")) show();
  else location.hash = hash;
}

// ---------------------------------------------------------------- the list

/** State of the grid: the request that it answers, and how much of the answer is shown. */
const list = { ask: { ...everything }, hash: null, shown: 0, read: 0, total: 0, filteredHere: false, ended: true, busy: false, failed: null, scroll: 0, model: "" };
let listRequest = new AbortController();
let queryRequest = new AbortController();

const categories = new Categories(at("categories"), (category) => listHash({ ...list.ask, category }));
const shelf = new Shelf(shelfView, go);
const isSearch = () => Boolean(list.ask.text || list.ask.photo);
const fits = ({ price }) => {
  const { min, max } = list.ask.price;
  return (min === null && max === null) || (typeof price === "number" && price >= (min ?? 0) && price <= (max ?? Infinity));
};

function showList(ask) {
  const hash = listHash(ask);
  const known = hash === list.hash && !list.failed;
  turnTo(listView);
  if (known) {
    window.scrollTo(0, list.scroll);
    title();
    return;
  }
  Object.assign(list, { ask, hash, shown: 0, read: 0, total: 0, filteredHere: false, ended: false, failed: null });
  fillControls();
  title();
  window.scrollTo(0, 0);
  showQueryAttributes(ask);
  loadMore();
}

/** The model's attributes of the query, and its caption of a query photo. */
function showQueryAttributes({ text, photo: token, category }) {
  queryRequest.abort();
  queryRequest = new AbortController();
  const image = token && keptPhoto(token);
  at("attributes").hidden = at("caption").hidden = true;
  if (!image && !text) return;
  if (image) showCaption(at("caption"), { image }, { signal: queryRequest.signal });
  showAttributes(at("attributes"), { ...(image ? { image } : { text }), ...(category && { category }) }, { signal: queryRequest.signal });
}

function fillControls() {
  const { text, photo: token, category, price } = list.ask;
  at("search-input").value = text;
  at("price-min").value = price.min ?? "";
  at("price-max").value = price.max ?? "";
  at("price-hint").hidden = true;
  categories.choose(category);
  const picture = token && keptPhoto(token);
  at("query-photo").hidden = !token;
  if (picture) at("query-photo-image").src = picture;
  else at("query-photo-image").removeAttribute("src");
  const set = (category ? 1 : 0) + (price.min !== null || price.max !== null ? 1 : 0);
  at("filters-label").textContent = set ? `Filters (${set})` : "Filters";
}

function title() {
  const { text, photo: token, category } = list.ask;
  const place = categories.ancestry(category).map((row) => row.name);
  const name = token ? "Products like your photo" : text ? `“${text}”` : place.at(-1) ?? (category || "All products");
  at("list-title").textContent = name;
  at("list-title").lang = languageOf(name);
  document.title = `${name} · shoplens`;
}

function nextPage(signal) {
  const { text, photo: token, category, price } = list.ask;
  if (!isSearch()) return listProducts({ category, price, offset: list.read, limit: PAGE }, signal);
  const k = Math.min(MOST_RESULTS, list.read + PAGE);
  if (!token) return similar({ text }, { k, category, price }, signal);
  const image = keptPhoto(token);
  if (!image) throw new PhotoError("That photo was searched in another tab. Drop it here again to search by it.");
  return similar({ image }, { k, category, price }, signal);
}

/** Appends the next page of the shop, or the next nearest products of a search. */
async function loadMore() {
  listRequest.abort();
  const request = (listRequest = new AbortController());
  const first = list.read === 0;
  list.busy = true;
  list.failed = null;
  grid.setAttribute("aria-busy", "true");
  more.hidden = true;
  say("Loading…", { quiet: !first });
  const waiting = first && setTimeout(() => grid.replaceChildren(...skeletons(12)), grid.firstChild ? SKELETONS_AFTER_MS : 0);
  const cards = [];
  try {
    for (let pages = 0; cards.length === 0 || (pages < PAGES_PER_STEP && cards.length < PAGE / 2 && !list.ended); pages++) {
      const answer = await nextPage(request.signal);
      if (request.signal.aborted) return;
      const fresh = isSearch() ? answer.data.slice(list.read) : answer.data;
      const kept = fresh.filter(fits);
      list.filteredHere ||= kept.length < fresh.length;
      list.total = answer.total ?? 0;
      list.model = answer.model ?? "";
      list.read += fresh.length;
      list.ended = isSearch() ? answer.data.length < Math.min(MOST_RESULTS, list.read - fresh.length + PAGE) || list.read >= MOST_RESULTS : fresh.length === 0 || list.read >= list.total;
      cards.push(...kept.map((product) => card(product)));
      const currency = kept.find((product) => product.currency)?.currency;
      if (currency) at("currency").textContent = `in ${currency}`;
      if (list.ended || pages + 1 >= PAGES_PER_STEP) break;
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    clearTimeout(waiting);
    if (first) grid.replaceChildren();
    fail(error);
    return;
  } finally {
    if (request === listRequest) {
      list.busy = false;
      grid.setAttribute("aria-busy", "false");
    }
  }
  clearTimeout(waiting);
  if (first) grid.replaceChildren(...cards);
  else grid.append(...cards);
  list.shown += cards.length;
  more.hidden = list.ended;
  more.textContent = "Show more";
  report();
  if (nearEnd && !isSearch()) loadMoreIfIdle();
}

function report() {
  const { text, category, price } = list.ask;
  const place = categories.ancestry(category).map((row) => row.name).join(" › ");
  const within = (isSearch() && place ? ` in ${place}` : "") + (price.min !== null || price.max !== null ? " at this price" : "");
  const count = numbers.format(list.shown);
  const products = list.shown === 1 ? "product" : "products";
  if (list.shown === 0) {
    if (!list.ended) return say("No product yet. The rest of the shop is not searched yet.");
    const filtered = category || price.min !== null || price.max !== null;
    say(filtered ? `No product${isSearch() ? ` for this ${text ? "text" : "photo"}` : ""}${within}.` : "This shop has no products yet.");
    if (filtered) offer("Clear the filters", () => go(listHash({ ...list.ask, category: "", price: everything.price })));
    return undefined;
  }
  if (isSearch()) return say(`${count} ${products}${within}, nearest first`);
  if (list.ended) return say(`${count} ${products}${within}`);
  if (list.filteredHere) return say(`${count} ${products}${within} so far`);
  return say(`${count} of ${numbers.format(list.total)} products${within}`);
}

/** Sets the line about the list; `quiet` keeps the old line for the next page of the same list. */
function say(sentence, { quiet = false, bad = false } = {}) {
  if (quiet) return;
  status.textContent = sentence;
  status.classList.toggle("bad", bad);
  at("status-actions").hidden = true;
}

function offer(label, action) {
  const button = el("button", { type: "button" }, label);
  button.addEventListener("click", action);
  at("status-actions").replaceChildren(button);
  at("status-actions").hidden = false;
}

function fail(error) {
  if (!(error instanceof ServiceError || error instanceof PhotoError)) throw error;
  list.failed = error;
  list.ended = true;
  say(error.sentence ?? error.message, { bad: true });
  if (error.passing) offer("Try again", loadMore);
  else if (isSearch()) offer("Show all products", () => go("#/"));
}

let nearEnd = false;
const loadMoreIfIdle = () => !list.busy && !list.ended && !listView.hidden && loadMore();
more.addEventListener("click", loadMore);
new IntersectionObserver(
  ([entry]) => {
    nearEnd = entry.isIntersecting;
    if (nearEnd && !isSearch()) loadMoreIfIdle();
  },
  { rootMargin: "700px" },
).observe(more);

// ---------------------------------------------------------------- one product

const productView = new ProductView(detailView, {
  back: () => [last, last.startsWith("#/shelf") ? "Back to the shelf" : isSearch() ? "Back to the results" : "All products"],
  place: (category) => categories.ancestry(category).map(({ id, name }) => el("a", { href: listHash({ ...everything, category: id }), lang: languageOf(name) }, name)),
});

// ---------------------------------------------------------------- input

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("search-input").value.trim();
  go(listHash({ ...list.ask, text, photo: text ? "" : list.ask.photo }));
});

at("search-input").addEventListener("search", () => {
  if (at("search-input").value === "" && list.ask.text) go(listHash({ ...list.ask, text: "" }));
});

function choosePrice(event) {
  event.preventDefault();
  const price = { min: number(at("price-min").value), max: number(at("price-max").value) };
  const upsideDown = price.min !== null && price.max !== null && price.min > price.max;
  at("price-hint").hidden = !upsideDown;
  const hash = listHash({ ...list.ask, price });
  if (!upsideDown && hash !== list.hash) go(hash);
}
at("price").addEventListener("submit", choosePrice);
at("price").addEventListener("change", choosePrice);

async function searchByPhoto(file) {
  if (!file || at("photo-button").hidden) return;
  say("Reading the photo…");
  try {
    const token = keepPhoto(await readPhoto(file));
    go(listHash({ ...list.ask, text: "", photo: token }));
  } catch (error) {
    if (!(error instanceof PhotoError)) throw error;
    go(list.hash ?? "#/");
    say(error.message, { bad: true });
  }
}

at("photo-input").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  searchByPhoto(file);
});
at("query-photo-remove").addEventListener("click", () => {
  go(listHash({ ...list.ask, photo: "" }));
  at("search-input").focus();
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (!file) return;
  event.preventDefault();
  searchByPhoto(file);
});

const drop = at("drop");
const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => {
  if (carriesFile(event) && !at("photo-button").hidden) drop.hidden = false;
});
document.addEventListener("dragover", (event) => {
  if (carriesFile(event)) event.preventDefault();
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.hidden = true;
});
document.addEventListener("drop", (event) => {
  drop.hidden = true;
  if (!carriesFile(event)) return;
  event.preventDefault();
  searchByPhoto(event.dataTransfer.files[0]);
});

const panel = (open) => {
  at("filters-panel").classList.toggle("open", open);
  at("filters-toggle").setAttribute("aria-expanded", open);
};
at("filters-toggle").addEventListener("click", () => panel(at("filters-toggle").getAttribute("aria-expanded") !== "true"));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) {
    if (!drop.hidden) drop.hidden = true;
    else if (!detailView.hidden) go(last);
    else panel(false);
  } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.target.closest("input, textarea")) {
    event.preventDefault();
    at("search-input").focus();
  }
});

at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  [grid, detailView, shelfView].find((view) => view.offsetParent)?.querySelector("a, button, input")?.focus();
});

// ---------------------------------------------------------------- models and shop

/** Version of the model that answered last: the model of this page. */
let answering = "";

function showModel(version) {
  answering = version;
  at("model").textContent = version;
  at("model").classList.add("serving");
}
service.addEventListener("model", ({ detail }) => showModel(detail));
service.addEventListener("dataset", ({ detail }) => {
  const [name] = detail.split("@");
  at("shop-name").textContent = name;
  at("dataset").textContent = `Dataset ${detail}`;
});

/** Shows the controls that the models in use can serve, and lists these models. */
async function showAbilities() {
  const { active, embedsPhotos, embedsTexts } = await abilities();
  at("photo-button").hidden = !embedsPhotos;
  at("search-input").disabled = !embedsTexts;
  at("search").hidden = !embedsPhotos && !embedsTexts;
  at("models").replaceChildren(...active.map((model) => el("li", {}, `${model.id}: ${inWords(model)}`)));
}

let serving = "";

/** Looks at the service: takes up newly promoted models, and loads a list that failed while there was none. */
async function checkHealth() {
  if (document.hidden) return;
  try {
    const { model, models, ranker } = await health();
    const version = models[answering.split("/")[0]] ?? model;
    if (version) showModel(version);
    at("to-shelf").hidden = !ranker;
    if (JSON.stringify(models) !== serving) forgetModels();
    serving = JSON.stringify(models);
    await showAbilities();
    if (list.failed?.passing && !list.busy && !listView.hidden) loadMore();
  } catch (error) {
    at("model").classList.remove("serving");
    at("model").textContent = error.code === "no_champion" ? "no model yet" : error.status === 0 ? "offline" : "not ready";
  }
}
setInterval(checkHealth, HEALTH_EVERY_MS);
document.addEventListener("visibilitychange", checkHealth);

async function loadCategories() {
  try {
    categories.show((await listCategories()).data);
    shelf.offer(categories.paths());
    categories.choose(list.ask.category);
    title();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    setTimeout(loadCategories, HEALTH_EVERY_MS / 3);
  }
}

/** Address of the list or shelf that a product was opened from. */
let last = "#/";

function show() {
  const { view, ...ask } = parse(location.hash);
  panel(false);
  if (view === "product") {
    turnTo(detailView);
    productView.show(ask);
    return;
  }
  last = location.hash || "#/";
  if (view === "list") {
    showList(ask);
    return;
  }
  turnTo(shelfView);
  shelf.show(ask);
}

history.scrollRestoration = "manual";
window.addEventListener("hashchange", show);
window.addEventListener("scroll", () => !listView.hidden && (list.scroll = window.scrollY), { passive: true });
judgedBar(at("judged"));
loadCategories();
checkHealth();
show();
