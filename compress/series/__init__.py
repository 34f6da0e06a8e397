"""Several runs of one recipe that differ in one setting, the seed or the fold, and what they are worth together."""
