"""Claude Code as a back end: its tools and prompts, with this project's turns and transcript."""
