"""The version, by itself, so that everything can name it."""

VERSION = "0.1.0"
