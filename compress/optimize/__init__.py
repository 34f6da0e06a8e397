"""`limbeck optimize`: students, precisions and runtime settings searched for what keeps a recipe's constraints."""
