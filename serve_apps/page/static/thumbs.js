// Thumbs up and down under a product, the reason for a thumb down, and the bar that exports judgements.

import { judgements } from "./judgements.js";

const FILE = "labelled_pairs.jsonl";
const REASONS = {
  not_similar: "Not similar",
  meaningless_duplicate: "Meaningless duplicate",
  wrong_category: "Wrong category",
  other: "Other",
};

/** `pair` is a line of the export without the judgement; `title` names the product for screen readers. */
export function thumbs(pair, title) {
  const box = document.getElementById("verdict-template").content.firstElementChild.cloneNode(true);
  const [up, down] = box.querySelectorAll(".thumb");
  const told = box.querySelector(".verdict-reason");
  const why = box.querySelector(".why");
  const chips = [...why.querySelectorAll("button")];
  const note = why.querySelector("input");
  up.setAttribute("aria-label", `Similar: ${title}`);
  down.setAttribute("aria-label", `Not similar: ${title}`);

  const judge = (label, reason, text = null) =>
    judgements.judge({ ...pair, label, reason, note: text, judged_at: new Date().toISOString() });

  function ask(open) {
    why.hidden = !open;
    down.setAttribute("aria-expanded", String(open));
    if (open) (chips.find((chip) => chip.getAttribute("aria-pressed") === "true") ?? chips[0]).focus({ preventScroll: true });
  }

  function done() {
    ask(false);
    down.focus({ preventScroll: true });
  }

  box.refresh = () => {
    const judged = judgements.of(pair);
    const against = judged?.label === "not_similar";
    up.setAttribute("aria-pressed", String(judged?.label === "similar"));
    down.setAttribute("aria-pressed", String(against));
    told.hidden = !against;
    told.textContent = judged?.note || REASONS[judged?.reason] || "Why?";
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.reason === judged?.reason));
    note.hidden = judged?.reason !== "other";
    if (document.activeElement !== note) note.value = judged?.note ?? "";
    if (!against) why.hidden = true;
  };

  up.addEventListener("click", () => {
    if (judgements.of(pair)?.label === "similar") judgements.withdraw(pair);
    else judge("similar", null);
  });
  down.addEventListener("click", () => {
    if (judgements.of(pair)?.label === "not_similar") {
      judgements.withdraw(pair);
      return;
    }
    judge("not_similar", null);
    ask(true);
  });
  told.addEventListener("click", () => ask(why.hidden));
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const { reason } = chip.dataset;
      judge("not_similar", reason, reason === "other" ? note.value.trim() || null : null);
      if (reason === "other") note.focus({ preventScroll: true });
      else done();
    });
  }
  note.addEventListener("change", () => judge("not_similar", "other", note.value.trim() || null));
  box.addEventListener("keydown", (event) => {
    if (why.hidden || !(event.key === "Escape" || (event.key === "Enter" && event.target === note && !event.isComposing))) return;
    event.preventDefault();
    event.stopPropagation();
    done();
  });
  box.addEventListener("focusout", ({ relatedTarget }) => {
    if (!box.contains(relatedTarget)) ask(false);
  });
  box.refresh();
  return box;
}

judgements.addEventListener("change", () => {
  for (const box of document.querySelectorAll(".verdict")) box.refresh();
});

/** Runs the bar, which is shown once there is a judgement. */
export function judgedBar(bar) {
  const [line, exporting, clearing, deleting, keeping] = ["line", "export", "clear", "delete", "keep"].map((name) =>
    bar.querySelector(`[data-testid="judged-${name}"]`),
  );
  const some = (count) => `${count.toLocaleString("en")} ${count === 1 ? "judgement" : "judgements"}`;

  function sure(asked) {
    for (const button of [exporting, clearing]) button.hidden = asked;
    for (const button of [deleting, keeping]) button.hidden = !asked;
    refresh(asked);
  }

  function refresh(asked = !deleting.hidden) {
    const { count, unkept } = judgements;
    bar.hidden = count === 0;
    exporting.textContent = `Export ${some(count)}`;
    line.classList.toggle("bad", unkept > 0);
    line.classList.toggle("quiet", unkept === 0 && !asked);
    line.textContent = asked
      ? `Delete ${some(count)} from this browser for good?`
      : unkept
        ? `This browser will not keep ${some(unkept)}: its storage is full or forbidden. Export before you leave the page.`
        : "Kept in this browser.";
  }

  exporting.addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([judgements.lines()], { type: "application/x-ndjson" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = FILE;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  });
  clearing.addEventListener("click", () => {
    sure(true);
    keeping.focus();
  });
  deleting.addEventListener("click", () => {
    judgements.clear();
    sure(false);
  });
  keeping.addEventListener("click", () => {
    sure(false);
    clearing.focus();
  });
  judgements.addEventListener("change", () => refresh());
  refresh();
}
