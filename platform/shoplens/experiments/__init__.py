"""Online experiments: assignment of users to arms, the event log, and the analysis with its verdict."""
