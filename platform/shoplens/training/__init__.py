"""The one training loop on Ray Train, and how Ray Data feeds it."""
