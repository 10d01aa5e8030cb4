"""Claims in words about figures, computed again: whether a percentage, a ratio, a sum or a bound fits them."""
