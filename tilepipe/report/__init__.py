"""Output for users: the plan, progress during a run, and the summary."""
