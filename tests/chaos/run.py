"""Run the users and the faults of one plan, and check the invariants."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.arrangement import Processes, run_processes
from tests.chaos.invariants import Outcome, find_tracebacks, find_violations
from tests.chaos.narrator import Narrator
from tests.chaos.plan import Arrangement, Fault, make_plan
from tests.chaos.user import Question, User

USERS = 20
BOUND_S = 60
"""Time after the last fault within which every turn must have ended."""


@dataclass
class Report:
    """The result of a run."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    settled_s: float = 0
    """Time from the end of the last fault until every turn had ended."""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{counts}; settled {self.settled_s:.1f} s after the last fault"


async def run(
    seed: int,
    seconds: float,
    arrangement: Arrangement,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Let users chat during the faults of this seed, and return the report."""
    report, narrator = Report(), Narrator()
    plan = make_plan(seed, seconds, arrangement)
    upstream_url = await narrator.upstream.start()
    try:
        async with run_processes(arrangement, upstream_url) as processes:
            ports = [server.port for server in processes.servers]
            users = [User(number, seed, ports, narrator) for number in range(USERS)]
            try:
                await _run_faults(processes, users, plan, report, say)
                await _check(processes, users, narrator, report)
            finally:
                for user in users:
                    await user.close()
    finally:
        await narrator.upstream.stop()
    report.counts["faults"] = len(plan)
    report.counts["questions"] = sum(len(user.questions) for user in users)
    report.counts["requests"] = sum(map(len, narrator.requests.values()))
    return report


async def _run_faults(
    processes: Processes,
    users: list[User],
    plan: list[Fault],
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Apply the plan while users chat, and wait until they have their last answers."""
    is_over = asyncio.Event()
    begun = time.monotonic()

    async def apply(fault: Fault) -> None:
        await asyncio.sleep(begun + fault.at_s - time.monotonic())
        say(str(fault))
        await processes.apply(fault)

    chatting = [asyncio.create_task(user.chat(is_over)) for user in users]
    try:
        await asyncio.gather(*(apply(fault) for fault in plan))
        for server in processes.servers:
            await server.restart_if_exited()
        is_over.set()
        ended = time.monotonic()
        _, late = await asyncio.wait(chatting, timeout=BOUND_S)
        report.settled_s = time.monotonic() - ended
    finally:
        for task in chatting:
            task.cancel()
        await asyncio.wait(chatting)
    for user, task in zip(users, chatting, strict=True):
        if task in late:
            turn = user.questions[-1].turn if user.questions else "none"
            report.violations.append(
                f"user {user.number}: turn {turn} had not ended {BOUND_S} s after the last fault"
            )
        else:
            task.result()


async def _check(
    processes: Processes, users: list[User], narrator: Narrator, report: Report
) -> None:
    """Append a sentence for each invariant that does not hold."""
    report.violations += narrator.violations
    fences = await _read_fences(processes)
    for user in users:
        report.violations += user.problems
        if not user.conversation:
            continue  # the user is late, which has been reported
        async with asyncio.timeout(BOUND_S):
            history, running = await user.read_history()
        outcomes = [_describe(one, narrator, fences.get(one.turn, 0)) for one in user.questions]
        found = find_violations(outcomes, history, running)
        report.violations += [f"user {user.number}: {problem}" for problem in found]
    report.violations += await _find_leftovers(processes)
    for server in processes.servers:
        report.violations += server.problems
        report.violations += find_tracebacks(server.read_log())


def _describe(question: Question, narrator: Narrator, fence: int) -> Outcome:
    return Outcome(
        question=question.text,
        shown=[text for tab in question.tabs for text in (*tab.discarded, tab.text)],
        failures=[data for tab in question.tabs for data in tab.failures],
        was_replaced=question.was_replaced,
        rejections=[status for tab in question.tabs for status in tab.rejections],
        requests=len(narrator.requests.get(question.text, [])),
        fence=fence,
    )


async def _read_fences(processes: Processes) -> dict[str, int]:
    """Return how often the lease of each turn was acquired."""
    fences = {}
    for node in processes.nodes:
        async for key in node.admin.scan_iter("holdline:*:turn:*", count=1000):
            turn = key.decode().rpartition(":")[2]
            fences[turn] = int(await node.admin.hget(key, "fence") or 0)
    return fences


async def _find_leftovers(processes: Processes) -> list[str]:
    """Return the entries of the index of running turns that remain after every turn has ended."""
    async with asyncio.timeout(BOUND_S):
        deadline = time.monotonic() + BOUND_S / 2
        while True:
            found: list[bytes] = []
            for node in processes.nodes:
                async for key in node.admin.scan_iter("holdline:running*", count=1000):
                    members: Any = await node.admin.zrange(key, 0, 9)
                    found += members
            if not found or time.monotonic() > deadline:
                return [f"the index of running turns still has {one!r}" for one in found]
            await asyncio.sleep(0.2)
