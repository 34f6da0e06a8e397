"""A graph that the runtime runs well: rewrites of an exported graph, each kept only where it is measured faster."""
