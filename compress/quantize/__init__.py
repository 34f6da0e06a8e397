"""A graph at another precision; `precisions.py` is the door, each way of getting there a file of its own."""
