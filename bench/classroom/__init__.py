"""Hand-ins of a class next to one another: why do we differ?"""
