"""`python -m smoothing_proxy`."""

from smoothing_proxy.cli import main

main()
