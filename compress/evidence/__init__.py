"""From what every variant answers to the choice on validation, and from the test split to the verdicts."""
