"""Claude Code as the one that acts: the real program's tools and prompts, under this project's turns and transcript."""
