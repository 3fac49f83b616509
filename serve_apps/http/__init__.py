"""What every endpoint shares: parsing, errors, admission."""
