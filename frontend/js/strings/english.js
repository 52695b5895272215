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
    "Reload, go offline, close the laptop: the answer keeps generating, and you can come back to " +
    "it at any time.",
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
  retry: "Try again",
  edit: "Edit question",
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
    content_filter: "Declined or withheld by the model service",
    interrupted: "The model could not continue this answer",
    tool_calls: "Ended with a tool call, which is not supported",
    failed: "Interrupted",
  },
  reconnecting: "Connection lost. Reconnecting…",
  plainTextNote: "This answer could not be formatted. It is shown as plain text.",
  answerReady: "The answer is complete.",
  tooLong: (length, limit) =>
    `${length.toLocaleString("en")} characters; the limit is ${limit.toLocaleString("en")}`,
  conversationGone: "This conversation no longer exists.",
  table: "Table",
  // The server's messages are in English; these failures come without one.
  failures: {
    request: {
      http: (status) => `The server returned an error (${status}).`,
      server_unreachable: "The server cannot be reached. Check your connection and try again.",
    },
    turn: {
      unanswered: "This question has no answer yet.",
      incomplete: "The answer was interrupted.",
    },
  },
  unknownFailure: "An error occurred.",
};
