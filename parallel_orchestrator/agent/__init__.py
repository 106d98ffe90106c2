"""How a model acts: its turns and their transcript, its tools, path confinement, the sandbox."""
