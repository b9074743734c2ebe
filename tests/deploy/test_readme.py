"""deploy/README.md from MLflow on PostgreSQL to a scheduled audit, run as it is written there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from scheduled_machine import environment
from servers import free_port, postgres

README = Path(__file__).parents[2] / "deploy" / "README.md"
MARK = "<!-- tests/deploy/test_readme.py runs this block -->"


def test_the_commands_lead_to_a_scheduled_audit(tmp_path: Path) -> None:
    [block] = re.findall(rf"{re.escape(MARK)}\n\n```sh\n(.*?)```", README.read_text(), flags=re.DOTALL)
    script = block.replace("5000", str(free_port())).replace("4200", str(free_port()))
    programs = Path(sys.executable).parent
    with postgres() as database, (tmp_path / "said").open("w") as said:
        shell = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment(tmp_path / "home", DATABASE=database, PATH=f"{programs}:{os.environ['PATH']}"),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = shell.wait(400)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)  # the two servers in the background
            os.killpg(shell.pid, signal.SIGKILL)
        out = (tmp_path / "said").read_text()
        assert code == 0, out[-4000:]
        assert "Completed" in out
        assert re.search(r"first .* ok ", out), out[-2000:]
