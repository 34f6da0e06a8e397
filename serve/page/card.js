// What is known of a model: the figures of its card, in words.

import { between, bytes, el, fixed, percent, whole } from "./dom.js";
import { hasToken, readReport, reportAddress } from "./server.js";

const MOST_LABELS = 20; // named before the rest is folded

export function showCard(place, name, model, refuse) {
  const report = model.report ? [reportLink(name, refuse)] : [];
  place.replaceChildren(
    el("h3", {}, "What was measured"),
    el("dl", { class: "facts" }, ...facts(model).map(([term, ...said]) => fact(term, said))),
    labels(model),
    shell(name, model),
    ...report,
  );
}

// The model in one line.
export function byline(model) {
  return [`${model.task} classifier`, model.precision, bytes(model.size_bytes), `${whole(model.labels.length)} labels`];
}

const fact = (term, said) => el("div", {}, el("dt", {}, term), el("dd", {}, ...said.filter((part) => part !== null)));

// [[term, what is said of it, ...]]
function facts(model) {
  return [
    ...quality(model.metrics),
    ["Precision", `${model.precision}, ${bytes(model.size_bytes)}`],
    ...scores(model),
    ["Reads", input(model)],
    ["Model id", el("code", {}, model.id)],
  ];
}

function quality(metrics) {
  if (typeof metrics.accuracy !== "number") return [["Accuracy", "not measured: the package has no card"]];
  const of = metrics.n ? ` of ${whole(metrics.n)} ${metrics.split} items are right` : " of the items are right";
  const ends = metrics.accuracy_ci95?.map((end) => 100 * end);
  const interval = ends ? el("small", {}, `95 % interval ${between(ends)}`) : null;
  const found = [["Accuracy", el("b", {}, percent(metrics.accuracy)), of, interval]];
  if (typeof metrics.accuracy_drop_points === "number") found.push(["Against the teacher", ...drop(metrics)]);
  if (metrics.verdict) found.push(["Verdict", ...verdict(metrics)]);
  return found;
}

function drop({ accuracy_drop_points: points, accuracy_drop_points_ci95: ends }) {
  const [more, less] = ["more", "fewer"].map((word) => `${fixed(Math.abs(points), 2)} points ${word} right`);
  return [points > 0 ? less : points < 0 ? more : "just as many right", ends ? el("small", {}, `95 % interval of the drop ${between(ends, 2)} points`) : null];
}

function verdict({ verdict: said, judged }) {
  const against = judged ? el("small", {}, `judged by ${judged.metric}, target ${fixed(judged.target_percent, 1)} %, at most ${fixed(judged.max_drop_points, 1)} points below`) : null;
  return [el("span", { class: said === "accepted" ? "good" : "bad" }, said), against];
}

function scores(model) {
  const found = [];
  if (typeof model.metrics.ece === "number") {
    const corrected = model.temperature === 1 ? "as the model gives them" : `corrected by a temperature of ${fixed(model.temperature, 2)}`;
    found.push(["Scores", `${fixed(100 * model.metrics.ece, 1)} points away from how often they are right`, el("small", {}, `expected calibration error; ${corrected}`)]);
  }
  if (model.abstain_below !== null) found.push(["Doubt", `answers with a score under ${percent(model.abstain_below)} are marked`]);
  return found;
}

function input({ task, preprocessing }) {
  if (task === "text") return `the ${preprocessing.truncation === "left" ? "last" : "first"} ${whole(preprocessing.max_length)} tokens of a text`;
  const [height, width] = preprocessing.size;
  return `images, brought to ${width} × ${height} pixels, ${preprocessing.color === "L" ? "grey" : "in colour"}`;
}

function labels({ labels: names, expected }) {
  const known = Object.keys(expected).length > 0;
  const items = names.map((name) => el("li", {}, name, known && name in expected ? el("span", { class: "quiet" }, ` ${percent(expected[name])}`) : null));
  const title = known ? `${whole(names.length)} labels, and how often each is given on the test items` : `${whole(names.length)} labels`;
  return el("details", { open: names.length <= MOST_LABELS }, el("summary", {}, title), el("ul", { class: "names" }, ...items));
}

function shell(name, { task }) {
  const url = new URL(`models/${encodeURIComponent(name)}/classify`, location.href).href;
  const token = hasToken() ? " -H \"Authorization: Bearer $LIMBECK_TOKEN\"" : "";
  const body = task === "text" ? "-H 'Content-Type: application/json' -d '{\"inputs\": [\"a text\"]}'" : "-H 'Content-Type: image/png' --data-binary @image.png";
  return el("details", {}, el("summary", {}, "Ask it from a shell"), el("pre", { tabindex: 0, "aria-label": "Command" }, `curl -s ${url}${token} ${body}`));
}

function reportLink(name, refuse) {
  if (!hasToken()) return el("p", {}, el("a", { href: reportAddress(name) }, "The whole report"));
  const save = async () => {
    try {
      const url = URL.createObjectURL(await readReport(name));
      el("a", { href: url, download: `${name}-report.html` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (trouble) {
      refuse(trouble);
    }
  };
  return el("p", {}, el("button", { type: "button", click: save }, "Save the whole report"));
}
