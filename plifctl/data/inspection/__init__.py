"""Facts and problems of recordings before they are prepared: of one file, of a folder, of an archive."""
