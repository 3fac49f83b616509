// The models in use and what they can do; the models to choose from, and the experiment that compares two of them.

import { ServiceError, listModels, runningExperiment } from "./api.js";
import { el } from "./cards.js";

const FRESH_MS = 60_000;
const WORDS = {
  embed_image: "embeds photos",
  embed_text: "embeds texts",
  embed_image_text: "embeds a photo with a text",
  rank_images: "ranks photos for a topic",
  extract_attributes: "extracts attributes",
  write_text: "writes captions",
  score_image: "scores photos",
};
const none = { models: [], experiment: null, trouble: null };
let known = Promise.resolve(none);
let until = 0;

/** {models, experiment, trouble}: rows of /v1/models, the running experiment or null, why there are no rows. */
export function whatCanBeAsked() {
  if (Date.now() > until) {
    until = Date.now() + FRESH_MS;
    known = Promise.all([listModels(), runningExperiment()]).then(
      ([models, experiment]) => ({ models, experiment, trouble: null }),
      (error) => {
        if (!(error instanceof ServiceError)) throw error;
        until = 0;
        return { ...none, trouble: error.sentence };
      },
    );
  }
  return known;
}

/** The next `whatCanBeAsked` asks the service again: a model was promoted. */
export const forgetModels = () => (until = 0);

/** "embeds photos, writes captions" for a row of /v1/models. */
export const inWords = ({ capabilities }) => capabilities.map((name) => WORDS[name] ?? name).join(", ");

/** What the models in use can do together. While they are not known, the page offers all but captions. */
export async function abilities() {
  const { models } = await whatCanBeAsked();
  const active = models.filter((model) => model.active);
  const can = (name) => active.some(({ capabilities }) => capabilities.includes(name));
  return {
    active,
    embedsPhotos: !active.length || can("embed_image"),
    embedsTexts: !active.length || can("embed_text"),
    extractsAttributes: !active.length || can("extract_attributes"),
    writesTexts: can("write_text"),
  };
}

/** The choice of an experiment's arms for both lists. */
export const ARMS = "*arms";

/** The first two arms with a share of the users; none if no experiment runs. */
export const armsOf = ({ experiment }) => experiment?.arms.filter(({ share }) => share > 0).slice(0, 2) ?? [];

function groups({ models, experiment }) {
  const arms = experiment?.arms.map(({ name, model, version }) => [model, version ? `${name} (${version})` : name]) ?? [];
  const found = arms.length ? [[`Experiment ${experiment.name}`, arms]] : [];
  for (const name of new Set(models.map(({ id }) => id.split("/")[0]))) {
    const versions = models.filter(({ id }) => id.split("/")[0] === name);
    const aliases = versions.flatMap(({ id, aliases }) => aliases.map((alias) => [`${name}@${alias}`, `${name}@${alias} (${id})`]));
    found.push([name, [...aliases, ...versions.map(({ id, active }) => [id, active ? `${id}, in use` : id])]]);
  }
  return found;
}

/**
 * Fills `select` with a first choice of no model, called `unset`, and all models and arms; `chosen` is among them.
 * With `arms` both arms of an experiment are one choice too.
 */
export function offer(select, unset, chosen, asked, { arms = false } = {}) {
  const offered = groups(asked);
  const [first, second] = armsOf(asked);
  if (arms && second) offered[0][1].unshift([ARMS, `${first.name} and ${second.name}, side by side`]);
  const values = offered.flatMap(([, options]) => options.map(([value]) => value));
  const options = [
    el("option", { value: "" }, unset),
    chosen && !values.includes(chosen) && el("option", { value: chosen }, chosen),
    asked.trouble && el("option", { disabled: true }, asked.trouble),
    ...offered.map(([label, rows]) => el("optgroup", { label }, ...rows.map(([value, words]) => el("option", { value }, words)))),
  ];
  select.replaceChildren(...options.filter(Boolean));
  select.value = chosen;
}
