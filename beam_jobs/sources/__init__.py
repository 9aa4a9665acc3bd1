"""The kinds of sources: one file each. Besides, `streams` opens files and `fields` makes documents of rows."""
