"""The embedded Redis, as a real process: durability, access, exclusive use, start and stop."""

import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from config.children import child_process, embedded_redis
from config.children.append_only_folder import DataLostError
from config.children.embedded_redis import DataDirError, EmbeddedRedis, RedisStartError
from config.children.redis_binary import RedisNotFoundError
from config.system.memory import choose_redis_maxmemory
from tests.config.conftest import find_server, is_free, write_script

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 20.0

SUPERVISOR = """
import os, signal, sys, time
from pathlib import Path
from config.system.memory import choose_redis_maxmemory
from config.children.embedded_redis import EmbeddedRedis, EmbeddedRedisError
redis = EmbeddedRedis(Path(sys.argv[1]))
try:
    redis.start()
except EmbeddedRedisError as error:
    sys.exit(str(error))
exec(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # an early signal stays pending
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
    for reply in [b"-LOADING\\r\\n", b"loading_loaded_perc:41.70\\r\\n"] * 3 + [b"+PONG\\r\\n"]:
        connection, _ = server.accept()
        connection.recv(100)
        connection.sendall(reply)
        connection.close()
    server.accept()
"""


@pytest.fixture
def supervisors(data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a process with an EmbeddedRedis on `data_dir`.

    The process runs `code` after the start.
    """
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


def read_pid(supervisor: subprocess.Popen[str]) -> int:
    """Return the process id that a supervisor prints when its Redis is ready."""
    assert supervisor.stdout is not None
    return int(supervisor.stdout.readline())


def connect(redis: EmbeddedRedis) -> "Redis":
    return Redis.from_url(redis.url)


def write_as_client(data_dir: Path) -> None:
    with Redis.from_url(EmbeddedRedis(data_dir).url) as client:
        client.set("greeting", "hello")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < until, f"no success within {TIMEOUT_S} s"
        time.sleep(0.005)


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_redis_gets_no_secret_of_the_environment(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("API_KEYS", "name:secret-secret-secret")
    with EmbeddedRedis(data_dir) as redis:
        environment = Path(f"/proc/{redis.pid}/environ").read_text()
    names = {line.partition("=")[0] for line in environment.split("\0") if line}
    assert names <= {"PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}
    assert "secret" not in environment


def test_data_survives_a_stop_and_a_start(data_dir: Path) -> None:
    redis = EmbeddedRedis(data_dir)
    redis.start()
    with connect(redis) as client:
        client.set("greeting", "hello")
    redis.stop()
    redis.start()
    with connect(redis) as client:
        assert client.get("greeting") == b"hello"
    redis.stop()


def test_stop_is_harmless_when_repeated_or_before_a_start(data_dir: Path) -> None:
    redis = EmbeddedRedis(data_dir)
    redis.stop()
    with redis:
        pid = redis.pid
        assert pid is not None
        assert is_alive(pid)
    redis.stop()
    assert redis.pid is None
    assert not is_alive(pid)


def test_redis_runs_with_the_documented_options(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
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


@pytest.mark.parametrize(
    ("maxmemory", "expected"),
    [("", choose_redis_maxmemory()), ("32mb", 32 << 20), ("4194304", 4 << 20), ("0", 0)],
)
def test_redis_has_the_maximum_of_memory_that_is_set(
    data_dir: Path, maxmemory: str, expected: int
) -> None:
    with EmbeddedRedis(data_dir, maxmemory) as redis, connect(redis) as client:
        assert int(client.config_get("maxmemory")["maxmemory"]) == expected


def test_only_the_user_who_started_redis_can_access_it(data_dir: Path) -> None:
    data_dir = data_dir / "below"
    with EmbeddedRedis(data_dir):
        for folder in (
            data_dir.parent,
            data_dir,
            data_dir / "redis",
            data_dir / "redis" / "redis.sock",
        ):
            assert read_mode(folder) == 0o700, folder
        assert all(
            read_mode(file) & 0o077 == 0 for file in (data_dir / "redis").glob("appendonly*")
        )


def test_start_restricts_the_redis_directory_and_keeps_the_mode_of_data_dir(
    data_dir: Path,
) -> None:
    (data_dir / "redis").mkdir(parents=True)
    data_dir.chmod(0o755)
    (data_dir / "redis").chmod(0o755)
    with EmbeddedRedis(data_dir):
        assert read_mode(data_dir) == 0o755
        assert read_mode(data_dir / "redis") == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_redis_listens_on_no_tcp_port(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as redis:
        links = []
        for link in Path(f"/proc/{redis.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # Redis has closed it meanwhile
                links.append(str(link.readlink()))
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        tcp = {
            line.split()[9]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{redis.pid}/net/{table}").read_text().splitlines()[1:]
        }
        assert sockets
        assert not sockets & tcp


def test_a_data_dir_with_special_characters_works(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir / 'a "b" #1 ?x=%20 \'é') as redis, connect(redis) as client:
        assert client.ping()


def test_a_relative_data_dir_is_made_absolute(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir.parent)
    with EmbeddedRedis(Path("data")) as redis:
        assert redis.url == f"unix://{data_dir}/redis/redis.sock"


def test_a_symlinked_data_dir_is_used_by_the_path_of_the_link(data_dir: Path) -> None:
    long = data_dir.parent / ("long" * 30)
    long.mkdir()
    data_dir.symlink_to(long)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.ping()


def test_a_data_dir_too_long_for_a_socket_fails_with_its_path(data_dir: Path) -> None:
    data_dir = data_dir / ("x" * 100)
    with pytest.raises(DataDirError, match=f"DATA_DIR {data_dir} is too long"):
        EmbeddedRedis(data_dir).start()
    assert not data_dir.exists()


def test_a_data_dir_that_cannot_be_created_fails_with_its_path(data_dir: Path) -> None:
    data_dir.write_text("a file")
    with pytest.raises(DataDirError, match=f"DATA_DIR {data_dir} cannot be used"):
        EmbeddedRedis(data_dir).start()


def test_a_second_server_on_a_data_dir_fails_with_the_pid_of_the_first(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    first = supervisors()
    redis = read_pid(first)
    second = EmbeddedRedis(data_dir)
    with pytest.raises(DataDirError, match=rf"another Holdline \(pid {first.pid}\)"):
        second.start()
    with pytest.raises(DataDirError, match=rf"another Holdline \(pid {first.pid}\)"):
        second.start()
    assert is_alive(redis)
    write_as_client(data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_redis_exits_with_a_killed_supervisor_and_keeps_the_data(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors()
    pid = read_pid(supervisor)
    write_as_client(data_dir)
    supervisor.kill()
    wait_until(lambda: not is_alive(pid))
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("greeting") == b"hello"


def test_a_start_right_after_a_kill_waits_for_the_old_redis(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    for _ in range(10):
        supervisor = supervisors()
        old = read_pid(supervisor)
        write_as_client(data_dir)
        supervisor.kill()
        supervisor.wait()
        with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
            assert not is_alive(old)
            assert client.getdel("greeting") == b"hello"


def test_a_worker_that_outlives_its_supervisor_does_not_block_the_next_start(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors(
        "if (worker := os.fork()) == 0: time.sleep(60); os._exit(0)\nprint(worker)"
    )
    worker = read_pid(supervisor)
    supervisor.kill()
    supervisor.wait()
    try:
        with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
            assert is_alive(worker)
            assert client.ping()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_stop_in_a_forked_worker_does_not_stop_redis(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as redis:
        if (worker := os.fork()) == 0:
            redis.stop()
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == 0
        with connect(redis) as client:
            assert client.ping()
    # Redis handles a signal with a delay, so that the PING alone would not prove anything.
    log = (data_dir / "redis" / "redis.log").read_text()
    assert log.count("Received SIGTERM") == 1, "the parent's, and none of the worker's"


def test_ctrl_c_does_not_stop_redis_before_the_server_has_drained(
    data_dir: Path, supervisors: Callable[..., subprocess.Popen[str]]
) -> None:
    supervisor = supervisors()
    pid = read_pid(supervisor)
    os.killpg(supervisor.pid, signal.SIGINT)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "draining None\n"
    write_as_client(data_dir)
    # Redis handles a signal with a delay, so that the write alone would not prove anything.
    assert os.getpgid(pid) != os.getpgid(supervisor.pid)


def test_an_orphaned_redis_is_stopped_with_its_data_written(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = leave_orphan(data_dir, monkeypatch)
    write_as_client(data_dir)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert orphan.wait(TIMEOUT_S) == 0
        assert client.get("greeting") == b"hello"


def test_a_redis_started_by_hand_on_the_same_files_is_stopped(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        client.set("greeting", "hello")
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
    wait_until(lambda: EmbeddedRedis(data_dir)._send_command(b"PING").startswith(b"+PONG"))
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert by_hand.wait(TIMEOUT_S) == 0
        assert client.get("greeting") == b"hello"


def test_an_orphaned_redis_that_does_not_stop_fails_the_start_with_its_pid(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = leave_orphan(data_dir, monkeypatch)
    orphan.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(embedded_redis, "ORPHAN_TIMEOUT_S", 0.2)
    with pytest.raises(DataDirError, match=rf"earlier run \(pid {orphan.pid}\) did not shut down"):
        EmbeddedRedis(data_dir).start()
    (data_dir / "redis" / "redis.sock").unlink()
    with pytest.raises(DataDirError, match=rf"earlier run \(pid {orphan.pid}\) did not shut down"):
        EmbeddedRedis(data_dir).start()
    orphan.send_signal(signal.SIGCONT)
    orphan.terminate()
    orphan.wait(TIMEOUT_S)


def test_a_redis_with_other_data_on_the_socket_fails_the_start_and_keeps_running(
    data_dir: Path,
) -> None:
    with EmbeddedRedis(data_dir / "stranger") as stranger:
        (data_dir / "redis").mkdir()
        (data_dir / "redis" / "redis.sock").symlink_to(
            data_dir / "stranger" / "redis" / "redis.sock"
        )
        with pytest.raises(DataDirError, match="a Redis with other data listens on"):
            EmbeddedRedis(data_dir).start()
        with connect(stranger) as client:
            assert client.ping()


def test_a_stale_socket_and_a_reused_pid_are_ignored(data_dir: Path) -> None:
    home = data_dir / "redis"
    home.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(home / "redis.sock"))
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (home / "redis.pid").write_text(f"{stranger.pid}\n")
        (data_dir / "holdline.lock").write_text(f"{stranger.pid} and then some\n")
        with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
            assert client.ping()
            assert (home / "redis.pid").read_text().strip() == str(redis.pid)
            assert (data_dir / "holdline.lock").read_text() == f"{os.getpid()}\n"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_poll_reports_a_dead_redis_and_a_new_start_recovers(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as redis:
        assert redis.poll() is None
        assert redis.pid is not None
        os.kill(redis.pid, signal.SIGKILL)
        wait_until(lambda: redis.poll() is not None)
        redis.stop()
        redis.start()
        with connect(redis) as client:
            assert redis.poll() is None
            assert client.ping()


def test_data_of_redis_6_is_read_by_redis_7_and_then_rejected_by_redis_6(
    data_dir: Path, install_only: Callable[..., None]
) -> None:
    six = find_server(lambda version: (6, 2) <= version < (7,))
    seven = find_server(lambda version: version >= (7,))
    install_only(six)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert redis.version.startswith("6.2")
        client.set("greeting", "hello")
    install_only(seven)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("greeting") == b"hello"
    install_only(six)
    with pytest.raises(
        RedisNotFoundError,
        match=rf"the data in {data_dir}/redis needs Redis or Valkey 7.*\(6\.2\.\d+\)",
    ):
        EmbeddedRedis(data_dir).start()
    install_only(six, seven)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("greeting") == b"hello"


@pytest.mark.parametrize("major", [6, 7])
def test_a_truncated_last_command_is_the_only_loss(
    data_dir: Path, install_only: Callable[..., None], major: int
) -> None:
    install_only(find_server(lambda version: version[:1] == (major,)))
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        client.set("greeting", "hello")
        client.set("cut", "off")
    os.truncate(append_only_file(data_dir), append_only_file(data_dir).stat().st_size - 3)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("greeting") == b"hello"
        assert client.get("cut") is None


def test_a_failed_start_reports_the_log_tail_of_this_run(
    data_dir: Path, install_only: Callable[..., None], tmp_path: Path
) -> None:
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        client.set("greeting", "hello")
    script = "#!/bin/sh\ncase $1 in --version) echo v=7.0.15;; *) echo unheard-of; exit 1;; esac\n"
    install_only(write_script(tmp_path / "failing", script))
    redis = EmbeddedRedis(data_dir)
    with pytest.raises(RedisStartError, match=r"(?s)exited with status 1.*unheard-of") as caught:
        redis.start()
    assert "bye bye" not in str(caught.value)
    assert redis.pid is None


def damage_manifest(folder: Path) -> None:
    (folder / "appendonly.aof.manifest").write_text("rubbish\n")


def write_newer_base(folder: Path) -> None:
    base = next(folder.glob("*.base.rdb"))
    base.write_bytes(b"REDIS0099" + base.read_bytes()[9:])


def append_newer_command(folder: Path) -> None:
    with next(folder.glob("*.incr.aof")).open("ab") as file:
        file.write(b"*2\r\n$5\r\nNEWER\r\n$1\r\nx\r\n")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (damage_manifest, "appendonlydir is damaged: restore it from a backup"),
        (write_newer_base, r"written by a newer Redis than [\d.]+ \(RDB format 99\): "),
        (append_newer_command, r"written by a newer Redis than [\d.]+ \(command NEWER\): "),
    ],
)
def test_the_cause_of_a_failed_start_is_named_in_one_line(
    data_dir: Path,
    install_only: Callable[..., None],
    damage: Callable[[Path], None],
    cause: str,
) -> None:
    install_only(find_server(lambda version: version >= (7,)))
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        client.set("greeting", "hello")
    damage(data_dir / "redis" / "appendonlydir")
    with pytest.raises(RedisStartError, match=cause) as caught:
        EmbeddedRedis(data_dir).start()
    assert str(caught.value).endswith(f". Its log: {data_dir}/redis/redis.log")
    assert "\n" not in str(caught.value)


def test_data_of_redis_6_that_a_newer_redis_wrote_is_named_as_such(
    data_dir: Path, install_only: Callable[..., None]
) -> None:
    install_only(find_server(lambda version: (6, 2) <= version < (7,)))
    (data_dir / "redis").mkdir(parents=True)
    (data_dir / "redis" / "appendonly.aof").write_bytes(b"REDIS0099")
    with pytest.raises(RedisStartError, match=r"newer Redis than 6[\d.]+ \(RDB format 99\): "):
        EmbeddedRedis(data_dir).start()


def test_an_append_only_folder_without_its_manifest_is_not_overwritten(
    data_dir: Path, install_only: Callable[..., None]
) -> None:
    install_only(find_server(lambda version: version >= (7,)))
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        client.set("greeting", "hello")
    folder = data_dir / "redis" / "appendonlydir"
    manifest = folder / "appendonly.aof.manifest"
    listed = manifest.read_bytes()
    manifest.unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataLostError, match=f"^{folder} has data, but not the file appendonly.aof"):
        EmbeddedRedis(data_dir).start()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    manifest.write_bytes(listed)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.get("greeting") == b"hello"


@pytest.mark.parametrize("has_files", [False, True])
def test_a_redis_that_was_killed_during_its_first_start_starts_again(
    data_dir: Path, install_only: Callable[..., None], has_files: bool
) -> None:
    install_only(find_server(lambda version: version >= (7,)))
    folder = data_dir / "redis" / "appendonlydir"
    if has_files:
        with EmbeddedRedis(data_dir):
            pass
        (folder / "appendonly.aof.manifest").unlink()
    else:
        folder.mkdir(parents=True)
    with EmbeddedRedis(data_dir) as redis, connect(redis) as client:
        assert client.dbsize() == 0


def test_a_full_disk_is_named_as_such(
    data_dir: Path, install_only: Callable[..., None], tmp_path: Path
) -> None:
    """The line is that of Redis 7.0. A test has no disk that it may fill."""
    line = "# Write error writing append only file on disk: No space left on device"
    script = f'#!/bin/sh\ncase $1 in --version) echo v=7.0.15;; *) echo "{line}"; exit 1;; esac\n'
    install_only(write_script(tmp_path / "full", script))
    with pytest.raises(RedisStartError, match=rf"the disk of {data_dir}/redis is full\. Its log"):
        EmbeddedRedis(data_dir).start()


def test_a_lock_that_the_disk_has_no_room_for_is_released(data_dir: Path) -> None:
    redis = EmbeddedRedis(data_dir)
    redis._lock = Path("/dev/full").open("w")  # noqa: SIM115
    redis._lock.write("1\n")
    redis.stop()
    assert redis._lock is None


def test_start_waits_and_logs_progress_while_redis_loads(
    data_dir: Path,
    install_only: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install_only(write_script(tmp_path / "loading", LOADING_SERVER.format(python=sys.executable)))
    send_command = EmbeddedRedis._send_command

    def send_until_reply(redis: EmbeddedRedis, command: bytes) -> bytes:
        replies: list[bytes] = []  # every reply counts: the fake server has a fixed number of them

        def has_reply() -> bool:
            replies.append(send_command(redis, command))
            return replies[-1] != b""

        wait_until(has_reply)
        return replies[-1]

    monkeypatch.setattr(EmbeddedRedis, "_send_command", send_until_reply)
    monkeypatch.setattr(embedded_redis, "PROGRESS_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, "holdline.embedded_redis"), EmbeddedRedis(data_dir) as redis:
        assert redis.poll() is None
    progress = [one.message for one in caplog.records if one.name == "holdline.embedded_redis"]
    assert progress == ["embedded Redis is loading its data: 41 %"] * 3


def test_a_start_that_must_return_leaves_redis_loading(
    data_dir: Path, install_only: Callable[..., None], tmp_path: Path
) -> None:
    install_only(write_script(tmp_path / "loading", LOADING_SERVER.format(python=sys.executable)))
    redis = EmbeddedRedis(data_dir)
    redis.start(lambda: True)
    assert redis.poll() is None
    redis.stop()


def test_a_redis_that_does_not_reply_fails_the_start(
    data_dir: Path,
    install_only: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = write_script(
        tmp_path / "hanging",
        "#!/bin/sh\n"
        "case $1 in --version) echo v=7.0.15;; *) echo hanging; exec /bin/sleep 60;; esac\n",
    )
    install_only(hanging)
    monkeypatch.setattr(embedded_redis, "READY_TIMEOUT_S", 0.2)
    redis = EmbeddedRedis(data_dir)
    with pytest.raises(RedisStartError, match=r"(?s)did not reply for 0 s at startup.*hanging"):
        redis.start()
    assert redis.pid is None


def test_a_redis_that_ignores_sigterm_is_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    redis = EmbeddedRedis(data_dir)
    redis.start()
    pid = redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded_redis, "STOP_TIMEOUT_S", 0.1)
    redis.stop()
    assert not is_alive(pid)
    assert f"(pid {pid}) did not exit within 0 s of SIGTERM" in caplog.text


def leave_orphan(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[bytes]":
    """Start a Redis that outlives its supervisor, as on systems without PR_SET_PDEATHSIG.

    The caller must reap it, because this process is its parent.
    """
    with monkeypatch.context() as patch:
        patch.setattr(child_process, "make_death_signal_hook", lambda number: None)
        supervisor = EmbeddedRedis(data_dir)
        supervisor.start()
    process = supervisor._process
    assert process is not None
    supervisor._process = None
    supervisor.stop()
    return process


def append_only_file(data_dir: Path) -> Path:
    """Return the file to which Redis appends: the last part since Redis 7."""
    parts = sorted((data_dir / "redis").glob("appendonlydir/*.incr.aof"))
    return parts[-1] if parts else data_dir / "redis" / "appendonly.aof"
