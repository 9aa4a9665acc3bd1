"""Sources: files -> documents, one module per format.

`registry` finds the reader of a source, `input_files` lists and divides its files, `streams` opens
them, `fields` makes documents of rows, and `batches` collects them.
"""
