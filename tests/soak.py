"""The long form of test_faults.py: as many kills as one likes, on a server of its own.

python -m tests.soak [--kills 200] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.support.kills import Harness
from tests.support.s3 import BUCKET, SeaweedFS
from tests.whole.test_faults import SCENES, make_archive, rows
from vidproc.storage import open_storage


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.soak")
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="vidproc-soak-") as temporary:
        folder = Path(temporary)
        make_archive(folder / "archive")
        server = SeaweedFS(folder / "seaweedfs")
        server.start()
        os.environ.update(server.environment)
        on_s3 = open_storage(f"s3://{BUCKET}/archive")
        for path in (folder / "archive").iterdir():
            on_s3.put(path.name, path.read_bytes())

        harness = Harness(
            given.seed,
            {False: str(folder / "archive"), True: on_s3.uri},
            lambda name, s3: f"s3://{BUCKET}/{name}" if s3 else str(folder / name),
            rows,
            server,
        )
        share = given.kills / sum(scene.kills for scene in SCENES)
        try:
            for scene in SCENES:
                began = time.monotonic()
                died = harness.perform(replace(scene, kills=max(1, round(scene.kills * share))))
                print(f"{scene}: {dict(died)}, the rows are equal, {time.monotonic() - began:.0f} s", flush=True)
        finally:
            harness.close()
            server.stop()
    print(f"{harness.deaths.total()} kills in {harness.runs} runs, seed {given.seed}: {dict(harness.deaths)}")


if __name__ == "__main__":
    main()
