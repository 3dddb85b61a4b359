"""Files in, checked arrays out: one reader per format, the scripted data makers and the downloader."""
