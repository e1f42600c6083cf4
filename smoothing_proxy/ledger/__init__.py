"""A run's memory: every draw before it is sent and after it is settled. The only floor with a database."""
