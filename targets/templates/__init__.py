"""The [kernel.*] tables of a descriptor: one file per template, with the data that fills it and its checks.

What makes code of a table is a file of hwptq/kernels/.
"""
