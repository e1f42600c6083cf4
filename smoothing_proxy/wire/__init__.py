"""Each vendor's wire format as pure functions, both ways: for the backends, the simulator and the gateway."""
