"""The cluster file, and the processes that it describes."""
