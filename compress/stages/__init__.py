"""The stages of a run: each ties a function from typed inputs to a typed result to its place in the run directory."""
