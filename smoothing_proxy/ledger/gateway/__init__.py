"""The gateway's memory: keys, budgets, requests, draws and verdicts, shared by all replicas behind one address."""
