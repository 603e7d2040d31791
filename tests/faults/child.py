"""A pull in a process of its own: ``child.py STORE URL REF SEGMENT`` prints its peak memory in bytes, then ``done``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main():
    from builders import around

    from wszoo.distribution.pull import pull
    from wszoo.names import Ref
    from wszoo.remotes.http import HttpType
    from wszoo.store.store import Store
    from wszoo.transfer import Tuning

    root, url, ref, segment = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    tuning = Tuning(segment=int(segment), backoff=0.01, backoff_cap=0.2)
    pull(Store(Path(root)), HttpType().open(url), Ref.parse(ref), around("none"), tuning=tuning)
    # Not getrusage: its maximum is inherited from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
    sys.stdout.write(f"{int(peak) << 10} done\n")


if __name__ == "__main__":
    main()
