"""The process: how it starts and ends, what it keeps from others, and what a kill costs."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from parallel_orchestrator.gateway.config import StartConfig, encode, new_socket_directory
from parallel_orchestrator.gateway.handle import GatewayProcess, gateway_environment
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import CannotGoOn, DamagedState, UsageError
from tests.fake_api import KEY, FakeApi, Fault
from tests.gateway.support import RUN, Setup, body, gateway, wait_until


def kill(gw: Setup) -> None:
    """kill -9, and wait until all its threads are gone."""
    assert gw.process.pid
    os.kill(gw.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, gw.process.pid, os.WEXITED | os.WNOWAIT)


def ask_in_vain(gw: Setup, turn: int) -> None:
    with pytest.raises(httpx2.TransportError):
        gw.ask(turn)


def test_a_killed_gateway_is_started_again_and_its_open_calls_count_at_their_bound(tmp_path: Path) -> None:
    with FakeApi(faults=[None, Fault.HANG]) as api, gateway(tmp_path, api) as gw:
        gw.open(max_cost_usd=1.0)
        first = gw.ask(1)
        cut = threading.Thread(target=ask_in_vain, args=(gw, 2))
        cut.start()
        api.wait_for_requests(2)
        kill(gw)
        cut.join()
        assert gw.process.ensure_alive()
        assert not gw.process.ensure_alive()
        status = gw.process.status()["runs"][RUN]
        lost = gw.records("intent")[1]
        assert status["unsure_usd"] == pytest.approx(lost["bound_usd"])
        assert status["max_cost_usd"] == 1.0
        assert gw.ask(1).text == first.text
        assert gw.ask(2).status_code == 200
        assert len(api.requests) == 3
        assert [record["call"] for record in gw.records("intent")] == [1, 2, 3]


def test_the_cap_over_all_runs_counts_closed_ones_and_those_of_before(tmp_path: Path) -> None:
    with FakeApi() as api:
        with gateway(tmp_path, api, max_cost_usd=1e-9) as gw:
            gw.open("closed")
            gw.ask(1, client=gw.client(gw.token(run="closed")))
            gw.process.close_run("closed")
            kill(gw)
            gw.process.ensure_alive()
            gw.open()
            assert "all scenarios together have spent" in gw.ask(2).text
        spent = {RUN: 2.0}
        with gateway(tmp_path, api, max_cost_usd=1.0, spent_before_usd=spent) as gw:
            gw.open("other")
            assert "all scenarios together" in gw.ask(3, client=gw.client(gw.token(run="other"))).text
            gw.open()  # from here on its ledger counts
            assert gw.ask(4).status_code == 200


def test_a_caller_that_comes_before_its_run_is_open_waits_for_it(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        results: list[httpx2.Response] = []
        early = gw.ask_in_thread(results, 1)
        wait_until(lambda: bool(gw.process.status()))
        gw.open()
        early.join()
        assert results[0].status_code == 200


# httpcore2 leaves a socket to the garbage collector when nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_times_lose_no_answer_and_buy_at_most_one_call_each(tmp_path: Path, seed: int) -> None:
    kills, turns, dice = 4, 8, random.Random(seed)
    with FakeApi(latency_s=0.05) as api, gateway(tmp_path, api) as gw:
        gw.open()
        done = threading.Event()

        def killer() -> None:
            for _ in range(kills):
                time.sleep(dice.uniform(0.0, 0.3))
                kill(gw)
                gw.process.ensure_alive()
            done.set()

        thread = threading.Thread(target=killer)
        thread.start()
        answers = [ask_until_answered(gw, turn) for turn in range(1, turns + 1)]
        thread.join()
        assert [ask_until_answered(gw, turn) for turn in range(1, turns + 1)] == answers
        bought = sum(api.whole_answers().values())
        assert turns <= bought <= turns + kills
        assert not any(record["changed"] for record in gw.records("intent"))
        assert len(gw.records("answer")) == turns
        gc.collect()


def ask_until_answered(gw: Setup, turn: int) -> str:
    while True:
        try:
            response = gw.ask(turn, json=body(f"turn {turn}"))
        except httpx2.TransportError:
            time.sleep(0.02)
        else:
            assert response.status_code == 200
            return response.text


def test_the_end_of_its_input_lands_the_calls_in_flight(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.5) as api, gateway(tmp_path, api) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        thread = gw.ask_in_thread(results, 1)
        api.wait_for_requests(1)
        assert gw.process.stop(timeout=20) == 0
        thread.join()
        assert results[0].status_code == 200
        assert len(gw.records("answer")) == 1
        assert not gw.process.config.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lands_the_calls_in_flight_and_refuses_others(tmp_path: Path, number: signal.Signals) -> None:
    with FakeApi(latency_s=0.8) as api, gateway(tmp_path, api) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        thread = gw.ask_in_thread(results, 1)
        api.wait_for_requests(1)
        assert gw.process.pid
        os.kill(gw.process.pid, number)
        wait_until(lambda: bool(gw.process.status()["stopping"]))
        assert gw.error(gw.ask(2)) == "gateway_stopping"
        thread.join()
        assert results[0].status_code == 200
        assert len(api.requests) == 1


def test_an_orchestrator_that_died_before_the_reply_ends_it_in_good_order(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "parallel_orchestrator.gateway"]
    start = StartConfig(tmp_path / "socket", "secret", None, None)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=gateway_environment()) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(encode({"start": start}))
        process.stdin.flush()
        assert process.stderr.read().decode() == ""
        assert process.wait() == 0


def test_ctrl_c_is_for_the_orchestrator(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert gw.process.pid
        os.kill(gw.process.pid, signal.SIGINT)
        assert gw.ask(1).status_code == 200


def test_the_end_is_bounded_by_the_patience(tmp_path: Path) -> None:
    with FakeApi(faults=[Fault.HANG]) as api, gateway(tmp_path, api, patience_s=1.0) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        thread = gw.ask_in_thread(results, 1)
        api.wait_for_requests(1)
        assert gw.process.stop(timeout=20) == 0
        thread.join()
        assert results[0].status_code == 503


def test_the_lock_is_held_while_the_gateway_lives(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "run.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sockets = new_socket_directory()
    process = GatewayProcess(StartConfig(sockets / "gw", "secret"), lock).start()
    other = os.open(tmp_path / "run.lock", os.O_RDWR)
    try:
        os.close(lock)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        process.stop()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    assert not sockets.exists()


def test_the_socket_and_its_directory_are_for_this_user_alone(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        path = gw.process.config.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(os.fsencode(path)) <= 90


def test_neither_key_nor_secret_can_be_seen_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-0123456789"
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_CUSTOM_HEADERS", "OPENAI_API_KEY", "MY_TOKEN", "ALL_PROXY"):
        monkeypatch.setenv(name, canary)
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert canary not in gateway_environment().values()
    assert gateway_environment()["NO_PROXY"] == "localhost"
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.ask(1)
        seen = [Path(f"/proc/{gw.process.pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
        seen += [path.read_bytes() for path in tmp_path.iterdir()]
        secrets = [canary.encode(), api.key.encode(), gw.process.config.secret.encode()]
        assert not [secret for secret in secrets for content in seen if secret in content]
    assert KEY not in repr(StartConfig(Path("s"), "secret-value", Credential("api_key", KEY)))
    assert "secret-value" not in repr(StartConfig(Path("s"), "secret-value"))


def test_a_short_path_for_the_socket_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shorter"):
        GatewayProcess(StartConfig(tmp_path / ("x" * 100), "secret"))


def test_an_unknown_model_with_a_budget_is_refused_before_anything_is_bought(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"models": {"llama-9": {"input": 1, "output": 5}}}')
    with FakeApi() as api:
        with gateway(tmp_path, api) as gw, pytest.raises(UsageError, match=r"llama-9.*--prices"):
            gw.open(max_cost_usd=1.0, models=("llama-9",))
        with gateway(tmp_path, api, prices=prices) as gw:
            gw.open(max_cost_usd=1.0, models=("llama-9",))
            assert gw.ask(1, json=body(model="llama-9")).status_code == 200
            assert gw.records("answer")[0]["usd"] > 0


def test_refusals_cross_the_pipe_in_their_own_class(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        with pytest.raises(UsageError, match="no endpoint"):
            gw.open()
        with pytest.raises(UsageError, match="not open"):
            gw.process.close_run("nobody")
        with pytest.raises(UsageError, match="cannot read the recording"):
            gw.open(recording=tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="price file"), gateway(tmp_path, prices=tmp_path / "absent.json"):
        pass
    with pytest.raises(CannotGoOn, match="does not answer"):
        gw.process.status()
    with pytest.raises(CannotGoOn, match="is not running"):  # another thread was still about to open one
        gw.open()


def test_a_torn_tail_is_repaired_and_other_damage_refused(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.ask(1)
        gw.process.close_run(RUN)
        whole = gw.ledger().read_bytes()
        gw.ledger().write_bytes(whole + b'{"seq":3,"kind":"inte')
        gw.open()
        assert gw.ledger().read_bytes() == whole
        gw.ask(2)
        gw.process.close_run(RUN)
        gw.ledger().write_bytes(gw.ledger().read_bytes().replace(b'"kind":"answer"', b'"kind":"answex"', 1))
        with pytest.raises(DamagedState, match="line 2"):
            gw.open()


def test_a_ledger_that_cannot_be_written_stops_new_calls(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        stored = gw.ask(1)
        assert gw.process.pid
        room = gw.ledger().stat().st_size + 10
        resource.prlimit(gw.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        for turn in (2, 3):
            refused = gw.ask(turn)
            assert (refused.status_code, gw.error(refused)) == (503, "cannot_write")
        assert len(api.requests) == 1
        assert gw.ask(1).text == stored.text
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(gw.process.pid, resource.RLIMIT_FSIZE, unlimited)
        gw.process.close_run(RUN)
        gw.open()
        assert gw.ask(2).status_code == 200


def test_an_answer_that_cannot_be_written_is_not_delivered(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.5) as api, gateway(tmp_path, api) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        thread = gw.ask_in_thread(results, 1)
        api.wait_for_requests(1)
        assert gw.process.pid
        room = gw.ledger().stat().st_size + 10
        resource.prlimit(gw.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        thread.join()
        assert gw.error(results[0]) == "cannot_write"
        assert gw.records("answer") == []


def test_a_gateway_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    process = GatewayProcess(StartConfig(tmp_path / "s", "secret"))
    with pytest.raises(CannotGoOn, match=r"cannot start the gateway process: .*no-python"):
        process.start()
    assert process.stop() is None


def test_a_socket_that_was_removed_is_made_again_at_once(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        old = gw.client()
        assert gw.ask(1, client=old).status_code == 200
        pid, path = gw.process.pid, gw.process.config.socket
        for folder in (False, True):
            if folder:
                shutil.rmtree(path.parent)
            else:
                path.unlink()
            began = time.monotonic()
            wait_until(path.is_socket, 5)
            wait_until(lambda: _answers(gw), 5)
            assert time.monotonic() - began < 5
            assert gw.ask(1, client=old).status_code == 200
        assert gw.process.pid == pid
        assert len(api.requests) == 1


def _answers(gw: Setup) -> bool:
    try:
        return bool(gw.process.status())
    except CannotGoOn:
        return False
