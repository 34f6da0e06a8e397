"""Start here: pipeline.py is the main flow."""
