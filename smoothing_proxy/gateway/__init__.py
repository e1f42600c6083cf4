"""HTTP and gRPC fronts in the vendors' own formats: an SDK changes its endpoint, and gets hardened answers."""
