// Judgements of pairs of products: kept in this browser, exported as labelled pairs.

const PREFIX = "shoplens/judgement/";

/** The key of a pair is the same for every model, and leaves out the digest, so that a new import of the shop keeps it. */
const keyOf = ({ dataset, seed_product_id, product_id }) => PREFIX + JSON.stringify([dataset.split("@")[0], seed_product_id, product_id]);

/**
 * A judgement is a line of the export: the pair, its `label` ("similar", "not_similar"), `reason` and `note`, and its
 * place in the list at that time. Event "change" follows each change, also one in another tab.
 */
class Judgements extends EventTarget {
  #all = new Map();
  #unkept = new Set();

  constructor() {
    super();
    try {
      for (const key of Object.keys(localStorage)) this.#take(key, localStorage.getItem(key));
    } catch {
      console.info("This browser keeps nothing for this page.");
    }
    window.addEventListener("storage", ({ key, newValue }) => {
      if (key === null) this.#all.clear();
      else this.#take(key, newValue);
      this.#changed();
    });
  }

  #take(key, text) {
    if (!key.startsWith(PREFIX)) return;
    this.#all.delete(key);
    try {
      const judgement = JSON.parse(text);
      if (judgement && keyOf(judgement) === key) this.#all.set(key, judgement);
    } catch {
      console.info(`The entry ${key} is not a judgement.`);
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  get count() {
    return this.#all.size;
  }

  /** Number of judgements that are lost with this tab, because the browser's storage is full or forbidden. */
  get unkept() {
    return this.#unkept.size;
  }

  of(pair) {
    return this.#all.get(keyOf(pair)) ?? null;
  }

  judge(judgement) {
    const key = keyOf(judgement);
    this.#all.set(key, judgement);
    try {
      localStorage.setItem(key, JSON.stringify(judgement));
      this.#unkept.delete(key);
    } catch {
      this.#unkept.add(key);
    }
    this.#changed();
  }

  withdraw(pair) {
    this.#remove(keyOf(pair));
    this.#changed();
  }

  clear() {
    for (const key of [...this.#all.keys()]) this.#remove(key);
    this.#changed();
  }

  #remove(key) {
    this.#all.delete(key);
    this.#unkept.delete(key);
    try {
      localStorage.removeItem(key);
    } catch {
      // Storage is forbidden, so nothing was kept.
    }
  }

  /** JSON lines, the earliest judged first. */
  lines() {
    const inOrder = [...this.#all.values()].sort((a, b) => Date.parse(a.judged_at) - Date.parse(b.judged_at));
    return inOrder.map((judgement) => `${JSON.stringify(judgement)}\n`).join("");
  }
}

export const judgements = new Judgements();
