"""`limbeck tune`: values of a recipe's fields searched, judged on validation or on folds, never on test."""
