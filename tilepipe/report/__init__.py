"""What people read: progress while it runs, the plan before, the summary after."""
