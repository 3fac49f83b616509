// Attributes of a product by the model: a chip for each, grey if the model is not sure.

import { ServiceError, attributes } from "./api.js";
import { el, languageOf } from "./cards.js";
import { abilities } from "./models.js";

const percent = new Intl.NumberFormat("en", { style: "percent" });
const LIKELY = 0.5;
const SOURCES = { image: "the photo", text: "the text", fused: "photo and title" };

/** One attribute; `listed` are the values that the seller gave for it, if any. */
function chip({ key, value, probability, answered, alternatives }, listed) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.inlineSize = `${probability * 100}%`;
  const guess = answered ? alternatives : [{ value, probability }, ...alternatives];
  const others = guess.map((other) => `${other.value} ${percent.format(other.probability)}`).join(", ");
  const differs = answered && listed && !listed.includes(value);
  return el(
    "li",
    {
      class: answered ? "attribute" : "attribute unsure",
      title: others && `${answered ? "Or" : "Perhaps"} ${others}`,
      "data-testid": "attribute",
      "data-key": key,
      "data-answered": String(answered),
    },
    el("span", { class: "attribute-key", lang: languageOf(key) }, key),
    el("span", { class: "attribute-value", lang: answered ? languageOf(value) : "en" }, answered ? value : "not sure"),
    answered && el("span", { class: "attribute-probability" }, bar, percent.format(probability)),
    differs && el("span", { class: "attribute-listed" }, "listed: ", el("span", { lang: languageOf(listed[0]) }, listed.join(", "))),
  );
}

function head({ model, modality, category }) {
  const guessed = category?.source === "head" && category.probability >= LIKELY && `, looks like ${category.path.join(" › ")} (${percent.format(category.probability)})`;
  return el("p", { class: "status" }, `${model}, from ${SOURCES[modality]}`, guessed && el("span", { lang: languageOf(guessed) }, guessed));
}

/**
 * Fills `section` with the attributes of `query` ({image}, {product_id}, {text}, and a {category} as a hint). The
 * section stays hidden if no model in use extracts any. `listed` has the seller's values by key.
 */
export async function showAttributes(section, query, { listed = {}, signal }) {
  section.hidden = true;
  if (!(await abilities()).extractsAttributes || signal.aborted) return;
  let answer;
  try {
    answer = await attributes(query, signal);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServiceError) return;
    throw error;
  }
  if (signal.aborted || answer.data.length === 0) return;
  const sure = answer.data.filter(({ answered }) => answered);
  const unsure = answer.data.filter(({ answered }) => !answered);
  sure.sort((a, b) => b.probability - a.probability);
  section.replaceChildren(
    el("h2", {}, "Attributes by the model"),
    head(answer),
    el("ul", { class: "chips" }, ...[...sure, ...unsure].map((entry) => chip(entry, listed[entry.key]))),
  );
  section.hidden = false;
}
