"""A vendor on this machine: any classifier behind a vendor's own wire format, with its limits and its faults."""
