"""What the run promises when it is killed, tried on the real program."""
