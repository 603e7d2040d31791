"""Lock files: every byte that an app needs, by its digest, in one file that people can read and compare."""
