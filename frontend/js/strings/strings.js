/** The page's words, in English and Chinese; markup names them by `data-text`, `data-label` and `data-placeholder`. */

const COMMAND = /Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl";

const english = {
  appName: "Holdline",
  conversations: "Conversations",
  newChat: "New chat",
  untitled: "New chat",
  openList: "Open conversations",
  closeList: "Close conversations",
  showMore: "Show more",
  noConversations: "Your conversations will be kept here.",
  running: "answering",
  rename: "Rename",
  renameTitle: "Rename conversation",
  title: "Title",
  save: "Save",
  cancel: "Cancel",
  delete: "Delete",
  deleteTitle: "Delete this conversation?",
  deleteText: (title) => `“${title}” and all its messages will be gone for good.`,
  question: "Your question",
  placeholder: "Ask anything",
  send: "Send",
  stop: "Stop",
  model: "Model",
  keys: "Enter sends · Shift + Enter breaks the line",
  demo: "A demo model is answering. For a real one, set OPENAI_API_KEY or OPENAI_BASE_URL (see the README).",
  jump: "Jump to latest",
  headline: "What would you like to know?",
  tagline: "Reload, lose the line, close the lid: the answer goes on, and waits for you here.",
  suggestions: [
    "Explain how TCP recovers a lost packet, step by step",
    "Write a Python function that merges overlapping intervals, with tests",
    "用表格比较一下绿茶、红茶和乌龙茶",
  ],
  you: "You",
  assistant: "Answer",
  thinking: "Thinking…",
  thoughts: "Thoughts",
  copy: "Copy",
  copied: "Copied",
  copyAnswer: "Copy answer",
  retry: "Try again",
  edit: "Edit question",
  editing: "Your question, edited",
  editorKeys: `${COMMAND} + Enter sends · Esc cancels`,
  regenerate: "Answer again",
  previousVersion: "Previous version",
  nextVersion: "Next version",
  version: (at, count) => `Version ${at} of ${count}`,
  tokens: (count) => `${count.toLocaleString("en")} tokens`,
  continued: (times) => (times === 1 ? "continued once" : `continued ${times} times`),
  seam: ({ why, model }) =>
    `Here the answer ${english.seams[why] ?? "broke off"}, and ${model ? `${model} went on` : "it was continued"}.`,
  seams: {
    length: "reached the model’s length limit",
    interrupted: "was interrupted with its server",
    broke_off: "lost its line to the model",
    timeout: "stood still too long",
    rate_limited: "met a model with too much to do",
    unreachable: "found no model listening",
  },
  finish: { stopped: "Stopped", length: "Cut off: the model's length limit was reached", failed: "Broken off" },
  unanswered: "This question has no answer yet.",
  broken: "This answer broke off.",
  reconnecting: "Connection lost. Reconnecting…",
  answerReady: "The answer is complete.",
  tooLong: (length, most) => `${length.toLocaleString("en")} of at most ${most.toLocaleString("en")} characters`,
  notReached: "The server cannot be reached. Check the connection and try again.",
  notUnderstood: (status) => `The server answered with an error (${status}).`,
  gone: "That conversation does not exist any more.",
  table: "Table",
};

const chinese = {
  ...english,
  conversations: "对话",
  newChat: "新对话",
  untitled: "新对话",
  openList: "打开对话列表",
  closeList: "关闭对话列表",
  showMore: "显示更多",
  noConversations: "您的对话会保存在这里。",
  running: "正在回答",
  rename: "重命名",
  renameTitle: "重命名对话",
  title: "标题",
  save: "保存",
  cancel: "取消",
  delete: "删除",
  deleteTitle: "删除这个对话？",
  deleteText: (title) => `“${title}”及其全部消息将被永久删除。`,
  question: "您的问题",
  placeholder: "想问什么都可以",
  send: "发送",
  stop: "停止",
  model: "模型",
  keys: "Enter 发送 · Shift + Enter 换行",
  demo: "当前是演示模型。设置 OPENAI_API_KEY 或 OPENAI_BASE_URL 即可使用真实模型，详见 README。",
  jump: "回到最新",
  headline: "今天想了解什么？",
  tagline: "刷新、断网、合上电脑都没关系：回答会继续，并在这里等您。",
  suggestions: [
    "用表格比较一下绿茶、红茶和乌龙茶",
    "一步一步解释 TCP 如何恢复丢失的数据包",
    "Write a Python function that merges overlapping intervals, with tests",
  ],
  you: "您",
  assistant: "回答",
  thinking: "思考中…",
  thoughts: "思考过程",
  copy: "复制",
  copied: "已复制",
  copyAnswer: "复制回答",
  retry: "重试",
  edit: "编辑问题",
  editing: "修改您的问题",
  editorKeys: `${COMMAND} + Enter 发送 · Esc 取消`,
  regenerate: "重新回答",
  previousVersion: "上一个版本",
  nextVersion: "下一个版本",
  version: (at, count) => `第 ${at} 个版本，共 ${count} 个`,
  tokens: (count) => `${count.toLocaleString("zh")} tokens`,
  continued: (times) => `续写 ${times} 次`,
  seam: ({ why, model }) => `回答在此处${chinese.seams[why] ?? "中断"}，${model ? `由 ${model} ` : ""}续写。`,
  seams: {
    length: "达到模型的长度上限",
    interrupted: "因服务器中断而停下",
    broke_off: "与模型的连接断开",
    timeout: "等待模型超时",
    rate_limited: "因模型过于繁忙而停下",
    unreachable: "无法连接模型",
  },
  finish: { stopped: "已停止", length: "已达到模型的长度上限，回答被截断", failed: "回答中断" },
  unanswered: "这个问题还没有回答。",
  broken: "这个回答中断了。",
  reconnecting: "连接已断开，正在重新连接…",
  answerReady: "回答已完成。",
  tooLong: (length, most) => `${length.toLocaleString("zh")} 个字符，最多 ${most.toLocaleString("zh")} 个`,
  notReached: "无法连接服务器，请检查网络后重试。",
  notUnderstood: (status) => `服务器返回了错误（${status}）。`,
  gone: "这个对话已不存在。",
  table: "表格",
};

/** The language of the page: "zh" for a Chinese browser, else "en". */
export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

/** The words in that language. */
export const strings = language === "zh" ? chinese : english;

/** Puts the words into the markup below `root`, its templates included. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = strings[node.dataset.text];
  for (const node of root.querySelectorAll("[data-label]")) label(node, strings[node.dataset.label]);
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = strings[node.dataset.placeholder];
  for (const node of root.querySelectorAll("template")) translate(node.content);
}

/** Gives a control without words a name, to be heard and to be seen on hover. */
export function label(node, words) {
  node.setAttribute("aria-label", words);
  if (node.matches("button")) node.title = words;
}
