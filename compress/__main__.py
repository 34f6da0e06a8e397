"""`python -m compress` is `limbeck`."""

from compress.cli import main

main()
