// A caption of a photo, written by a model.

import { ServiceError, caption } from "./api.js";
import { el, languageOf } from "./cards.js";
import { abilities } from "./models.js";

/**
 * Fills `section` with a text for the photo of `query` ({image} or {product_id}). The section stays hidden if no model
 * in use writes texts.
 */
export async function showCaption(section, query, { signal }) {
  section.hidden = true;
  if (!(await abilities()).writesTexts || signal.aborted) return;
  let answer;
  try {
    answer = await caption(query, signal);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServiceError) return;
    throw error;
  }
  if (signal.aborted) return;
  const [{ text }] = answer.data;
  section.replaceChildren(
    el("h2", {}, "Caption by the model"),
    el("p", { class: "status" }, `${answer.model}, from the photo. It may be wrong.`),
    el("p", { class: "caption-text", "data-testid": "caption-text", lang: languageOf(text) }, text),
  );
  section.hidden = false;
}
