"""`python -m benchmarks.soak --kills 50 --home soak`: kill -9 at random, then the same again; prints what came of it.

Flow processes, workers of Prefect, the Prefect server and the MLflow server are killed in the middle of audits of an
MLflow experiment and of a folder, while runs grow in between. The same command goes on where it was interrupted itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.soak import checks
from benchmarks.soak.flow import work
from benchmarks.soak.places import Runs, Server, mlflow_server, prefect_server, write_settings
from benchmarks.soak.worker import Worker
from spectral_edge.store import Store

OF_THE_WORKER = ("worker", "worker and its flow run")
VICTIMS = ("worker", "flow", "MLflow server", "flow", "Prefect server", "worker and its flow run", "flow", "worker")
"""In turn; the instants are left to chance."""

ROUND_SECONDS = 180.0
WORK_SECONDS = 1.0
"""For how long, at most, a flow run of the worker has been at work on a run when the worker is killed."""

SEEN_SECONDS = 420.0
"""A flow run whose processes are gone is Crashed after 120 s without a heartbeat, and frees its place before."""


@dataclass
class Tally:
    """How far it has come; kept in a file, so that it can be continued."""

    killed: Counter[str] = field(default_factory=Counter)
    too_late: int = 0
    grown: int = 0

    @classmethod
    def of(cls, path: Path) -> Tally:
        """What the file says; nothing done where there is none."""
        told = json.loads(path.read_text()) if path.exists() else {"killed": {}, "too_late": 0, "grown": 0}
        return cls(Counter(told["killed"]), told["too_late"], told["grown"])

    def keep(self, path: Path) -> None:
        """Write it, whole or not at all."""
        part = path.with_suffix(".part")
        told = {"killed": dict(self.killed), "too_late": self.too_late, "grown": self.grown}
        part.write_text(json.dumps(told))
        part.rename(path)


@dataclass(frozen=True)
class Bench:
    """Where it all happens."""

    home: Path
    runs: Runs
    worker: Worker

    def audit(self, store: str = "store", annotate: str = "full") -> multiprocessing.process.BaseProcess:
        """A flow process of its own, working."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.soak.flow", "pipelines.audit", "integrations.mlflow_tracker"])
        process = context.Process(target=work, args=(str(self.home), store, annotate), daemon=True)
        process.start()
        return process

    def undisturbed(self, store: str = "store", annotate: str = "full") -> float:
        """Audit to the end; how many seconds that takes."""
        started = time.monotonic()
        process = self.audit(store, annotate)
        process.join(10 * ROUND_SECONDS)
        if process.exitcode != 0:
            raise RuntimeError(f"an undisturbed audit ended with {process.exitcode}")
        return time.monotonic() - started


def main() -> None:
    """Run it, print the table, and exit 1 when anything was lost, wrong, there twice or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--home", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds that an audit lives, at most")
    given = parser.parse_args()
    home = given.home.resolve()
    for folder in ("work", "tmp", "runs"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    sys.exit(soak(home, given.kills, given.longest, random.Random(given.seed)))


def soak(home: Path, kills: int, longest: float, chance: random.Random) -> int:
    """The loop and the checks; the exit code."""
    (address, mlflow), (prefect_address, prefect) = mlflow_server(home), prefect_server(home)
    os.environ |= {
        "PREFECT_API_URL": prefect_address,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "TMPDIR": str(home / "tmp"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    with ExitStack() as stack:
        for server in (mlflow, prefect):
            stack.callback(server.kill)
            server.start()
        runs = Runs(home, MlflowClient(address))
        runs.make()
        write_settings(home, address)
        bench = Bench(home, runs, stack.enter_context(Worker.of(home)))
        tally = Tally.of(home / "tally.json")
        while tally.killed.total() < kills:
            _round(bench, tally, {"Prefect server": prefect, "MLflow server": mlflow}, longest, chance)
            tally.keep(home / "tally.json")
        return _judge(bench, tally)


def _round(bench: Bench, tally: Tally, servers: dict[str, Server], longest: float, chance: random.Random) -> None:
    """Grow a run, begin an audit, kill something in the middle of it, and have it all work again."""
    bench.runs.grow(chance.randrange(1000))
    tally.grown += 1
    victim, moment = VICTIMS[tally.killed.total() % len(VICTIMS)], chance.random()
    if victim in OF_THE_WORKER:
        is_killed = _kill_worker(bench.worker, moment, with_flow_runs=victim != "worker")
    else:
        is_killed = _kill(bench.audit(), victim, servers.get(victim), moment * longest)
    if is_killed:
        tally.killed[victim] += 1
        print(f"{tally.killed.total():4d} killed: {victim}", file=sys.stderr, flush=True)
    else:
        tally.too_late += 1


def _kill(audit: multiprocessing.process.BaseProcess, victim: str, server: Server | None, after: float) -> bool:
    """Kill the audit, or a server that it needs, after so many seconds; False when it had ended by then."""
    audit.join(after)
    if audit.exitcode is not None:
        return False
    if server is None:
        audit.kill()
    else:
        server.kill()
        server.start()
    audit.join(ROUND_SECONDS)
    if audit.exitcode is None:
        raise RuntimeError(f"an audit did not end after the death of the {victim}")
    return True


def _kill_worker(worker: Worker, moment: float, *, with_flow_runs: bool) -> bool:
    """Have the worker audit, and kill it while its flow run works on a run; False when that was done before."""
    worker.until_idle(SEEN_SECONDS)  # also a flow run that died with an earlier worker must have been seen to be dead
    is_at_work = worker.begin()
    if not worker.until_at_work(is_at_work, ROUND_SECONDS):
        return False
    time.sleep(moment * WORK_SECONDS)
    if not is_at_work():
        return False
    worker.kill(with_flow_runs=with_flow_runs)
    worker.server.start()
    return True


def _judge(bench: Bench, tally: Tally) -> int:
    bench.worker.until_idle(SEEN_SECONDS)
    ends = bench.worker.ends()
    bench.undisturbed()
    bench.undisturbed("undisturbed", "none")
    store = Store.open(bench.home / "work" / "store", create=False)
    undisturbed = Store.open(bench.home / "work" / "undisturbed", create=False)
    points, doubles = checks.doubles(bench.runs.client, bench.runs)
    bad = {
        "runs lost": len(checks.lost(store, bench.runs)),
        "runs whose tables differ from an undisturbed audit's": len(checks.wrong(store, undisturbed)),
        "metric points there twice": doubles,
        "audits with rows that no run owns": checks.orphans(store),
        "files left": len(checks.left_files(bench.home)),
        "processes left": len(checks.left_processes(bench.home)),
    }
    facts = {f"kills of the {name}": number for name, number in sorted(tally.killed.items())}
    facts |= {"audits that ended before their kill": tally.too_late, "times that runs grew": tally.grown}
    facts |= {
        f"flow runs of the worker that ended {name.capitalize()}": number for name, number in sorted(ends.items())
    }
    facts |= {"runs": len(bench.runs.checkpoints()), "metric points written": points}
    for name, number in (facts | bad).items():
        print(f"| {name} | {number:,} |")
    print("\n".join(checks.left_files(bench.home)), file=sys.stderr)
    return int(any(bad.values()))


if __name__ == "__main__":
    main()
