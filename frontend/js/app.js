/** Connect the parts of the page; each part is in its own file. */

import { renderMarkdown } from "./markdown/render.js";
import { isReady, readInfo } from "./net/api.js";
import { acceptsCookies } from "./net/browser_storage.js";
import { SharedEvents } from "./net/shared_events.js";
import { WakeObserver } from "./net/wake_observer.js";
import { Chat } from "./state/chat.js";
import { questionOf, runningAnswer } from "./state/conversation.js";
import { isOutdated, Remedy, requestFailure } from "./state/failure.js";
import { UnsentQuestions } from "./state/unsent_questions.js";
import {
  describeEnding, describeFailure, language, strings, translate,
} from "./strings/strings.js";
import { Composer } from "./view/composer.js";
import { ConversationList } from "./view/conversation_list.js";
import { Drawer } from "./view/drawer.js";
import { ScrollKeeper } from "./view/scroll_keeper.js";
import { Transcript } from "./view/transcript.js";
import { describeWait } from "./view/wait_status.js";

const RETRY_DELAY_MS = 4000;
const CLOSE_DELAY_MS = 500; // within which a server that is not ready closes a connection
const SIGNED_OUT = "signed_out"; // an event of another tab, not of the server

const find = (selector) => document.querySelector(selector);

class App {
  #unsent = new UnsentQuestions();

  #chat = new Chat(this.#unsent, {
    onStateChange: () => this.#renderSoon(),
    onListChange: () => this.#list.refreshSoon(),
    onWaitBegin: (wait) => announce(describeWait(wait)),
    onAnswerEnd: (answer) => this.#onAnswerEnd(answer),
    onConversationBegin: () => this.#events.resume(), // it may have begun the session
    onConnected: () => this.#onConnected(),
    onDisconnected: (error) => this.#onDisconnected(error),
    onOpenFailed: (error) => this.#onOpenFailed(error),
    onChangeFailed: showError,
  });

  #list = new ConversationList(
    find("#conversations"), find("#more-conversations"), find("#sign-out"),
    {
      onTitle: (id, title) => this.#chat.retitle(id, title),
      onDelete: (id) => id === this.#chat.state.id && this.#goTo(null),
      onDeleted: (id) => this.#unsent.clear(id),
      onSignedOut: () => this.#onSignedOut(),
      onChangeFailed: showError,
    },
  );

  #transcript = new Transcript(find("#messages"), {
    onRegenerate: (key) => this.#followAnswer(this.#chat.regenerate(key, this.#composer.model)),
    onEdit: (key, text) => this.#followAnswer(this.#chat.edit(key, text, this.#composer.model)),
    onDiscard: (key) => this.#chat.discard(key),
    onRemedy: (remedy, key) => this.#applyRemedy(remedy, key),
    onSelectVersion: (id, direction, switcher) => this.#selectVersion(id, direction, switcher),
    onCopyFailed: () => showStatus(strings.copyFailed),
    maxQuestionLength: () => this.#composer.maxLength,
    isFollowing: () => this.#scroll.isFollowing,
  });

  #scroll = new ScrollKeeper(find("#scroller"), find("#messages"), find("#jump"), {
    onTopReached: () => this.#chat.loadEarlier(),
  });

  #composer = new Composer(find("#composer"), {
    onSubmit: (question, model) => this.#followAnswer(this.#chat.ask(question, model)),
    onStop: () => this.#chat.stop(),
    isRunning: (question) => this.#chat.isAnswering(question),
    onEditLast: () => this.#editLast(),
  });

  #events = new SharedEvents({
    onEvent: (event) => this.#onEvent(event),
    onConnected: () => this.#isSignInExpired && this.#onConnected(),
    onRejected: (error) => isSignIn(error) && this.#onDisconnected(error),
  });
  #drawer = new Drawer(
    find("#sidebar"), find("#open-list"), find("#backdrop"), find("main"),
  );
  #isSignInExpired = false; // that of a proxy in front of the server
  #frame = 0;
  #connectedTimer = 0;

  start() {
    this.#addSuggestions();
    find("#new-chat").addEventListener("click", () => this.#goTo(null));
    find("#new-chat-top").addEventListener("click", () => this.#goTo(null));
    window.addEventListener("hashchange", () => this.#openAddress());
    new WakeObserver({
      onOffline: () => this.#chat.goOffline(),
      onResume: () => this.#onResume(),
      onHide: () => this.#onHide(),
    });
    this.#events.start();
    this.#openFirst();
    this.#list.refresh();
    this.#readInfo();
  }

  #addSuggestions() {
    for (const text of strings.suggestions) {
      const button = find("#suggestion").content.firstElementChild.cloneNode(true);
      button.querySelector("span").textContent = text;
      const ask = () => this.#followAnswer(this.#chat.ask(text, this.#composer.model));
      button.addEventListener("click", ask);
      find("#suggestions").append(button);
    }
  }

  // After a question, the page scrolls to its answer.
  #followAnswer(answering) {
    announce("");
    this.#scroll.follow();
    this.#composer.focus();
    return answering;
  }

  #goTo(id) {
    if (location.hash.slice(1) !== (id ?? "")) {
      history.pushState(null, "", id ? `#${id}` : location.pathname);
    }
    this.#openAddress();
  }

  // A question that was not sent is shown in its conversation, also if the address was lost.
  async #openFirst() {
    this.#openAddress();
    const unsent = await this.#unsent.findConversation();
    const isUnused = location.hash.length <= 1 && this.#chat.state.messages.length === 0;
    if (unsent && isUnused) this.#goTo(unsent);
  }

  #openAddress() {
    const id = location.hash.slice(1) || null;
    this.#list.setCurrent(id);
    this.#drawer.close();
    this.#scroll.open(id, this.#chat.state.id);
    this.#chat.open(id);
    this.#composer.focus();
  }

  // The connections first: what happens while the page loads is then an event.
  #onResume() {
    this.#events.resume();
    this.#chat.reconnect();
    this.#chat.refresh();
    this.#list.refresh();
  }

  #onHide() {
    this.#events.hide();
    this.#chat.release();
  }

  #onSignedOut() {
    this.#events.tell({ type: SIGNED_OUT });
    this.#startOver();
  }

  // The page loads again, with a new session, and without a draft or an unsent question.
  #startOver() {
    this.#composer.clear();
    this.#unsent.clear();
    history.replaceState(null, "", location.pathname);
    location.reload();
  }

  #onEvent(event) {
    if (event.type === SIGNED_OUT) return this.#startOver();
    if (event.change === "deleted") this.#list.remove(event.conversation);
    if (document.hidden) return; // a page loads everything again when it becomes visible
    this.#list.refreshSoon();
    this.#chat.catchUp(event);
  }

  #readInfo() {
    readInfo().then((info) => this.#configure(info), showError);
  }

  #configure(info) {
    this.#composer.configure(info);
    find("#demo").hidden = !info.demo;
  }

  #onConnected() {
    this.#isSignInExpired = false;
    if (!isConnecting()) return showStatus("");
    clearTimeout(this.#connectedTimer);
    const clear = () => isConnecting() && showStatus("");
    this.#connectedTimer = setTimeout(clear, CLOSE_DELAY_MS);
  }

  // A server without its Redis accepts a connection, and closes it without a reason.
  async #onDisconnected(error) {
    clearTimeout(this.#connectedTimer);
    this.#isSignInExpired = isSignIn(error);
    if (this.#isSignInExpired) return showError(error);
    if (!isConnecting()) showStatus(strings.reconnecting);
    const text = (await isReady()) ? strings.reconnecting : strings.notReady;
    if (isConnecting()) showStatus(text);
  }

  #onAnswerEnd(answer) {
    announce(describeEnding(answer));
    if (answer.failure && isOutdated(answer.failure)) this.#readInfo();
  }

  #applyRemedy(remedy, key) {
    const question = questionOf(this.#chat.state, key);
    if (remedy === Remedy.RELOAD) location.reload();
    else if (remedy === Remedy.NEW_CHAT) this.#askElsewhere(question);
    else if (remedy === Remedy.EDIT) this.#transcript.view(question.key).edit();
    else this.#followAnswer(this.#chat.regenerate(key, this.#composer.model));
  }

  #askElsewhere({ key, id, content }) {
    if (!id) this.#chat.discard(key);
    this.#goTo(null);
    this.#composer.insert(content);
  }

  #onOpenFailed(error) {
    const isGone = error.type === "not_found";
    if (isGone) this.#goTo(null);
    if (isGone) showStatus(strings.conversationGone);
    else showError(error);
    if (error.isRetryable) setTimeout(() => this.#chat.refresh(), RETRY_DELAY_MS);
  }

  #editLast() {
    const last = this.#chat.state.messages.findLast((message) => message.role === "user");
    if (last) this.#transcript.view(last.key).edit();
  }

  // The switcher of the new version takes the place of the old one, and its focus.
  async #selectVersion(id, direction, { element }) {
    const { top } = element.getBoundingClientRect();
    await this.#chat.selectVersion(id);
    this.#render();
    const message = this.#chat.state.messages.find((shown) => shown.id === id);
    if (!message) return;
    const { switcher } = this.#transcript.view(message.key);
    this.#scroll.pin(switcher.element, top);
    switcher.focus(direction);
  }

  #renderSoon() {
    this.#frame ||= requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#frame = 0;
    const { state } = this.#chat;
    const isRunning = Boolean(runningAnswer(state));
    this.#transcript.render(state.messages, isRunning);
    find("#welcome").hidden = state.messages.length > 0 || state.id !== null;
    if (find("#title").textContent !== state.title) find("#title").textContent = state.title;
    this.#composer.setRunning(isRunning);
    this.#updateAddress(state.id);
  }

  // A conversation that its first question created adds no entry to the browser's history.
  #updateAddress(id) {
    if (!id || location.hash === `#${id}`) return;
    if (location.hash.length <= 1) history.replaceState(null, "", `#${id}`);
    this.#list.setCurrent(id);
  }
}

function isSignIn(error) {
  return error?.type === "sign_in_expired";
}

function showError(error) {
  const { text, detail } = describeFailure(requestFailure(error));
  showStatus([text, detail].filter(Boolean).join(" "));
}

function refuse(text) {
  find("#question").disabled = true;
  showStatus(text);
}

// An unchanged text is not announced again.
function showStatus(text) {
  if (find("#status").textContent !== text) find("#status").textContent = text;
}

function isConnecting() {
  return [strings.reconnecting, strings.notReady].includes(find("#status").textContent);
}

function announce(text) {
  find("#announcer").textContent = text;
}

document.documentElement.lang = language;
translate(document);
if (acceptsCookies()) new App().start();
else refuse(strings.cookiesNeeded);

// The first rendering compiles the renderer, which takes about 30 ms: do it before an answer does.
(window.requestIdleCallback ?? setTimeout)(() => renderMarkdown("- **words** and `code`"));
