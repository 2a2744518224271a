"""The three values of a label.

Everywhere in this package a label matrix is ``(N, C)``: N images, C classes.
"""
PRESENT = 1
ABSENT = 0
UNKNOWN = -1
