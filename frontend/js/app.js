/** Wires the parts of the page together; what they do stands in their own files. */

import { readInfo } from "./net/api.js";
import { Chat } from "./state/chat.js";
import { Composer } from "./view/composer.js";
import { runningAnswer } from "./state/conversation.js";
import { ConversationList } from "./view/conversation_list.js";
import { Drawer } from "./view/drawer.js";
import { renderMarkdown } from "./markdown/render.js";
import { ScrollKeeper } from "./view/scroll_keeper.js";
import { language, strings, translate } from "./strings/strings.js";
import { Transcript } from "./view/transcript.js";
import { WakeObserver } from "./net/wake_observer.js";

const RETRY_MS = 4000;

const find = (selector) => document.querySelector(selector);

document.documentElement.lang = language;
translate(document);

const chat = new Chat({
  stateChanged: scheduleRender,
  listChanged: () => list.refresh(),
  answerEnded: () => (find("#announcer").textContent = strings.answerReady),
  lineLost: () => (find("#status").textContent = strings.reconnecting),
  lineHeld: () => (find("#status").textContent = ""),
  openFailed(error) {
    if (error.status === 404) goTo(null);
    find("#status").textContent = error.status === 404 ? strings.gone : error.message;
    if (error.passing) setTimeout(() => chat.refresh(), RETRY_MS);
  },
  changeFailed: (error) => (find("#status").textContent = error.message),
});

const list = new ConversationList(find("#conversations"), find("#more-conversations"), {
  titleSeen: (id, title) => chat.retitle(id, title),
  conversationDeleted(id) {
    if (id === chat.state.id) goTo(null);
  },
  changeFailed: (error) => (find("#status").textContent = error.message),
});

const transcript = new Transcript(find("#messages"), {
  regenerateWanted: (key) => follow(chat.regenerate(key, composer.model)),
  editWanted: (key, text) => follow(chat.edit(key, text, composer.model)),
  branchWanted: showBranch,
  longestQuestion: () => composer.most,
});

const scroll = new ScrollKeeper(find("#scroller"), find("#messages"), find("#jump"), {
  topReached: () => chat.loadEarlier(),
});

const composer = new Composer(find("#composer"), {
  questionAsked: (question, model) => follow(chat.ask(question, model)),
  stopWanted: () => chat.stop(),
  lastWanted: () => editLast(),
});

const drawer = new Drawer(find("#sidebar"), find("#open-list"), find("#backdrop"));

new WakeObserver({
  networkGone: () => chat.loseNetwork(),
  pageWoke() {
    chat.reopen();
    if (document.hidden) return; // it is told again when it is seen
    chat.refresh();
    list.refresh();
  },
});

// A reader who asks wants to see the answer.
function follow(asking) {
  find("#announcer").textContent = "";
  scroll.follow();
  composer.focus();
  return asking;
}

function editLast() {
  const last = chat.state.messages.findLast((message) => message.role === "user");
  if (last) transcript.view(last.key).edit();
}

// The stepper stays under the pointer, and keeps the focus, though it is another message's now.
async function showBranch(id, way, stepper) {
  const { top } = stepper.element.getBoundingClientRect();
  await chat.choose(id);
  render();
  const message = chat.state.messages.find((shown) => shown.id === id);
  if (!message) return;
  const chosen = transcript.view(message.key).stepper;
  scroll.holdAt(chosen.element, top);
  chosen.focus(way);
}

let frame = 0;

function scheduleRender() {
  frame ||= requestAnimationFrame(render);
}

let first = null;

function render() {
  frame = 0;
  const { state } = chat;
  const grewAbove = first && state.messages[0]?.key !== first && state.messages.some(({ key }) => key === first);
  first = state.messages[0]?.key ?? null;
  const running = Boolean(runningAnswer(state));
  const show = () => transcript.render(state.messages, running);
  if (grewAbove) scroll.holdWhile(show);
  else show();
  find("#welcome").hidden = state.messages.length > 0 || (location.hash.length > 1 && !state.id);
  if (find("#title").textContent !== state.title) find("#title").textContent = state.title;
  composer.setRunning(running);
  keepAddress(state.id);
}

// A conversation made by its first question gets its address without a step in the browser's history.
function keepAddress(id) {
  if (!id || location.hash === `#${id}`) return;
  if (location.hash.length <= 1) history.replaceState(null, "", `#${id}`);
  list.setCurrent(id);
}

function goTo(id) {
  if (location.hash.slice(1) !== (id ?? "")) history.pushState(null, "", id ? `#${id}` : location.pathname);
  followAddress();
}

function followAddress() {
  const id = location.hash.slice(1) || null;
  list.setCurrent(id);
  drawer.close();
  scroll.follow();
  if (id) chat.open(id);
  else chat.close();
  composer.focus();
}

for (const words of strings.suggestions) {
  const button = find("#suggestion").content.firstElementChild.cloneNode(true);
  button.querySelector("span").textContent = words;
  button.addEventListener("click", () => follow(chat.ask(words, composer.model)));
  find("#suggestions").append(button);
}

find("#new-chat").addEventListener("click", () => goTo(null));
find("#new-chat-top").addEventListener("click", () => goTo(null));
window.addEventListener("hashchange", followAddress);

followAddress();
list.refresh();
readInfo().then(
  (info) => {
    composer.configure(info);
    find("#demo").hidden = !info.demo;
  },
  (error) => (find("#status").textContent = error.message),
);

// The first rendering compiles what renders: some 30 ms, for which no answer's first words shall wait.
(window.requestIdleCallback ?? setTimeout)(() => renderMarkdown("- **words** and `code`"));
