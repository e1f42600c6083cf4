"""The commands in one group, and every error as a message and an exit code by fault.

0  done                                  3  the classifier's fault
1  a bug: please report it               4  the budget ran out
2  yours: command line, configuration,   130  interrupted; a run can be resumed
   pictures, run folder, disk
"""

from __future__ import annotations

import sys
from typing import Any

import click

from smoothing_proxy import __version__
from smoothing_proxy.cli.ask import certify, predict
from smoothing_proxy.cli.attack import attack
from smoothing_proxy.cli.demo import demo
from smoothing_proxy.cli.denoise import denoise
from smoothing_proxy.cli.doctor import doctor
from smoothing_proxy.cli.init import init
from smoothing_proxy.cli.keys import keys
from smoothing_proxy.cli.labels import labels
from smoothing_proxy.cli.plan import plan
from smoothing_proxy.cli.replay import replay
from smoothing_proxy.cli.run import run
from smoothing_proxy.cli.serve import serve
from smoothing_proxy.cli.simulate import simulate
from smoothing_proxy.cli.study import study
from smoothing_proxy.cli.tune_filter import tune_filter
from smoothing_proxy.errors import BackendError, BudgetExceededError, SmoothingProxyError

__all__ = ["app", "exit_code"]


def exit_code(error: SmoothingProxyError) -> int:
    """Whose fault the error is, as an exit code."""
    if isinstance(error, BackendError):
        return 3
    return 4 if isinstance(error, BudgetExceededError) else 2


class _Commands(click.Group):
    """Prints this package's errors without a traceback, which would say nothing to their reader."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SmoothingProxyError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(exit_code(error))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="smoothing-proxy")
def app() -> None:
    """Provably robust answers from an image classifier that you cannot change."""


for command in (
    demo,
    plan,
    predict,
    certify,
    run,
    replay,
    attack,
    denoise,
    labels,
    doctor,
    init,
    serve,
    simulate,
    keys,
    study,
    tune_filter,
):
    app.add_command(command)
