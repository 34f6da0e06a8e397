"""The same package behind other servers: what serving it costs, side by side (`make bench-serve`)."""
