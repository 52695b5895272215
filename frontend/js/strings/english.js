/** The page's texts in English. */

const COMMAND_KEY = /Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl";

const seamReasons = {
  length: "reached the model’s length limit",
  interrupted: "was interrupted by a server failure",
  connection_lost: "lost the connection to the model",
  timeout: "timed out waiting for the model",
  rate_limited: "was rate-limited by the model service",
  unreachable: "could not reach the model",
  upstream: "was interrupted by an error of the model service",
};

const waitReasons = {
  rate_limited: "The model service is busy.",
  loading: "The model is being loaded.",
  unreachable: "The model service cannot be reached.",
  upstream: "The model service has failed.",
  limited: "The server cannot take the question yet.",
};

export const english = {
  conversations: "Conversations",
  newChat: "New chat",
  untitled: "New chat",
  openList: "Open conversations",
  closeList: "Close conversations",
  showMore: "Show more",
  noConversations: "Your conversations will appear here.",
  running: "answering",
  rename: "Rename",
  renameTitle: "Rename conversation",
  title: "Title",
  save: "Save",
  cancel: "Cancel",
  delete: "Delete",
  deleteTitle: "Delete this conversation?",
  deleteText: (title) => `“${title}” and all its messages will be deleted permanently.`,
  signOut: "Sign out and delete everything here",
  signOutTitle: "Sign out and delete everything?",
  signOutText:
    "All conversations in this browser will be deleted permanently. Running answers will be stopped.",
  signOutConfirm: "Delete everything",
  question: "Your question",
  placeholder: "Ask anything",
  send: "Send",
  stop: "Stop",
  model: "Model",
  keyHints: "Enter to send · Shift + Enter for a new line",
  demo:
    "You are using the demo model. To use a real model, set OPENAI_API_KEY or OPENAI_BASE_URL " +
    "(see the README).",
  jump: "Jump to latest",
  headline: "What would you like to know?",
  tagline:
    "Reload, go offline, close the laptop: the answer keeps being written, and you can come back " +
    "to it at any time.",
  suggestions: [
    "Explain how TCP recovers a lost packet, step by step",
    "Write a Python function that merges overlapping intervals, with tests",
    "用表格比较一下绿茶、红茶和乌龙茶",
  ],
  you: "You",
  assistant: "Assistant",
  thinking: "Thinking…",
  reasoning: "Thoughts",
  copy: "Copy",
  copied: "Copied",
  copyAnswer: "Copy answer",
  copyFailed: "The browser did not allow copying. Select the text and copy it yourself.",
  edit: "Edit question",
  discard: "Discard question",
  editQuestion: "Edit your question",
  editorKeys: `${COMMAND_KEY} + Enter to send · Esc to cancel`,
  regenerate: "Regenerate",
  previousVersion: "Previous version",
  nextVersion: "Next version",
  version: (number, count) => `Version ${number} of ${count}`,
  tokens: (count) => `${count.toLocaleString("en")} tokens`,
  continued: (times) => (times === 1 ? "continued once" : `continued ${times} times`),
  seam: ({ why, model }) =>
    `At this point, the answer ${seamReasons[why] ?? "was interrupted"} and was continued ` +
    (model ? `by ${model}.` : "automatically."),
  wait: (why, seconds) =>
    `${waitReasons[why] ?? "The model service is not available."} Asking again in ${seconds} s…`,
  queued: (position) =>
    `Waiting for a free slot of the model server: number ${position} in the queue.`,
  finishReasons: {
    stopped: "Stopped",
    length: "Truncated at the model’s length limit",
    content_filter: "Cut off by the model service’s content filter",
    refusal: "The model declined to answer",
    interrupted: "The model could not continue this answer",
    tool_calls: "Ended with a tool call, which is not supported",
    failed: "Interrupted",
  },
  reconnecting: "Connection lost. Reconnecting…",
  notReady: "The server is not ready. Trying again…",
  cookiesNeeded:
    "Holdline needs cookies to keep your conversations. Allow cookies for this site, then reload.",
  plainTextNote: "This answer could not be formatted. It is shown as plain text.",
  answerReady: "The answer is complete.",
  tooLong: (length, limit) =>
    `${length.toLocaleString("en")} characters; the limit is ${limit.toLocaleString("en")}`,
  remedies: {
    retry: "Try again",
    edit: "Edit question",
    newChat: "Ask in a new chat",
    reload: "Reload the page",
  },
  conversationGone: "This conversation no longer exists.",
  table: "Table",
  // Every type that the server sends, and after a blank line those that the page finds itself.
  failures: {
    request: {
      bad_request: "The server cannot read this request.",
      unknown_model: "This model is no longer available. Try again with the one selected now.",
      unauthorised: "The server requires a key.",
      forbidden: "The server rejected the request: it does not trust the address of this page.",
      not_found:
        "This conversation no longer exists: it was deleted, or your session has expired.",
      not_acceptable: "The server has no format that this page can read.",
      conflict: "Another change is still in progress. Try again in a moment.",
      too_large: "The question or this site's cookies are too large for the server.",
      misdirected: "The server does not accept the address of this page.",
      rate_limited: ({ retryAfterS }) =>
        `Too many questions. Try again in ${retryAfterS ? `${retryAfterS} s` : "a moment"}.`,
      turns_exceeded:
        "Too many answers are being generated. Stop one, or try again when one has ended.",
      storage_full:
        "The server’s storage is full. Your conversations are not affected. Delete some of them, " +
        "or ask the operator to give Redis more memory (REDIS_MAXMEMORY).",
      quota_exceeded:
        "Your conversations have reached their limit of size or number. Delete some of them first.",
      conversation_full: "This conversation has reached its maximum number of messages.",
      unavailable: "The server is not ready. Try again in a moment.",
      moderated:
        "Moderation flagged the question or the system prompt. It was neither stored nor sent to " +
        "the model.",
      moderation_unavailable:
        "The question cannot be checked at the moment, so it was not sent.",
      internal:
        "The server failed unexpectedly. Try again in a moment; its log describes the error.",
      unreadable:
        "The stored data of this conversation is damaged. The server’s log has the details.",
      http: ({ status }) => `The server returned an error (${status}).`,

      server_unreachable: "The server cannot be reached. Check your connection and try again.",
      sign_in_expired: "You are signed out. Reload to continue.",
      // A redirect has no status.
      blocked: ({ status }) =>
        `A proxy or firewall in front of the server rejected this${status ? ` (${status})` : ""}.`,
      unsent: "This question has not been sent.",
    },
    turn: {
      authentication:
        "The model service rejected the server’s key. Check OPENAI_API_KEY on the server.",
      not_found:
        "The model service does not have this model. Check CHAT_MODEL and OPENAI_BASE_URL on the " +
        "server.",
      refused: "The model service rejected the question.",
      upstream: "The model service has failed.",
      rate_limited: "The model service is busy, or its quota is used up.",
      loading: "The model is still being loaded.",
      context_length: "The conversation is too long for the model. Shorten the question.",
      timeout: "The model service sent nothing for too long.",
      unreachable: "The model service cannot be reached. Check OPENAI_BASE_URL on the server.",
      certificate: "The model service’s certificate is not trusted.",
      proxy:
        "The model service cannot be reached through the proxy. Check HTTPS_PROXY and HTTP_PROXY " +
        "on the server.",
      connection_lost: "The connection to the model service was lost.",
      invalid_response: "The model service sent an invalid response.",
      no_answer: "The model service sent no answer.",
      tool_call: "The model called a tool instead of answering, which is not supported.",
      withheld: "The model declined to answer, or the model service withheld the answer.",
      moderated: "Moderation flagged the answer. Its text so far is kept.",
      moderation_unavailable:
        "The answer cannot be checked at the moment. Its text so far is kept.",
      too_long: "The answer has reached the maximum length of one turn.",
      too_slow: "The answer took longer than the server allows. Its text so far is kept.",
      length:
        "The model reached its length limit before it wrote anything. Shorten the question, or " +
        "raise MAX_OUTPUT_TOKENS on the server.",
      history_unavailable: "The server cannot read the conversation at the moment.",
      interrupted: "The server was interrupted during this answer. Its text so far is kept.",
      internal: "The server failed during this answer. Its text so far is kept.",

      empty: "The model ended without writing an answer.",
      only_reasoning: "The model ended after its thoughts, without an answer.",
      stopped: "You stopped the answer before it began.",
      unanswered: "This question has no answer yet.",
      incomplete: "The answer was interrupted.",
    },
  },
  unknownFailure: "An error occurred.",
};
