"""Generate answers of which each letter and digit must be visible.

Text between ⟦ and ⟧ need not be visible: addresses, languages of code blocks, names of entities,
numbers of list items (the browser draws them), and definitions that a link uses.
"""

import random
import re
from dataclasses import dataclass

INLINE = [
    "plain words 42", "20~25度，50~60%", "~5~", "~~old~~", "2*3*4", "x**2 + y**2", "__init__",
    "snake_case__x", "**bold**", "*em*", "`code_1`", "``a`b``", "a <⟦br⟧> b", "<think>", "</think>",
    "vector<int>", "<std::string>", "<!-- c1 -->", "<script>s1</script>", "<title>t1</title>",
    "<svg><text>v1</text></svg>", "&⟦copy⟧;", "&⟦lt⟧;b1", "&foo;", "&notit;", "AT&T",
    "https://a.example/b1。然后", "https://a.example（注1）", "[text1](⟦https://a.example/x9⟧)",
    '[text2](⟦https://a.example⟧ "Title2")', "![alt3](⟦https://a.example/i.png⟧)", "[name](args)",
    "[text4](", "[text5](https://a.example", "[text6](#there6)", "[text7](javascript:alert(7))",
    "[ERROR]", "[^1]", "<https://a.example/c1>",
    "x1@a.example", "\\*x1\\*", "#tag1", "a1\tb1", "a\u200bb", "**注意：**正文", "`open", "**open1",
    "*open2", "~~open3", "[x1", "(1)", "> 5", ">= 5", "- dash", "1990年", "!", "[ref1][⟦r1⟧]",
    "😀1", "e\u0301", "عربي1", "ไทย1", "$x_1$", "C:\\_a\\b", "a|b", "```npm i```",
    "`x1`**3次**即可", "`x1`*em1*", "<b>*x1*</b>", "[text8](⟦https://a.example⟧)**3天**",
    "文件_副本_最终", "2*π*r", "5*（3+2）*4", "{a1}*{b1}*{c1}", "*.*", "a1.*, b1.*", "/* a1 */",
    "_.map(_.x1)", "~~~x1~~~", "**重点😀**好",
    "[![alt9](⟦https://a.example/i⟧)](⟦https://a.example/j⟧)", "![*alt1* `c1`](⟦https://a.example⟧)",
    "[](https://a.example)",
]  # fmt: skip
BLOCKS = [
    "[ERROR]: timeout1", "[^1]: Textbook1", "[u1]: https://a.example/u1",
    "[⟦r1⟧]: ⟦https://a.example/r1⟧", "# Heading1", "Title1\n===", "Title2\n---", "> quote1",
    "- item1\n- item2", "⟦1⟧. one\n⟦2⟧. two", "- [ ] open1\n- [⟦x⟧] done1", "42", "1990", "---",
    "| a1 | b1 |\n|---|:-:|\n| c1 | d1 |\n| e1 | f1 | g1 |",
    "h1 | i1\n--- | ---\nj1⟦<br>⟧k1 | `l|m`",
    "```⟦python⟧\ndef f(*args, **kwargs):\n    return handlers[name](args)\n42\n```",
    "~~~\necho `date` and `whoami\n~~~", "```⟦markdown⟧\n# T1\n```⟦sh⟧\nx1\n```\ny1\n```",
    "```⟦md⟧\nopen4\n```⟦py⟧\nx2", "    indented1", "<div>\nhtml1\n</div>", "Name: A1\nCity: B1",
    "| row1 |", "```", "```⟦js⟧\nlet a1;", "+ plus1\n+ plus2\n\n  more3",
    "　　indent1\n　　indent2", "姓名1\n|-|", "| a1 | b1 |\n|-|-|\n| c1\\\\| d1 |",
    "~~~重要1~~~\ntext1", "年龄1\n>18岁", "- >5年", "```\na1\n```⟦js⟧\nb1\n```\nc1\n```\nd1",
]  # fmt: skip

PROSE = [
    "plain words 42", "20~25度，50~60%。", "~5~", "20~~25", "~~~", "2*3*4", "x**2 + y**2", "a*b*c",
    "__init__", "self.__class__.__name__", "snake_case__x", "_private", "a <br> b", "<think>",
    "</div>", "vector<int>", "<std::string>", "<!-- c1 -->", "1 < 2 > 0", "a->b", "<-", "[ERROR]",
    "[^1]", "[name](args)", "a[i][j]", "[x1", "x1]", "f(*args, **kwargs)", "(1+2)*3*(4+5)", "5 * 3",
    "src/**/*.py", "~/bin", "#tag1", "AT&T", "https://a.example/_x_/a~b。然后", "C:\\dir", "1990年",
    "2*π*r", "x²*y²*z", "а*б*в", "√2*√3*√5", "5*（3+2）*4", "(a+b)*3", "*.*", "*.py", "COUNT(*)",
    '"*"', "/* a */", "(_, x)", "_.map", "$_.Name", "文件_副本_最终", "它的_值_是", ">5年", ">0.05",
]  # fmt: skip
"""Fragments without markup: every character is visible."""

_UNDECIDED_END = re.compile(
    r"(?:`{3}[^`\n]*`{0,2}|~{3}[^\n]*|\]\([a-z]+[^\s()]*(?:\s[^\w]*)?|^[->\s]*\d{1,9}[.)*]?)\Z",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Answer:
    """A Markdown text and the part of it that must be visible."""

    source: str  # with the brackets

    @property
    def markdown(self) -> str:
        return re.sub("[⟦⟧]", "", self.source)

    def find_letters(self, length: int | None = None) -> str:
        """Return the letters and digits that must be visible; while the answer grows to `length`
        characters, without an end that can still become an address, a fence or a list item.
        """
        start = self.markdown[:length]
        while length is not None and (end := _UNDECIDED_END.search(start)):
            start = start[: end.start()]
        text, is_hidden, left = "", False, len(start)
        for character in self.source:
            if character in "⟦⟧":
                is_hidden = character == "⟦"
            elif left:
                left -= 1
                text += "" if is_hidden else character
        return keep_letters(text)


def keep_letters(text: str) -> str:
    """Return the letters and digits of a text."""
    return "".join(filter(str.isalnum, text))


def find_missing(expected: str, shown: str) -> str:
    """Return the end of `expected` that does not occur, in order, in `shown`; empty if all does."""
    rest = iter(shown)
    for at, letter in enumerate(expected):
        if letter not in rest:
            return expected[at:]
    return ""


def generate_answer(chance: random.Random) -> Answer:
    """Return a random answer: paragraphs of fragments, and blocks, in lists and quotes."""
    blocks = [_generate_block(chance) for _ in range(chance.randint(1, 4))]
    return Answer(chance.choice(["\n\n", "\n\n", "\n"]).join(blocks))


def generate_prose(chance: random.Random) -> str:
    """Return a random paragraph without markup."""
    pieces = chance.choices(PROSE, k=chance.randint(1, 6))
    return "So " + chance.choice([" ", " and ", ", ", "，", "\nor "]).join(pieces)


def _generate_block(chance: random.Random) -> str:
    if chance.random() < 0.5:
        block = chance.choice(BLOCKS)
    else:
        pieces = chance.choices(INLINE, k=chance.randint(1, 4))
        block = chance.choice([" ", " ", "", "\n", "，"]).join(pieces)
    prefix = chance.choice(["> ", "- ", "⟦3⟧. ", "", "", "", ""])
    indent = prefix if prefix == "> " else " " * len(re.sub("[⟦⟧]", "", prefix))
    return prefix + block.replace("\n", "\n" + indent)
