"""A user of the fault run, who chats over HTTP as the web UI does."""

import asyncio
import random
import uuid
from dataclasses import dataclass, field

import httpx

from tests.chaos.narrator import Narrator
from tests.viewer import Viewer

_RETRY_S = 0.3
_MAX_WAIT_S = 15
"""Time without a byte, heartbeats included, after which a client connects again."""


class Balancer(httpx.AsyncBaseTransport):
    """Sends each request to one of the servers, or to the next one if that is unreachable."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        self._ports = ports
        self._chance = chance
        self._transport = httpx.AsyncHTTPTransport(
            verify=False,  # no connection uses TLS, and to load the certificates takes time
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ports = self._chance.sample(self._ports, len(self._ports))
        for port in ports:
            request.url = request.url.copy_with(port=port)
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError as error:
                unreachable = error
        raise unreachable

    async def aclose(self) -> None:
        await self._transport.aclose()


@dataclass
class Question:
    """A question that the user asked, and the tabs that show its answer."""

    text: str
    turn: str
    tabs: list[Viewer] = field(default_factory=list)
    was_replaced: bool = False


class User:
    """Asks one question after the other in one conversation, until told to stop."""

    def __init__(self, number: int, seed: int, ports: list[int], narrator: Narrator) -> None:
        self.questions: list[Question] = []
        self.conversation = ""
        self.problems: list[str] = []
        self.number = number
        self._chance = random.Random(f"user {number} of {seed}")
        self._narrator = narrator
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports[0]}",
            transport=Balancer(ports, random.Random(f"balancer {number} of {seed}")),
            timeout=_MAX_WAIT_S,
        )

    async def chat(self, is_over: asyncio.Event) -> None:
        """Ask until the event is set, and read the last answer to its end."""
        try:
            while not self._client.cookies:
                await self._request("GET", "/")
            created = await self._request("POST", "/api/conversations/", json={})
            self.conversation = created.json()["id"]
            while not is_over.is_set():
                await self._ask()
                await asyncio.sleep(self._chance.uniform(0, 0.3))
            if self.questions[-1].was_replaced:
                await self._ask(may_replace=False)
        except AssertionError as error:
            self.problems.append(f"user {self.number}: {error}")

    async def read_history(self) -> tuple[list[tuple[str, str]], str | None]:
        """Return the role and content of each stored message, and the turn that runs."""
        found = (await self._request("GET", f"/api/conversations/{self.conversation}")).json()
        return [(one["role"], one["content"]) for one in found["messages"]], found["running"]

    async def close(self) -> None:
        for question in self.questions:
            await self._close_tabs(question)
        await self._client.aclose()

    async def _request(self, method: str, path: str, **options: object) -> httpx.Response:
        """Repeat a request until it succeeds, while the servers or Redis are unavailable."""
        while True:
            try:
                response = await self._client.request(method, path, **options)  # type: ignore[arg-type]
            except httpx.TransportError:
                await asyncio.sleep(_RETRY_S)
                continue
            if response.is_success:
                return response
            assert response.status_code == 503, f"{method} {path} got {response.status_code}"
            await asyncio.sleep(_RETRY_S)

    async def _ask(self, *, may_replace: bool = True) -> None:
        """Ask a question, and read the answer in one of the ways that users do."""
        text = f"question {len(self.questions)} of user {self.number}, {uuid.uuid4().hex}"
        question = Question(text, uuid.uuid4().hex)
        self.questions.append(question)
        self._narrator.shown[text] = False
        tab = self._open_tab(question)
        await tab.wait_until(tab.begun)
        habit = self._chance.random()
        if habit < 0.5:
            await self._look(tab)
            if habit < 0.1 and may_replace and tab.text and not tab.endings:
                question.was_replaced = True
                return
            if habit < 0.25:
                await tab.drop()
                await asyncio.sleep(self._chance.uniform(0, 1))
            elif habit < 0.35:
                await tab.drop()
                tab.reset()
            else:
                self._open_tab(question)
        await asyncio.gather(*(one.read_to_end() for one in question.tabs))
        await self._close_tabs(question)

    async def _look(self, tab: Viewer) -> None:
        """Read for a moment."""
        moment = asyncio.Event()
        asyncio.get_running_loop().call_later(self._chance.uniform(0.1, 1.5), moment.set)
        await tab.wait_until(moment)

    def _open_tab(self, question: Question) -> Viewer:
        query = {
            "message": question.text,
            "turn": question.turn,
            "conversation": self.conversation,
        }
        tab = Viewer(
            self._client, query, retry_s=_RETRY_S, on_text=lambda: self._note_shown(question)
        )
        question.tabs.append(tab)
        tab.connect()
        return tab

    def _note_shown(self, question: Question) -> None:
        self._narrator.shown[question.text] = True

    async def _close_tabs(self, question: Question) -> None:
        for tab in question.tabs:
            await tab.drop()
