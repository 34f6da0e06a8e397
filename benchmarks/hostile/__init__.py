"""What strangers and attackers send, from a seed, to a real server: nothing of it may break or change the server."""
