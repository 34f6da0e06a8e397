// Start here: one model or two, one input for those that take the same, and an answer from each.

import { showAnswer, showTrouble, spoken } from "./answer.js";
import { byline, showCard } from "./card.js";
import { byId, el } from "./dom.js";
import { catchImages, imageInput, textInput } from "./inputs.js";
import { classify, hasToken, listModels, readModel, Trouble, useToken } from "./server.js";

const items = {}; // by task, what was given last
const limits = { image: {}, text: {} }; // by task, the least of the models that are shown
const inputs = {
  image: imageInput(limits.image, (blob) => give("image", blob), refuseImage),
  text: textInput((words) => give("text", words)),
};
let panels = []; // of the models that are shown
let chosen = 0; // how often models were chosen

async function begin() {
  try {
    const { default: preferred, models } = await listModels();
    offer(models.map(({ name }) => name), preferred);
    await choose();
    byId("work").hidden = false;
    byId("trouble").replaceChildren();
    byId("program").hidden = hasToken(); // a link carries no token
    if (!byId("door").hidden) byId("ask").focus(); // which was in the field that goes now
    byId("door").hidden = true;
  } catch (trouble) {
    fail(trouble);
  }
}

// A trouble that is no answer's: shown at the top, and where a token is asked for, with a field for it.
function fail(trouble) {
  if (!(trouble instanceof Trouble)) throw trouble;
  if (trouble.status !== 401) return showTrouble(byId("trouble"), trouble);
  const again = !byId("door").hidden;
  byId("door").hidden = false;
  if (again) showTrouble(byId("trouble"), new Trouble(trouble.message, "ask whoever runs the server for one", 401, trouble.requestId));
  byId("token").focus();
}

function offer(names, preferred) {
  const [first, second] = [byId("first"), byId("second")];
  const option = (name) => el("option", { value: name }, name);
  const kept = names.includes(first.value) ? first.value : preferred;
  first.replaceChildren(...names.map(option));
  first.value = kept;
  second.replaceChildren(el("option", { value: "" }, "no other"), ...names.map(option));
  byId("models").hidden = names.length < 2;
}

async function choose() {
  const names = [...new Set([byId("first").value, byId("second").value])].filter(Boolean);
  const turn = ++chosen;
  const models = await Promise.all(names.map(readModel));
  if (turn !== chosen) return; // others have been chosen meanwhile
  panels = names.map((name, at) => panel(name, models[at], names.length > 1));
  byId("panels").replaceChildren(...panels.map(({ element }) => element));
  byId("work").classList.toggle("pair", panels.length > 1);
  describe(models);
  place(models);
  panels.forEach(ask);
}

function panel(name, model, beside) {
  const answer = el("div", { class: "answer", "aria-busy": "false" }, el("p", { class: "empty" }, "The answer appears here."));
  const trouble = el("div", { role: "alert" });
  const card = el("div", { class: "card" });
  const title = `title-${name}`;
  const element = el("article", { class: "panel", "aria-labelledby": title },
    el("h2", { id: title, class: beside ? "" : "unseen" }, model.name), trouble, answer, card);
  showCard(card, name, model, (problem) => showTrouble(trouble, problem));
  return { name, model, element, answer, trouble, card, asked: 0 };
}

function describe(models) {
  const pair = models.length > 1;
  byId("title").textContent = pair ? "Two models, side by side" : models[0].name;
  document.title = `${models.map(({ name }) => name).join(" and ")} · Limbeck`;
  const facts = pair ? models.map(({ name }) => name) : byline(models[0]);
  byId("byline").replaceChildren(...facts.map((fact) => el("span", {}, fact)));
}

// An input for each kind of item that the models take. What two models both take is given once.
function place(models) {
  const tasks = [...new Set(models.map(({ task }) => task))];
  for (const task of tasks) {
    const bodies = models.filter((model) => model.task === task).map((model) => model.limits.max_body_bytes);
    limits[task].max_body_bytes = Math.min(...bodies);
  }
  inputs.image.sayLimit();
  const wanted = tasks.map((task) => inputs[task].element);
  const there = [...byId("inputs").children];
  if (wanted.length !== there.length || wanted.some((element, at) => element !== there[at])) byId("inputs").replaceChildren(...wanted);
  const most = Math.max(...models.map(({ labels }) => labels.length));
  const count = byId("top-k");
  count.max = most;
  count.value = Math.min(Number(count.value) || 3, most);
}

function give(task, item) {
  items[task] = item;
  panels.filter(({ model }) => model.task === task).forEach(ask);
}

function refuseImage(trouble) {
  delete items.image;
  const takers = panels.filter(({ model }) => model.task === "image");
  takers.forEach((one) => troubled(one, trouble));
}

async function ask(one) {
  const item = items[one.model.task];
  if (item === undefined) return;
  const turn = ++one.asked;
  const topK = Math.min(Math.max(1, Math.round(Number(byId("top-k").value)) || 1), one.model.labels.length);
  one.answer.setAttribute("aria-busy", "true");
  try {
    const result = await classify(one.name, item, topK);
    if (turn !== one.asked) return; // it has been asked again meanwhile
    if (result.answer.model.id !== one.model.id) await renew(one);
    one.trouble.replaceChildren();
    showAnswer(one.answer, result, one.model);
    say(spoken(result, one.model));
  } catch (trouble) {
    if (turn === one.asked) troubled(one, trouble);
  } finally {
    if (turn === one.asked) one.answer.setAttribute("aria-busy", "false");
  }
}

// Another model answers to the name by now: what is known of the old one is not true of it.
async function renew(one) {
  one.model = await readModel(one.name);
  showCard(one.card, one.name, one.model, (problem) => showTrouble(one.trouble, problem));
  describe(panels.map(({ model }) => model));
}

function troubled(one, trouble) {
  if (!(trouble instanceof Trouble)) throw trouble;
  if (trouble.status === 401) return fail(trouble);
  one.answer.replaceChildren();
  showTrouble(one.trouble, trouble);
}

function say(words) {
  const status = byId("status");
  status.textContent = panels.length > 1 && status.textContent ? `${status.textContent}. ${words}` : words;
  clearTimeout(say.later);
  say.later = setTimeout(() => { status.textContent = ""; }, 5_000);
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value.trim());
  byId("token").value = "";
  begin();
});
for (const id of ["first", "second"]) byId(id).addEventListener("change", () => choose().catch(fail));
byId("top-k").addEventListener("change", () => panels.forEach(ask));
catchImages((files) => panels.some(({ model }) => model.task === "image") && inputs.image.take(files));
begin();
