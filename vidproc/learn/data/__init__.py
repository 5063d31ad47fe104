"""Data to tensors: labelled clips and frames, read through the decoder that indexing uses.

Everything random about an example follows from (seed, epoch, its index), so a resumed training sees the same examples
as an unbroken one.
"""
