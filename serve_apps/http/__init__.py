"""Code that all endpoints share: inputs, parsing, answers, errors, admission."""
