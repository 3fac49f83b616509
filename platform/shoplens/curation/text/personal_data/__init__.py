"""Personal data in Korean titles and queries: numbers of persons, phones, addresses, e-mails, accounts.

`detection.personal_data` finds them, `detection.masked` hides them, `found` says what a match is. Each other module finds
one kind, or a few that look alike.
"""
