"""Settings files with single values replaced from the command line: `--set a.b=value`."""

from __future__ import annotations

from smoothing_proxy.settings_file import load_settings

__all__ = ["load_settings"]
