// Badges of a similar product: the ring it was found in and the rules it was checked by, in words.

import { el, languageOf, pathOf } from "./cards.js";

const RULES = {
  in_stock: ({ stock }) => [`${stock.toLocaleString("en")} in stock`, "Its stock is known, and it is not sold out"],
  price: () => ["Price fits", "Its price is in the chosen range"],
  attributes: () => ["Attributes fit", "It has the chosen attributes"],
  cheapest: () => ["Cheapest listing", "Dearer listings of the same product are left out"],
  shared_photo: () => ["Same photo", "Another product of this list shows the same photo; they are different products"],
  capped: () => ["More with this photo", "More products show this photo; they are left out"],
};

/** Ring 0 is the category of `seed` and needs no words. */
function ringBadge({ ring, ...found }, seed) {
  if (ring === 0) return null;
  const [own, place] = [pathOf(seed).at(-1) ?? "its own category", pathOf(found).at(-1) ?? "none"];
  const steps = ring === 1 ? "one step" : `${ring} steps`;
  const why = `Ring ${ring}: too few products of ${own} may be shown, so the search went ${steps} further`;
  return badge(`ring-${ring}`, ["Near category: ", el("span", { lang: languageOf(place) }, place)], why);
}

const badge = (name, words, title) => el("li", { class: "badge", "data-testid": "badge", "data-badge": name, title }, ...words);

/** A list of badges; `seed` is the query product. */
export function badges(found, seed) {
  const rules = found.rules.map((name) => {
    const [words, title] = RULES[name]?.(found) ?? [name, ""];
    return badge(name, [words], title);
  });
  const soldOut = found.stock === 0 && badge("sold-out", ["Sold out"], "Its stock is known and zero");
  return el("ul", { class: "badges" }, ringBadge(found, seed), soldOut, ...rules);
}
