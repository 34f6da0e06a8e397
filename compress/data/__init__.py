"""`limbeck data`: what is wrong with data, and how training sees them."""
