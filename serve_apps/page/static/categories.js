// The category tree as a nested list of links, folded if it is long.

import { el, languageOf } from "./cards.js";

const UNFOLDED = 36;

export class Categories {
  #rows = new Map();
  #items = new Map();

  /** `hashFor(categoryId)` gives the address that filters by it ("" = all). */
  constructor(container, hashFor) {
    this.container = container;
    this.hashFor = hashFor;
  }

  show(rows) {
    for (const row of rows) {
      const id = row.id ?? row.category_id;
      const path = row.path ?? [];
      this.#rows.set(id, { id, parent: row.parent_id ?? null, name: row.name ?? path.at(-1) ?? id, count: row.n_products, children: [] });
    }
    const roots = [];
    for (const row of this.#rows.values()) (this.#rows.get(row.parent)?.children ?? roots).push(row);
    const unfolded = this.#rows.size <= UNFOLDED;
    const list = (nodes) => el("ul", {}, ...nodes.map((node) => this.#item(node, unfolded, list)));
    const all = list(roots);
    all.prepend(el("li", {}, el("div", { class: "category" }, this.#link("", "All products", null))));
    this.container.append(all);
  }

  #link(id, name, count) {
    const link = el(
      "a",
      { "data-category": id },
      el("span", { class: "category-name", lang: languageOf(name) }, name),
      typeof count === "number" ? el("span", { class: "count" }, count.toLocaleString("en")) : null,
    );
    this.#items.set(id, { link });
    return link;
  }

  #item(node, unfolded, list) {
    const link = this.#link(node.id, node.name, node.count);
    const item = el("li", {});
    const row = el("div", { class: "category" }, link);
    item.append(row);
    if (node.children.length) {
      const children = list(node.children);
      const fold = el("button", { type: "button", class: "fold", "aria-label": `Categories within ${node.name}` });
      const set = (open) => {
        fold.setAttribute("aria-expanded", open);
        children.hidden = !open;
      };
      fold.addEventListener("click", () => set(children.hidden));
      set(unfolded);
      row.prepend(fold);
      item.append(children);
      this.#items.get(node.id).open = () => set(true);
    }
    return item;
  }

  /** Marks the chosen category, unfolds the way to it and renews every address. */
  choose(chosen) {
    for (const [id, { link }] of this.#items) {
      link.href = this.hashFor(id);
      if (id === chosen) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    for (const { id } of this.ancestry(chosen)) this.#items.get(id).open?.();
  }

  /** [id, "root › … › name"] of every category, in the order of the tree. */
  paths() {
    return [...this.#rows.keys()].map((id) => [id, this.ancestry(id).map((row) => row.name).join(" › ")]);
  }

  /** Root to leaf; empty for an id that is not in the tree. */
  ancestry(id) {
    const way = [];
    for (let row = this.#rows.get(id); row; row = this.#rows.get(row.parent)) way.unshift(row);
    return way;
  }
}
