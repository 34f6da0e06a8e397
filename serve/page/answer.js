// One answer: what the model says, how sure it is, and where the time went.

import { el, milliseconds, percent } from "./dom.js";

const PHASES = {
  queue: "waiting", preprocess: "preparing the input", compute: "the model", overhead: "the rest of the server",
  network: "network and browser",
};

export function showAnswer(place, { answer, roundTrip, split }, model) {
  const prediction = answer.predictions[0];
  place.replaceChildren(
    el("p", { class: "verdict" }, el("span", { class: "label" }, prediction.label), " ", el("span", { class: "score" }, percent(prediction.score))),
    ...notes(prediction, model),
    bars(prediction, model),
    timing(roundTrip, split),
  );
}

// What a screen reader hears of an answer.
export function spoken({ answer, roundTrip }, model) {
  const { label, score, abstained } = answer.predictions[0];
  const doubt = abstained ? ", below the promised precision" : "";
  return `${model.name}: ${label}, ${percent(score)}${doubt}, in ${milliseconds(roundTrip)}`;
}

export function showTrouble(place, trouble) {
  const id = trouble.requestId ? el("p", { class: "quiet" }, "Request ", el("code", {}, trouble.requestId)) : null
  const hint = trouble.hint ? el("p", { class: "hint" }, trouble.hint) : null;
  place.replaceChildren(el("div", { class: "trouble" }, el("p", { class: "message" }, trouble.message), hint, id));
}

function notes(prediction, model) {
  const threshold = percent(model.abstain_below ?? 0);
  return [
    prediction.abstained
      ? el("p", { class: "note doubt" }, el("b", {}, "Below the promised precision. "), `The best score is under ${threshold}: better ask a person.`)
      : null,
    prediction.truncated
      ? el("p", { class: "note" }, `The text is longer than the ${model.preprocessing.max_length} tokens that the model reads; the rest was cut off.`)
      : null,
  ].filter(Boolean);
}

function bars(prediction, model) {
  const rest = model.labels.length - prediction.top_k.length;
  const left = Math.max(0, 1 - prediction.top_k.reduce((sum, { score }) => sum + score, 0));
  const rows = prediction.top_k.map(({ label, score }) => row(label, score, ""));
  if (rest > 0) rows.push(row(rest === 1 ? "the other label" : `the other ${rest} labels`, left, "rest"));
  return el("ol", { class: "bars", "aria-label": "Labels by score" }, ...rows);
}

function row(label, score, kind) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${100 * score}%`;
  return el("li", { class: kind },
    el("span", { class: "name" }, label),
    el("span", { class: "bar", "aria-hidden": "true" }, fill),
    el("span", { class: "score" }, percent(score)),
  );
}

function timing(roundTrip, split) {
  const inside = split.reduce((sum, [, ms]) => sum + ms, 0);
  const parts = [...split, ["network", Math.max(0, roundTrip - inside)]];
  const total = parts.reduce((sum, [, ms]) => sum + ms, 0) || 1;
  const pieces = parts.map(([phase, ms]) => {
    const piece = el("span", { class: `piece ${phase}` });
    piece.style.width = `${(100 * ms) / total}%`;
    return piece;
  });
  const legend = parts.map(([phase, ms]) => el("div", {},
    el("dt", {}, el("span", { class: `swatch ${phase}`, "aria-hidden": "true" }), PHASES[phase] ?? phase),
    el("dd", {}, milliseconds(ms)),
  ));
  return el("div", { class: "timing" },
    el("h3", {}, `${milliseconds(roundTrip)} from here and back`),
    el("div", { class: "split", "aria-hidden": "true" }, ...pieces),
    el("dl", {}, ...legend),
  );
}
