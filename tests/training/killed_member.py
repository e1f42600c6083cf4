"""A training that is killed at one step: `python -m tests.training.killed_member STEP CONFIG ...`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from unittest.mock import patch

from denoiser_training.__main__ import main
from denoiser_training.journal import Records


class Mortal(Records):
    """Records whose process is gone as soon as the row of a step is on disk."""

    step = 0

    def append(self, name: str, row: Mapping[str, float | int | str]) -> None:
        """As Records do, once too often."""
        super().append(name, row)
        if (name, row["step"]) == ("metrics", self.step):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Mortal.step = int(sys.argv[1])
    with patch("denoiser_training.loop.Records", Mortal):
        sys.exit(main(sys.argv[2:]))
