"""One decoder for each file format, bytes to events or images; :mod:`~plifctl.data.formats.detect` knows them all.

The header of a file decides its format, never its name. Events whose times run backwards are sorted; events with equal
times keep their order. A file that is not a complete file of its format is a DamagedFileError with the offset.
"""
