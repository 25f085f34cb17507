"""Sessions: the signed grant, their life, and their keys."""
