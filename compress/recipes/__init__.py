"""Recipes that come with limbeck."""
