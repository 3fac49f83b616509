"""A shop's own models, each one file over the contract of shoplens: what a plug-in looks like."""
