"""What is measured of each variant: what it says of a split, how long it takes, how much memory it needs."""
